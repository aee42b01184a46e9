"""Rows that grow token by token: read on from kept keys and values, or whole at each step.

Which of the two a model takes is found when it is loaded, see `passes.check`. Dimensions: K rows, R
trees of rows that begin alike, Q nodes of one depth in the widest tree, M nodes, H hidden size.
"""

import torch
from torch import Tensor

from lightning_prompts.lm.backbone import Backbone, whole_cache
from lightning_prompts.lm.passes.reuse import TOKENS_AT_ONCE, pick, repeat_cache


class GrowingRows:
    """K rows that begin alike and get one token each at a step; none has padding.

    Args:
        lm: The frozen language model.
        start: [n, H] What all rows begin with.
        count: K.

    Attributes:
        hidden: [K, H] Final hidden state at each row's last token.
    """

    def __init__(self, lm: Backbone, start: Tensor, count: int) -> None:
        self._lm, self._keeps = lm, lm.ways.continued
        self._cache = whole_cache() if self._keeps else None
        self._rows = start[None]
        self.hidden = self._read(self._rows).expand(count, -1)  # once, whatever K
        if self._keeps:
            self._cache = repeat_cache(self._cache, count)
        self._rows = self._rows.expand(count, -1, -1)

    def add(self, embeds: Tensor) -> None:
        """Append one token to each row.

        Args:
            embeds: [K, H]
        """
        new = embeds[:, None]
        if not self._keeps:
            self._rows = new = torch.cat([self._rows, new], dim=1)
        self.hidden = self._read(new)

    def _read(self, embeds: Tensor) -> Tensor:
        """[K, H] After tokens [K, n, H], which stand behind those kept."""
        given = {"past_key_values": self._cache} if self._keeps else {}
        out = self._lm.body(inputs_embeds=embeds, use_cache=self._keeps, **given)
        return out[0][:, -1]


class PlainTrees:
    """Trees of rows, each node's row read whole: for models that cannot go on from kept states.

    Args:
        lm: The frozen language model.
        prefix: [M, L] Token ids, right-padded.
        lengths: [M] Tokens of each prefix.
        copies: Trees that grow from each prefix, so that R = M * copies.

    Attributes:
        hidden: [M, H] Final hidden state at each node of the latest depth, at first each root's.
    """

    def __init__(self, lm: Backbone, prefix: Tensor, lengths: Tensor, copies: int) -> None:
        self._lm = lm
        self.hidden = self._read(prefix, lengths).repeat_interleave(copies, 0)
        self._prefix, self._lengths = (x.repeat_interleave(copies, 0) for x in (prefix, lengths))
        self._paths = self._prefix.new_zeros(len(self._prefix), 1, 0)  # (R, Q, depth)

    def select(self, kept: Tensor) -> None:
        """Leave only these trees."""
        trees = (self._prefix, self._lengths, self._paths)
        self._prefix, self._lengths, self._paths = (x[kept] for x in trees)

    def extend(self, inputs: Tensor, parents: Tensor, nodes: tuple[Tensor, Tensor]) -> None:
        """Read the nodes of the next depth.

        Args:
            inputs: [R, Q] Token ids.
            parents: [R, Q] Place of each node's parent in the depth before.
            nodes: Two of [M]: tree and place of the nodes that count; others are padding.
        """
        depth = self._paths.shape[2]
        known = self._paths.gather(1, parents[..., None].expand(-1, -1, depth))
        self._paths = torch.cat([known, inputs[..., None]], dim=2)
        prefix, paths = self._prefix[nodes[0]], self._paths[nodes]
        lengths = self._lengths[nodes[0]]
        slots = torch.arange(prefix.shape[1] + depth + 1, device=prefix.device)
        behind = slots - lengths[:, None]  # (M, L + depth + 1): place in the path, from 0
        begun = prefix[:, slots.clamp(max=prefix.shape[1] - 1)]
        rows = torch.where(behind < 0, begun, paths.gather(1, behind.clamp(0, depth)))
        self.hidden = self._read(rows, lengths + depth + 1)

    def _read(self, rows: Tensor, lengths: Tensor) -> Tensor:
        """[M, H] At the ends of right-padded rows [M, T]; causality makes masks needless."""
        states = []
        most = max(1, TOKENS_AT_ONCE // rows.shape[1])
        for ids, sizes in zip(rows.split(most), lengths.split(most), strict=True):
            longest = ids[:, : int(sizes.max())]
            hidden = self._lm.body(inputs_embeds=self._lm.embed(longest), use_cache=False)[0]
            states.append(pick(hidden, sizes - 1))
        return torch.cat(states)
