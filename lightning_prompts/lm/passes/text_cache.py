"""Keys and values of texts that come before a prompt, kept from step to step."""

import logging
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_prompts.files.option_names import for_reader
from lightning_prompts.lm.backbone import Backbone, Layers, whole_cache
from lightning_prompts.lm.batch import Batch

log = logging.getLogger(__name__)

# A text is encoded in a block of this many rows, padded to a multiple of this many tokens, in
# whatever company it comes: its states are then the same to the last bit in every batch, and a
# resumed run, which meets it in another one, gives the same numbers.
BLOCK_ROWS = 16
BLOCK_TOKENS = 8
# Below this share of lookups that found their text, over as many evictions as texts fit, nothing
# repeats.
FEW_HITS = 0.05

Key = tuple[object, ...]  # a text, and what else decides over its states


class TextStates(NamedTuple):
    """What a frozen model makes of the texts before a prompt: constants, whatever the prompt.

    Attributes:
        layers: Keys and values of each layer, [B, heads, T0, d].
        mask: [B, T0] 1 at tokens; texts are left-padded, so that prompts start in one column.
    """

    layers: Layers
    mask: Tensor


class TextCache:
    """The least recently used text leaves where the bound is reached; off where nothing repeats.

    The latest batch's texts stay even then: the next pass may be over the same rows with other
    prompts, or over a part of them.

    Args:
        gib: Most memory to use, in GiB, and the same for the latest batch; 0 keeps nothing.
    """

    def __init__(self, gib: float) -> None:
        self.gib = gib
        self.bound = self.room = int(gib * 2**30)
        self.used = 0
        self._kept: OrderedDict[Key, Tensor] = OrderedDict()
        self._latest: dict[Key, Tensor] = {}
        self._lookups = self._hits = self._evictions = 0

    def renew(self) -> None:
        """Begin another run: what is kept stays, and whether texts repeat is to be seen again."""
        self.room = self.bound
        self._lookups = self._hits = self._evictions = 0

    @property
    def num_texts(self) -> int:
        """Texts that are kept."""
        return len(self._kept)

    def clear(self) -> None:
        """Keep no text from before."""
        self._kept.clear()
        self._latest = {}
        self.used = 0

    @torch.no_grad()
    def __call__(self, lm: Backbone, batch: Batch) -> TextStates:
        """The states of a batch's texts, of which only those that are not kept are computed."""
        device = batch["before_ids"].device
        # With the text these decide over token ids and numbers.
        dtype = lm.embedding_table.dtype
        setting = (tuple(lm.prefix_ids), str(device), dtype, _precision(device))
        known = next(iter(self._kept or self._latest), None)
        if known is not None and str(device) not in known:
            self.clear()  # the model has moved, and nobody asks for them there again
        states = self._find(lm, batch, setting)
        return joined_states(states, batch)

    def _find(self, lm: Backbone, batch: Batch, setting: tuple[object, ...]) -> list[Tensor]:
        """[layers, 2, heads, T, d] of each text."""
        texts = [before for before, _ in batch["texts"]]
        sizes = batch["before_sizes"]
        by_size = sorted(range(len(texts)), key=sizes.__getitem__)
        rows = {texts[row]: row for row in by_size}  # the row that has most of the text
        found: dict[str, Tensor] = {}
        for text in rows:
            key = (text, *setting)
            if (kept := self._kept.get(key)) is not None:
                self._kept.move_to_end(key)
            if key in self._latest:  # which says nothing of other batches
                found[text] = self._latest[key]
                continue
            self._lookups += 1
            if kept is not None:
                self._hits += 1
                found[text] = kept
        missing = [text for text in rows if text not in found]
        ids = []
        for text in missing:
            row, whole = rows[text], lm.prefix_ids + (lm.encode(text) if text else [])
            if sizes[row] == len(whole):  # already there: sending them would wait for the device
                ids.append(batch["before_ids"][row, : sizes[row]])
            else:
                ids.append(torch.tensor(whole, device=batch["before_ids"].device))
        for text, states in zip(missing, encode_blocks(lm, ids), strict=True):
            found[text] = states
            self._keep((text, *setting), states)
        if any((text, *setting) not in self._latest for text in found):
            fits = sum(states.nbytes for states in found.values()) <= self.bound
            latest = found if fits else {}
            self._latest = {(text, *setting): states for text, states in latest.items()}
        return [found[text] for text in texts]

    def _keep(self, key: Key, states: Tensor) -> None:
        if states.nbytes > self.room:
            return
        self._kept[key] = states
        self.used += states.nbytes
        while self.used > self.room:
            self.used -= self._kept.popitem(last=False)[1].nbytes
            self._evictions += 1
        if self._evictions > len(self._kept):
            if self._hits < FEW_HITS * self._lookups:
                log.info(
                    for_reader(
                        "Hardly any text came back while %.3g GiB of texts' keys and values were "
                        "kept, so only a batch's own are kept from now on; --lm.text_cache sets "
                        "the bound."
                    ),
                    self.gib,
                )
                self.clear()
                self.room = 0
            self._lookups = self._hits = self._evictions = 0

    def __getstate__(self) -> dict[str, Any]:
        """Without the texts: another process makes its own."""
        return vars(self) | {"_kept": OrderedDict(), "_latest": {}, "used": 0}


def joined_states(states: Sequence[Tensor], batch: Batch) -> TextStates:
    """What is kept of each text, [layers, 2, heads, T, d], as one batch."""
    num_before, like = batch["before_ids"].shape[1], states[0]
    num_layers, _, heads, _, width = like.shape
    # (layers, 2, B, heads, T0, d); zeros, for what is masked is still multiplied by 0.
    joined = like.new_zeros(num_layers, 2, len(states), heads, num_before, width)
    # A row may stop within its text: causality makes a beginning's states those of the text.
    for row, (one, size) in enumerate(zip(states, batch["before_sizes"], strict=True)):
        joined[:, :, row, :, num_before - size :] = one[..., :size, :]
    return TextStates([(keys, values) for keys, values in joined], text_mask(batch))


def text_mask(batch: Batch) -> Tensor:
    """[B, T0] 1 at the tokens of the pieces before the prompt, left-padded."""
    ids, lengths = batch["before_ids"], batch["before_lengths"]
    slots = torch.arange(ids.shape[1], device=ids.device)[None]
    return (slots >= ids.shape[1] - lengths[:, None]).long()


def encode_blocks(
    lm: Backbone, texts: Sequence[Tensor], num_rows: int = BLOCK_ROWS
) -> list[Tensor]:
    """Keys and values of each text, encoded in blocks of one shape.

    Args:
        lm: The frozen language model.
        texts: [T] Token ids of each.
        num_rows: Of a block.

    Returns:
        [layers, 2, heads, T, d] of each.
    """
    by_length: dict[int, list[int]] = {}
    for i, ids in enumerate(texts):
        length = -(-max(1, len(ids)) // BLOCK_TOKENS) * BLOCK_TOKENS
        by_length.setdefault(min(length, lm.max_positions), []).append(i)
    found: dict[int, Tensor] = {}
    for length, members in by_length.items():
        for start in range(0, len(members), num_rows):
            some = members[start : start + num_rows]
            rows = [F.pad(texts[i], (0, length - len(texts[i]))) for i in some]
            rows += rows[:1] * (num_rows - len(rows))
            # Padding stands behind the texts, where causality keeps it from being seen.
            cache = lm.body(
                input_ids=torch.stack(rows), past_key_values=whole_cache(), use_cache=True
            ).past_key_values
            # Under autocast keys may come out wider than attention reads them.
            pairs = [torch.stack((x.keys.to(x.values.dtype), x.values)) for x in cache.layers]
            states = torch.stack(pairs)
            for row, i in enumerate(some):
                found[i] = states[:, :, row, :, : len(texts[i])].clone()
    return [found[i] for i in range(len(texts))]


def _precision(device: torch.device) -> torch.dtype | None:
    """The type that autocast computes in, None without it."""
    enabled = torch.is_autocast_enabled(device.type)
    return torch.get_autocast_dtype(device.type) if enabled else None
