"""What a trainer is at: a fit, or one of the two evaluations whose measures are logged."""

from typing import Any, Literal

Stage = Literal["val", "test"]

SPLIT_OF: dict[Stage, str] = {"val": "validation", "test": "test"}
"""The rows that each is of."""


def fitting(trainer: Any) -> bool:
    """Whether a trainer fits; the sanity check before it is no part of it."""
    return trainer.state.fn == "fit" and not trainer.sanity_checking
