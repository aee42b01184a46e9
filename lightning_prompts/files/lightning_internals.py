"""Every attribute that Lightning keeps to itself and this package reads or writes, in one place.

Each function names one, and tests/test_lightning_internals.py says for each whether Lightning still
has it and still means the same. Nothing here imports Lightning: trainers are handed in.
"""

from typing import Any


def step_metrics(trainer: Any) -> dict[str, Any]:
    """What the latest training step logged, by name, also where no callback has asked for it."""
    return dict(trainer.fit_loop.epoch_loop._results.metrics(on_step=True)["callback"])
