"""What a run had found by each of its validations."""

import math
from collections.abc import Sequence
from statistics import fmean

from lightning_prompts.runs.record import RunRecord, Validation


def best_so_far(record: RunRecord) -> list[tuple[Validation, Validation]]:
    """Each validation, with the one up to it whose objective is the lowest; ties to the earlier."""
    pairs: list[tuple[Validation, Validation]] = []
    best: Validation | None = None
    for validation in record.history:
        value = validation.metrics.get("val/objective", math.inf)
        if best is None or value < best.metrics.get("val/objective", math.inf):
            best = validation
        pairs.append((validation, best))
    return pairs


def mean_of(values: Sequence[float], log: bool) -> float:
    """The mean, geometric where the axis is logarithmic."""
    return math.exp(fmean(math.log(max(v, 1e-300)) for v in values)) if log else fmean(values)
