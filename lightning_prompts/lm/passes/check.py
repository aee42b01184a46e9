"""Which ways of reusing states a model takes without other numbers: tried when it is loaded.

A model may place tokens by their column in a batch and not by their position (ALiBi, local
windows), keep other states than keys and values (recurrent and hybrid models), or take no mask of
ours. None of it can be told from a configuration for sure; so each way is tried on two prompts and
two rows of different lengths, and compared with plain rows.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lightning_prompts.files.errors import PromptError
from lightning_prompts.lm.backbone import Backbone
from lightning_prompts.lm.batch import Batch, Example, collate, on_device
from lightning_prompts.lm.passes.blocks import find_blocks
from lightning_prompts.lm.passes.growing_rows import GrowingRows
from lightning_prompts.lm.passes.reuse import concatenated, encode_texts, prompts_first, texts_first
from lightning_prompts.lm.passes.text_cache import encode_blocks, joined_states
from lightning_prompts.lm.ways import Ways

log = logging.getLogger(__name__)

# Most of the largest logit by which a way may differ: rounding makes 1e-6 in float32 and up to 0.02
# in bfloat16 (8 bits); a token in another place makes 0.05 and more.
TOLERANCE = {torch.bfloat16: 0.04, torch.float16: 0.01}
EXACT = 1e-3
# Whole sequences side by side, padded, are what every number here is made of: a model for which
# they differ by this much from single ones is refused.
REFUSED = 0.04
# Tokens of the longer text, the prompts, and what follows; a text exceeds small local windows.
TEXT, PROMPT, AFTER = 9, 3, (4, 2)
LARGEST_WINDOW = 64
SCORED = 256  # rows of the head: enough to tell hidden states apart


SAID = {
    "prompts_first": "prompts before texts",
    "texts_first": "texts before prompts",
    "block_masks": "texts before several prompts",
    "continued": "what a policy has written",
    "trees": "what samples begin with",
}


@torch.no_grad()
def check_ways(lm: Backbone, reuse: bool, keep: bool) -> None:
    """Set `lm.ways` to those that give what plain rows give, and say once which do not.

    Of the model's blocks only the first few are run, which have every kind of block among them: the
    check takes a fraction of the time that the model takes to load.

    Args:
        lm: Just made.
        reuse: Whether shared parts are to be encoded once, where that is exact.
        keep: Whether states of texts are to be kept.

    Raises:
        PromptError: If whole sequences, padded to one length, give other numbers than single ones.
    """
    config = lm.model.config.get_text_config()
    kinds = vars(config).get("layer_types") or []
    # Windows may be wider than what is tried, and masks of ours do not have them.
    whole = lm.window is None and all(kind == "full_attention" for kind in kinds)
    own_masks = not getattr(lm.model, "_supports_attention_backend", False)
    lm.ways = Ways(block_masks=whole, trees=lm.window is None or not own_masks)
    room = lm.max_positions - PROMPT - AFTER[0]
    if room < TEXT:  # nothing that is longer fits either
        return
    wider = lm.window + PROMPT if lm.window and lm.window <= LARGEST_WINDOW else 0
    with few_blocks(lm):
        trial = _Trial(lm, keep, min(room, max(TEXT, wider)))
        if not trial.exact(trial.whole, REFUSED):
            raise PromptError(
                f"{lm.label} ({lm.model.config.model_type}) gives rows that are padded to one "
                "length other numbers than single ones, so nothing can be measured with it; use "
                "another model, for example --lm.name gpt2."
            )
        exact = {
            "prompts_first": trial.exact(trial.prompts_first),
            "block_masks": whole and trial.exact(trial.texts_first),
            "continued": trial.exact(trial.continued),
            "trees": lm.ways.trees and trial.exact(trial.trees),
        }
        lm.ways = lm.ways._replace(block_masks=exact["block_masks"])
        exact["texts_first"] = exact["block_masks"] or trial.exact(trial.texts_first)
    lm.ways = Ways(**exact)
    _say(lm, reuse, [name for name, found in exact.items() if not found])


def _say(lm: Backbone, reuse: bool, failed: Sequence[str]) -> None:
    """Name what is computed anew, where it would otherwise be reused."""
    if not reuse:
        failed = [name for name in failed if name in ("continued", "trees")]
    if lm.window is not None or "texts_first" in failed:  # no way at all, or not this one alone
        failed = [name for name in failed if name != "block_masks"]
    if failed:
        log.info(
            "%s (%s): reusing states gives other numbers or fails, as a check found, so these are "
            "read anew each time, which is slower and exact: %s.",
            lm.label,
            lm.model.config.model_type,
            ", ".join(SAID[name] for name in SAID if name in failed),
        )


class _Trial:
    """Two prompts, two rows of different lengths, and what plain rows make of them."""

    def __init__(self, lm: Backbone, keep: bool, length: int) -> None:
        self.lm, self.keep = lm, keep
        special = set(lm.special_ids)
        known = [i for i in range(min(lm.vocab_size, 4096)) if i not in special] or [0]
        stream = [known[37 * i % len(known)] for i in range(2 * length + 3 * PROMPT + AFTER[0])]
        self.texts = [stream[:length], stream[length : 2 * length - 3]]
        rest = stream[2 * length :]
        # They share their first token.
        prompts = [rest[:PROMPT], rest[:1] + rest[PROMPT : 2 * PROMPT - 1]]
        self.after = [rest[-AFTER[0] :][:size] for size in AFTER]
        self.ids = torch.tensor(prompts, device=lm.embedding_table.device)
        size = len(lm.model.get_output_embeddings().weight)  # some tables have a row more
        self.scored = torch.arange(min(SCORED, size), device=self.ids.device)
        self.tolerance = TOLERANCE.get(lm.embedding_table.dtype, EXACT)
        # For each text [K, T, H], the prompts' rows side by side: of one length, so without padding
        # or mask, and without cache.
        self.plain = [
            lm.body(
                inputs_embeds=lm.embed(self.ids.new_tensor([[*t, *p, *a] for p in prompts])),
                use_cache=False,
            )[0]
            for t, a in zip(self.texts, self.after, strict=True)
        ]

    def exact(
        self, way: Callable[[], Iterator[tuple[Tensor, Tensor]]], tolerance: float | None = None
    ) -> bool:
        """Whether a way runs and agrees."""
        try:
            return self.apart(way) <= (tolerance or self.tolerance)
        except Exception:  # whatever a model raises that does not know this way
            log.debug("%s fails", getattr(way, "__name__", way), exc_info=True)
            return False

    def apart(self, way: Callable[[], Iterator[tuple[Tensor, Tensor]]]) -> float:
        """Largest difference of logits, as a share of the largest; NaN where there is any."""
        worst = torch.zeros((), device=self.ids.device)
        for got, expected in way():
            got, expected = (self.lm.logits(x, self.scored) for x in (got, expected))
            differs = (got - expected).abs().max() / expected.abs().max()
            worst = torch.maximum(worst, differs.to(worst.dtype))  # which keeps a NaN
        return float(worst)

    def whole(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Whole sequences, padded to one length."""
        states = concatenated(self.lm, self.lm.embed(self.ids), self._batch(self.texts))
        yield states, self._answers(1)

    def prompts_first(self) -> Iterator[tuple[Tensor, Tensor]]:
        """What stands before the texts encoded once."""
        batch = self._batch([self.texts[0]] * 2)
        yield prompts_first(self.lm, self.lm.embed(self.ids), batch), self._answers(0)

    def texts_first(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Prompts behind kept texts: as ids that begin alike, one alone, and as vectors."""
        lm, batch, expected = self.lm, self._batch(self.texts), self._answers(1)
        if self.keep:
            ids = [self.ids.new_tensor(text) for text in self.texts]
            kept = joined_states(encode_blocks(lm, ids, num_rows=2), batch)
        else:
            kept = encode_texts(lm, batch)
        for prompts in (self.ids, self.ids[1:], lm.embed(self.ids)):
            yield texts_first(lm, prompts, batch, kept), expected[-len(prompts) :]

    def continued(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Two rows that begin alike, then token by token."""
        start = self.lm.embed(self.ids.new_tensor(self.texts[0]))
        rows = GrowingRows(self.lm, start, len(self.ids))
        for place, column in enumerate(self.ids.T, len(start)):
            rows.add(self.lm.embed(column))
            yield rows.hidden, self.plain[0][:, place]

    def trees(self) -> Iterator[tuple[Tensor, Tensor]]:
        """A tree of both prompts behind each text: they part after their first token."""
        # transformers' model classes, which it extends, take a second
        from lightning_prompts.lm.generation.tree_attention import KeptTrees

        sizes = [len(text) for text in self.texts]
        padded = [text + [0] * (max(sizes) - len(text)) for text in self.texts]
        trees = KeptTrees(self.lm, self.ids.new_tensor(padded), self.ids.new_tensor(sizes), 2)
        trees.select(self.ids.new_tensor([0, 2]))  # one of each
        trees.extend(self.ids[:1, :1].repeat(2, 1), self.ids.new_zeros(2, 1), self._nodes(1))
        turned = self.ids.new_tensor([[1, 0]] * 2)
        for depth in range(1, PROMPT):  # the branches change places at each
            order = (1, 0) if depth % 2 else (0, 1)
            parents = turned if depth > 1 else torch.zeros_like(turned)
            trees.extend(self.ids[order, depth].repeat(2, 1), parents, self._nodes(2))
            found = zip(self.plain, sizes, strict=True)
            yield trees.hidden, torch.cat([rows[order, size + depth] for rows, size in found])

    def _nodes(self, width: int) -> tuple[Tensor, Tensor]:
        """Trees and places of all nodes of a depth."""
        places = torch.arange(2 * width, device=self.ids.device)
        return places // width, places % width

    def _batch(self, texts: list[list[int]]) -> Batch:
        pieces = zip(texts, self.after, strict=True)
        batch = collate([Example("", "", *both, False) for both in pieces], [0, 0], [0, 1])
        return on_device(batch, self.ids.device)

    def _answers(self, second: int) -> Tensor:
        """[K, B, H] Where the first row begins with the first text, the second with this one."""
        ends = [len(self.texts[i]) + PROMPT - 1 for i in (0, second)]
        rows = (self.plain[0][:, ends[0] + AFTER[0]], self.plain[second][:, ends[1] + AFTER[1]])
        return torch.stack(rows, 1)


@contextmanager
def few_blocks(lm: Backbone) -> Iterator[None]:
    """The model with its first blocks alone, as many as have each kind of block among them."""
    config = lm.model.config.get_text_config()
    place = find_blocks(lm)
    if place is None or "num_hidden_layers" not in vars(config):  # under another name, as GPT-2's
        yield
        return
    parent, name, blocks = place
    types = vars(config).get("layer_types") or [None] * len(blocks)
    kinds = [(kind, _kind(block)) for kind, block in zip(types, blocks, strict=False)]
    count = max(2, 1 + max(kinds.index(kind) for kind in kinds))
    setattr(parent, name, blocks[:count])
    try:
        try:
            lm.body(inputs_embeds=lm.embedding_table[None, :2], use_cache=False)
        except Exception:  # it counts its blocks elsewhere
            setattr(parent, name, blocks)
        yield
    finally:
        setattr(parent, name, blocks)


def _kind(block: nn.Module) -> tuple[Any, ...]:
    """What blocks of one kind have in common: modules, sizes, and settings but for their number."""
    kind: list[Any] = [(path, part.shape) for path, part in block.named_parameters()]
    for path, module in block.named_modules():
        kind.append((path, type(module)))
        for name, value in vars(module).items():
            if isinstance(value, bool | str | None) or ("window" in name and type(value) is int):
                kind.append((path, name, value))
    return tuple(kind)
