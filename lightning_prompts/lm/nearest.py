"""Nearest tokens of a soft prompt, and the straight-through estimator that trains through them.

PEZ (Wen et al. 2023, arXiv:2302.03668) projects with `nearest_tokens`; faithfulness (Patel et al.
2025, arXiv:2504.02144) measures the distances that it returns.
"""

from functools import cached_property
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_prompts.files.numbers import wide

Distance = Literal["cosine", "euclidean"]

# Candidates whose distance is computed again without cancellation, so that a row of the table finds
# itself even beside near copies.
_CANDIDATES = 8
# Similarities of as many prompt vectors at a time as fit in 64 MiB of float32.
_SIMILARITIES_AT_ONCE = 2**24


class Nearest(NamedTuple):
    """Nearest token of each prompt vector.

    Attributes:
        ids: [P] Token ids.
        distances: [P] Cosine distance in [0, 2], or Euclidean distance.
    """

    ids: Tensor
    distances: Tensor


@torch.no_grad()
def nearest_tokens(
    prompt: Tensor,
    table: "Tensor | EmbeddingIndex",
    metric: Distance = "cosine",
    excluded: Tensor | None = None,
) -> Nearest:
    """u(p_i) = argmin_y D(E_y, p_i) over the vocabulary.

    In float32 or wider whatever autocast says: in bfloat16 the argmin would be another token's.
    Never waits for the device, and takes bounded memory however long the prompt and large the
    vocabulary.

    Args:
        prompt: [P, H] Prompt embeddings.
        table: [V, H] Token embeddings, or their index where many searches follow.
        metric: D.
        excluded: [n] Token ids that may not be chosen, e.g. special tokens.

    Returns:
        Nearest tokens, ties to the lower id among the nearest candidates.
    """
    index = table if isinstance(table, EmbeddingIndex) else EmbeddingIndex(table)
    rows = max(1, _SIMILARITIES_AT_ONCE // index.table.shape[0])
    with torch.autocast(prompt.device.type, enabled=False):
        parts = [_nearest(part, index, metric, excluded) for part in wide(prompt).split(rows)]
    return parts[0] if len(parts) == 1 else Nearest(*map(torch.cat, zip(*parts, strict=True)))


@torch.no_grad()
def nearest_few(
    prompt: Tensor,
    index: "EmbeddingIndex",
    count: int,
    metric: Distance = "cosine",
    excluded: Tensor | None = None,
) -> Nearest:
    """The nearest tokens of each vector, the nearest first; of short prompts, to be shown.

    Args:
        prompt: [P, H] Prompt embeddings.
        index: Of the token embeddings.
        count: n tokens of each vector, at most `_CANDIDATES` of those that may be chosen.
        metric: Distance.
        excluded: [m] Token ids that may not be chosen.

    Returns:
        Ids and distances [P, n], of equal ones the lower id first.
    """
    with torch.autocast(prompt.device.type, enabled=False):
        candidates, exact = _candidates(wide(prompt), index, metric, excluded)
    best = exact.sort(dim=1, stable=True)
    ids = candidates.gather(1, best.indices)
    return Nearest(ids[:, :count], best.values[:, :count])


def _nearest(
    prompt: Tensor, index: "EmbeddingIndex", metric: Distance, excluded: Tensor | None
) -> Nearest:
    """`nearest_tokens` of as many vectors as fit into memory at once."""
    candidates, exact = _candidates(prompt, index, metric, excluded)
    best = exact.min(-1)
    return Nearest(candidates.gather(1, best.indices[:, None])[:, 0], best.values)


def _candidates(
    prompt: Tensor, index: "EmbeddingIndex", metric: Distance, excluded: Tensor | None
) -> tuple[Tensor, Tensor]:
    """[P, k] ids of near tokens by rising id, and their distances; infinite for excluded ones."""
    nearness = index.nearness(prompt, metric)  # (P, V)
    if excluded is not None:
        nearness.index_fill_(1, excluded, -torch.inf)
    candidates = nearness.topk(min(_CANDIDATES, nearness.shape[1])).indices.sort().values
    rows = wide(index.table[candidates])  # (P, k, H)
    exact = distance(prompt[:, None], rows, metric)
    # Where fewer tokens than candidates are allowed, some candidates are excluded ones.
    return candidates, exact.masked_fill(nearness.gather(1, candidates).isneginf(), torch.inf)


class EmbeddingIndex:
    """A table of embeddings with what every search over it needs, computed once.

    Args:
        table: [V, H]
    """

    def __init__(self, table: Tensor) -> None:
        self.table = table.detach()

    def nearness(self, prompt: Tensor, metric: Distance) -> Tensor:
        """[P, H] to [P, V]: larger is nearer, up to a constant of each row."""
        if metric == "cosine":
            return F.normalize(prompt, dim=1).to(self._unit.dtype) @ self._unit.T
        rows = wide(self.table)
        return torch.addmm(self._minus_half_squares, prompt.to(rows.dtype), rows.T)

    @cached_property
    def _unit(self) -> Tensor:
        """[V, H] Rows of length 1."""
        return F.normalize(wide(self.table), dim=1)

    @cached_property
    def _minus_half_squares(self) -> Tensor:
        """[V] Half the squared lengths, with which |p - y|² / 2 falls as p y - |y|² / 2 rises."""
        return wide(self.table).square().sum(1) / -2


def distance(prompt: Tensor, rows: Tensor, metric: Distance) -> Tensor:
    """Distance of vectors over the last dimension: [..., H] and [..., H] to [...].

    Cosine distance is half the squared distance of the unit vectors: exactly 0 for equal vectors,
    where 1 - cos would leave a rounding error.
    """
    if metric == "cosine":
        return (F.normalize(prompt, dim=-1) - F.normalize(rows, dim=-1)).square().sum(-1) / 2
    return torch.linalg.vector_norm(prompt - rows, dim=-1)


def straight_through(continuous: Tensor, projected: Tensor) -> Tensor:
    """Forward the projected rows, backward to the continuous prompt.

    `projected + (p - sg p)` is bitwise a table row; `p + sg(projected - p)` is off by rounding.
    """
    return projected.detach() + (continuous - continuous.detach())
