"""How long a study will take, from a few measured steps of each of its variants."""

import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from lightning.pytorch import Callback

from lightning_prompts.callbacks.base import callback_of
from lightning_prompts.callbacks.baselines import Baselines
from lightning_prompts.cli import PromptCLI
from lightning_prompts.console import notice
from lightning_prompts.errors import PromptError
from lightning_prompts.studies.config import StudyConfig
from lightning_prompts.studies.needs import OnlyParses
from lightning_prompts.studies.plan import example_args
from lightning_prompts.studies.shared import SharedBaselines, SharedLM
from lightning_prompts.studies.trial import count_test_rows

STEPS = 3
# What `Trainer.test` does on its rows, and a validation on its own, is alike.
PROBE = (
    # Twice a validation: the first one measures the baselines as well.
    *(f"--trainer.max_steps={STEPS}", f"--trainer.val_check_interval={STEPS - 1}"),
    "--trainer.enable_progress_bar=false",
)


@dataclass(frozen=True)
class Cost:
    """What one run of a variant costs.

    Attributes:
        start: Seconds to read and tokenize the rows.
        step: Seconds of a training step.
        batch: Seconds of an evaluation batch with all measures.
        steps: Training steps.
        batches: Evaluation batches of the whole run, the test among them.
    """

    start: float
    step: float
    batch: float
    steps: int
    batches: int

    @property
    def seconds(self) -> float:
        """Of the whole run."""
        return self.start + self.steps * self.step + self.batches * self.batch


class Clock(Callback):
    """Times steps and validations."""

    def __init__(self) -> None:
        self.steps: list[float] = []
        self.validations: list[float] = []
        self._begun = 0.0

    def on_train_batch_start(self, *args: Any) -> None:
        """Begin a step."""
        self._begun = time.monotonic()

    def on_train_batch_end(self, *args: Any) -> None:
        """End a step."""
        self.steps.append(time.monotonic() - self._begun)

    def on_validation_start(self, *args: Any) -> None:
        """Begin a validation."""
        self._begun = time.monotonic()

    def on_validation_end(self, *args: Any) -> None:
        """End a validation."""
        self.validations.append(time.monotonic() - self._begun)


def costs(config: StudyConfig, lm: SharedLM) -> dict[str, Cost]:
    """Measure each variant by a few steps and one batch of an evaluation.

    Its first steps may be slower than the rest, and its batch is the one with the longest rows, so
    that a run seldom takes longer.

    Raises:
        PromptError: If a run cannot be made.
    """
    found: dict[str, Cost] = {}
    baselines = SharedBaselines()
    for variant, args in example_args(config):
        if variant not in found:
            notice(f"Timing {STEPS} steps{f' of {variant}' if variant else ''}.")
            found[variant] = _measure(args, config.settings.test, lm, baselines)
    return found


def _measure(args: Sequence[str], test: bool, lm: SharedLM, baselines: SharedBaselines) -> Cost:
    wanted = OnlyParses(list(args), run=False).config["fit"].trainer
    steps, interval = wanted.max_steps, wanted.val_check_interval
    if steps < 1:
        raise PromptError("A study needs --trainer.max_steps, so that its runs cost the same.")
    with tempfile.TemporaryDirectory() as folder:
        cli = PromptCLI(
            [*args, *PROBE], run=False, show=False, make_lm=lm, folder=Path(folder) / "a" / "b"
        )
        tested = count_test_rows(cli) if test else 0
        clock = Clock()
        cli.trainer.callbacks.append(clock)  # type: ignore[attr-defined]
        # Not as an option: of the command line's 1 the parser makes 1.0, which is all of them.
        cli.trainer.limit_val_batches = 1
        baselines.give(callback_of(cli.trainer, Baselines))
        start = time.monotonic()
        cli.start()
        whole = time.monotonic() - start
        baselines.take(callback_of(cli.trainer, Baselines))
    data = cli.datamodule
    steps = steps if cli.model.learns else 1
    every = interval if isinstance(interval, int) and interval > 0 else steps
    batches = math.ceil(steps / every) * len(data.val_dataloader())
    batches += math.ceil(tested / data.val_batch_size)
    batch = clock.validations[-1]
    begin = max(0.0, whole - sum(clock.steps) - batch)
    return Cost(begin, median(clock.steps), batch, steps, batches)
