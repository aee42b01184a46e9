"""Draws that are the same again: on every process, in every order of batches, after a resume."""

from collections.abc import Sequence

import torch
from torch import Tensor

DRAWS = 2000  # of a bootstrap
INTERVAL = (0.025, 0.975)  # what 95 % of the draws are within


def seed_at(seed: int, place: int) -> int:
    """A seed that follows from a run's and a place in it: a step, an epoch, the number of a row.

    >>> seed_at(0, 1) == seed_at(1, 0)
    False
    """
    return (seed * 1_000_003 + place) % 2**63


def evenly(order: Sequence[int], labels: Sequence[int]) -> list[int]:
    """The same places, those of each class evenly over all of them and in their own order.

    Place j of the m of a class stands at (j + 1/2) / m of the way; of equal ones the first drawn.

    Args:
        order: Places, shuffled.
        labels: Class of each place.
    """
    by_class: dict[int, list[int]] = {}
    for place in order:
        by_class.setdefault(labels[place], []).append(place)
    ways = {
        place: (j + 0.5) / len(members)
        for members in by_class.values()
        for j, place in enumerate(members)
    }
    return sorted(order, key=ways.__getitem__)


def drawn_counts(n: int, generator: torch.Generator | None = None) -> Tensor:
    """[draws, n] How often each of n is drawn in a bootstrap, float64; n in every draw.

    Args:
        n: Of what is drawn, with replacement.
        generator: Of a bootstrap that draws several things; by default the same draws at each call.
    """
    generator = generator or torch.Generator().manual_seed(0)
    drawn = torch.randint(n, (DRAWS, n), generator=generator)
    return torch.zeros(DRAWS, n, dtype=torch.float64).scatter_add_(
        1, drawn, torch.ones(DRAWS, n, dtype=torch.float64)
    )


def percentile_interval(values: Tensor) -> tuple[float, float]:
    """What 95 % of the draws' values [draws] are within."""
    low, high = values.double().quantile(torch.tensor(INTERVAL, dtype=torch.float64)).tolist()
    return low, high
