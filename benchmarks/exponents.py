"""How a cost grows: the slope of its logarithm."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from benchmarks.lines import Measured

LARGEST = 4  # sizes that an exponent is fitted to: the smallest is mostly what does not grow


@dataclass(frozen=True)
class Growth:
    """Costs at sizes of one kind.

    Attributes:
        name: The size's letter.
        work: What was done.
        costs: Of each size, ascending.
    """

    name: str
    work: str
    costs: Mapping[int, Measured]

    @property
    def exponent(self) -> float:
        """How the cost grows at the largest sizes."""
        return exponent({size: cost.median for size, cost in self.costs.items()})


def exponent(costs: Mapping[int, float], largest: int = LARGEST) -> float:
    """Slope of the logarithms by least squares, over the largest sizes."""
    sizes = sorted(costs)[-largest:]
    slope, _ = np.polyfit(np.log(sizes), np.log([costs[size] for size in sizes]), 1)
    return float(slope)
