"""Bars: of training only where something is trained."""

from types import SimpleNamespace
from typing import Any

import pytest

from lightning_prompts.callbacks.progress import StepProgress


@pytest.mark.parametrize("learns", [True, False])
def test_only_what_learns_has_a_bar_of_training(learns: bool, capsys: pytest.CaptureFixture[str]):
    trainer: Any = SimpleNamespace(estimated_stepping_batches=3, global_step=0)
    module: Any = SimpleNamespace(learns=learns)
    progress = StepProgress()
    progress.on_train_start(trainer, module)
    progress.on_train_end(trainer)
    assert ("Training" in capsys.readouterr().err) is learns
