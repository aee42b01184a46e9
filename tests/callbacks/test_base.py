"""Which evaluations are measured, and what a skipped one leaves behind."""

from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_prompts.callbacks import Faithfulness
from lightning_prompts.callbacks.base import EvaluationCallback
from lightning_prompts.files.errors import PromptError
from lightning_prompts.tuners import PromptTuner, SoftPrompt

from .conftest import MakeTask, learned, quick_trainer, written


class Steps(EvaluationCallback):
    """Logs the number of batches that it measured, and remembers when."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.measured: list[tuple[str, int, int]] = []

    def begin(self, trainer: Trainer, tuner: PromptTuner, stage: Any) -> None:
        self.stage, self.batches = stage, 0

    def measure(self, tuner: PromptTuner, outputs: Any, batch: Any) -> None:
        assert outputs["hidden"].shape == (len(batch["labels"]), 16)
        self.batches += 1

    def values(self, trainer: Trainer, tuner: PromptTuner) -> dict[str, float]:
        self.measured.append((self.stage, trainer.global_step, self.batches))
        return {"batches": self.batches}


class Names(Callback):
    """Which names a checkpoint of each validation would carry."""

    def __init__(self) -> None:
        self.found: list[bool] = []

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert "val/loss" in trainer.callback_metrics
        self.found.append("val/batches" in trainer.callback_metrics)


FIVE = {"max_steps": 5, "val_check_interval": 1, "check_val_every_n_epoch": None}


def test_sanity_check_does_not_count(make_task: MakeTask) -> None:
    task = make_task()
    steps = Steps(every_n_validations=2)
    quick_trainer(callbacks=[steps], num_sanity_val_steps=2, **FIVE).fit(
        learned(SoftPrompt, task), datamodule=task
    )
    assert steps.measured == [("val", 1, 3), ("val", 3, 3), ("val", 5, 3)]


def test_last_validation_is_measured_and_skipped_ones_leave_no_values(make_task: MakeTask) -> None:
    task = make_task()
    steps, names = Steps(every_n_validations=3), Names()
    quick_trainer(callbacks=[steps, names], **FIVE).fit(learned(SoftPrompt, task), datamodule=task)
    assert steps.measured == [("val", 1, 3), ("val", 4, 3), ("val", 5, 3)]
    assert names.found == [True, False, False, True, True]


def test_a_tuner_that_learns_nothing_is_measured_once(make_task: MakeTask) -> None:
    task = make_task()
    steps = Steps(every_n_validations=100)
    quick_trainer(callbacks=[steps], **FIVE).fit(written(task, " a film"), datamodule=task)
    assert [batches for _, _, batches in steps.measured] == [3]


def test_validate_and_test_are_always_measured(make_task: MakeTask) -> None:
    task = make_task()
    steps, tuner = Steps(every_n_validations=9, max_batches=2), learned(SoftPrompt, task)
    trainer = quick_trainer(callbacks=[steps])
    for run in (trainer.validate, trainer.validate, trainer.test):
        (logged,) = run(tuner, datamodule=task, verbose=False)
    assert steps.measured == [("val", 0, 2), ("val", 0, 2), ("test", 0, 2)]
    assert logged["test/batches"] == 2


def test_a_resumed_run_measures_at_the_same_validations(
    make_task: MakeTask, tmp_path: Path
) -> None:
    task = make_task()

    def fit(max_steps: int, **kwargs: Any) -> list[int]:
        steps, last = Steps(every_n_validations=2), ModelCheckpoint(tmp_path, filename="last")
        trainer = quick_trainer(
            callbacks=[steps, last], enable_checkpointing=True, **FIVE | {"max_steps": max_steps}
        )
        trainer.fit(learned(SoftPrompt, task), datamodule=task, **kwargs)
        return [step for _, step, _ in steps.measured]

    assert fit(2) == [1, 2]
    assert fit(5, ckpt_path=tmp_path / "last.ckpt") == [3, 5]


@pytest.mark.parametrize("name", ["every_n_validations", "max_batches"])
def test_zero_is_refused(name: str) -> None:
    with pytest.raises(PromptError, match=f"^{name} is 0; give at least 1"):
        Faithfulness(**{name: 0})
