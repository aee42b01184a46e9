"""The two evaluations whose measures are logged, `val/...` and `test/...`."""

from typing import Literal

Stage = Literal["val", "test"]

SPLIT_OF: dict[Stage, str] = {"val": "validation", "test": "test"}
"""The rows that each is of."""
