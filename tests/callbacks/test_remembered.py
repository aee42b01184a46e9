"""Passes that are not repeated give what a repetition would give, each for its own rows."""

from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor

from lightning_prompts.callbacks import Faithfulness
from lightning_prompts.callbacks.remembered import RememberedPasses
from lightning_prompts.lm.batch import whole_batch
from lightning_prompts.tasks.classification import TextClassification
from lightning_prompts.tuners import PromptTuner, SoftPrompt

from .conftest import LAST, MakeTask, count_passes, learned, quick_trainer, validated


class Validations(Faithfulness):
    """Keeps what every validation gave."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.seen: list[dict[str, float]] = []

    def values(self, trainer: Trainer, tuner: PromptTuner) -> Any:
        values = super().values(trainer, tuner)
        self.seen.append({name: float(value) for name, value in values.items()})
        return values


def test_tokens_that_did_not_change_are_not_read_again(
    make_task: MakeTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = make_task()
    tuner = learned(SoftPrompt, task)
    callback = Validations()
    passes = count_passes(tuner, monkeypatch)
    moves = [0.0, 1e-4, 3.0]  # the third validation has other tokens
    counts = []

    class Moves(SoftPrompt):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            self.prompt.data[0, 0] += moves[batch_idx]
            passes.clear()
            return self.prompt.sum() * 0

        def on_validation_epoch_end(self) -> None:
            super().on_validation_epoch_end()
            counts.append((list(passes), self.hard_prompt().tolist()))

    tuner.__class__ = Moves
    quick_trainer(
        max_steps=3, val_check_interval=1, check_val_every_n_epoch=None, callbacks=[callback]
    ).fit(tuner, datamodule=task)

    (first, ids), (second, same_ids), (third, other_ids) = counts
    assert ids == same_ids != other_ids
    assert (first, second, third) == ([4, 4, 4, 4, 2, 2], [4, 4, 2], [4, 4, 4, 4, 2, 2])
    assert callback.seen[1]["hard_loss"] == callback.seen[0]["hard_loss"]
    assert callback.seen[1]["output_differential"] != callback.seen[0]["output_differential"]
    fresh = validated(tuner, task, Faithfulness())
    assert callback.seen[2] == {name: fresh[f"val/{name}"] for name in callback.seen[2]}


def test_remembered_passes_are_of_their_own_rows(make_task: MakeTask) -> None:
    """The same callback over test, a part of validation, and other batches: as if it were new."""
    shared = Faithfulness()
    tuner = learned(SoftPrompt, make_task())

    def values(callback: Faithfulness, run: str, task: TextClassification) -> dict[str, float]:
        trainer = quick_trainer(callbacks=[callback])
        # Else each run would begin with an empty memory.
        callback.setup = lambda *args, **kwargs: None  # type: ignore[method-assign]
        getattr(trainer, run)(tuner, datamodule=task, verbose=False)
        return {k: float(v) for k, v in trainer.callback_metrics.items() if "hard" in k}

    for run, task in (
        ("validate", make_task()),
        ("test", make_task()),
        ("validate", make_task(val_batch_size=3)),
        ("validate", make_task(validation_rows=6)),
        ("validate", make_task(LAST)),
    ):
        tuner.template = task.template
        assert values(shared, run, task) == values(Faithfulness(), run, task)
    shared.max_batches = 1
    assert values(shared, "test", make_task()) == values(
        Faithfulness(max_batches=1), "test", make_task()
    )


def test_memory_is_bounded_and_per_prompt(make_task: MakeTask) -> None:
    task = make_task()
    task.setup("validate")
    batch = next(iter(task.val_dataloader()))
    other = whole_batch([[5], [6], [7], [8]], like=batch)
    runs = []

    def run() -> Tensor:
        runs.append(1)
        return torch.full((4, 16), float(len(runs)))

    passes = RememberedPasses(max_bytes=4 * 16 * 4)
    passes.use([1, 2])
    assert passes("tokens", batch, run)[0, 0] == 1
    passes.use([1, 2])
    assert passes("tokens", batch, run)[0, 0] == 1
    assert passes("text", batch, run)[0, 0] == 2  # no room: computed each time
    assert passes("text", batch, run)[0, 0] == 3
    assert passes("tokens", other, run)[0, 0] == 4
    passes.use([2, 1])
    assert passes("tokens", batch, run)[0, 0] == 5
    passes.clear()
    assert passes("tokens", batch, run)[0, 0] == 6
