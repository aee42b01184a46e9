"""A step within Lightning's training loop against the bare step."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer

from benchmarks.lines import Line, Measured, alternate
from benchmarks.setting import Setting, verbalizer
from benchmarks.steps import PRECISION, SHAPES, batch_of, product, tuner_of
from lightning_prompts.tuners import SoftPrompt

# Steps that are timed, and before them those in which a GPU's first ones compile.
STEPS = {"cpu": 2, "cuda": 50}
WARM_UP = {"cpu": 1, "cuda": 10}


class Clock(Callback):
    """Seconds a step, from the end of the last step that warms up to the end of the fit."""

    def __init__(self, warm_up: int) -> None:
        self.warm_up = warm_up
        self.seconds: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        """Start, and stop."""
        if trainer.global_step == self.warm_up:
            self._start = self._now()
        elif trainer.global_step == trainer.max_steps:
            steps = trainer.max_steps - self.warm_up
            self.seconds.append((self._now() - self._start) / steps)

    @staticmethod
    def _now() -> float:
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
        return time.perf_counter()


def loop(setting: Setting) -> Iterator[Line]:
    """Steps of `Trainer.fit`, with the data module's loader, against the same steps without."""
    steps = STEPS[setting.device]
    for shape in SHAPES[setting.device]:
        work = f"step in Trainer.fit, {shape}, {PRECISION[setting.device]}"
        line = Line(work, "the bare soft step", cost=True)
        if setting.missing:
            yield line.not_run(setting.missing)
            continue
        # A model each: Lightning moves its own to the CPU after a fit.
        lm, warm_up = setting.lm(**setting.compile), WARM_UP[setting.device]
        num_rows = shape.batch * (steps + warm_up)
        task = setting.task(lm, num_rows, shape.text, batch_size=shape.batch)
        tuner = SoftPrompt(lm, task.template, verbalizer(lm), prompt_length=shape.prompt)
        clock = Clock(warm_up)
        bare = tuner_of(SoftPrompt, setting.lm(**setting.compile), setting, shape)
        step = product(bare, batch_of(bare, setting, shape)).stepper()

        def fit(task: Any = task, tuner: SoftPrompt = tuner, clock: Clock = clock) -> None:
            trainer = Trainer(
                **setting.trainer_options,
                max_steps=steps + clock.warm_up,
                limit_val_batches=0,
                callbacks=[clock],
            )
            trainer.fit(tuner, datamodule=task)

        def several(step: Callable[[], None] = step) -> None:
            for _ in range(steps):
                step()

        measured = alternate({"theirs": several, "ours": fit}, setting.repetitions)
        theirs = Measured([value / steps for value in measured["theirs"].values])
        ours = Measured(clock.seconds[-setting.repetitions :])
        yield line.result(theirs, ours, "not compared")
