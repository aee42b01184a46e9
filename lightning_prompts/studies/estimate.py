"""How long a study will take, from a few measured steps of each of its variants."""

import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple, cast

from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_prompts.cli.app import PromptCLI
from lightning_prompts.files.console import notice
from lightning_prompts.files.errors import PromptError
from lightning_prompts.studies.config import StudyConfig
from lightning_prompts.studies.needs import OnlyParses
from lightning_prompts.studies.plan import example_args
from lightning_prompts.studies.shared import SharedBaselines, SharedLM
from lightning_prompts.studies.trial import count_test_rows
from lightning_prompts.tuners.base import PromptTuner

STEPS = 3
# What `Trainer.test` does on its rows, and a validation on its own, is alike.
PROBE = (
    # Twice a validation: the first one measures the baselines as well.
    *(f"--trainer.max_steps={STEPS}", f"--trainer.val_check_interval={STEPS - 1}"),
    *("--trainer.limit_val_batches=1", "--trainer.enable_progress_bar=false"),
)


class Price(NamedTuple):
    """Seconds of one batch: its texts have to be read, or their keys and values are kept."""

    read: float
    kept: float


class Size(NamedTuple):
    """A split: its rows, and the batches of a pass over them."""

    rows: int
    batches: int


@dataclass(frozen=True)
class Cost:
    """What one run of a variant costs.

    Attributes:
        start: Seconds to read and tokenize the rows.
        step: A training batch.
        batch: An evaluation batch with all measures.
        steps: Training batches of the whole run.
        validations: Passes over the validation rows.
        train: Training rows.
        validation: Validation rows.
        test: Test rows, of one pass.
        room: Texts that `--lm.text_cache` has room for; 0 where none are kept.
    """

    start: float
    step: Price
    batch: Price
    steps: int
    validations: int
    train: Size
    validation: Size
    test: Size
    room: int = 0

    @property
    def training(self) -> float:
        """Seconds of all training steps."""
        # What a validation reads drives out what training has read, unless there is room for both.
        passes = 1 if self._holds_all else self.validations
        most = self.steps if self.train.rows > self.room else passes * self.train.batches
        read = min(self.steps, most)
        return read * self.step.read + (self.steps - read) * self.step.kept

    @property
    def batches(self) -> int:
        """Evaluation batches of the whole run, the test among them."""
        return self.validations * self.validation.batches + self.test.batches

    @property
    def evaluation(self) -> float:
        """Seconds of all evaluation batches."""
        kept = (self.validations - 1) * self.validation.batches if self._holds_all else 0
        return (self.batches - kept) * self.batch.read + kept * self.batch.kept

    @property
    def seconds(self) -> float:
        """Of the whole run."""
        return self.start + self.training + self.evaluation

    @property
    def _holds_all(self) -> bool:
        return self.train.rows + self.validation.rows <= self.room


class Clock(Callback):
    """Times training batches and validations.

    Args:
        forget: Forget the texts before each validation, which then has to read them.
    """

    def __init__(self, forget: bool = False) -> None:
        self.forget = forget
        self.steps: list[float] = []
        self.validations: list[float] = []
        self._begun = 0.0

    @property
    def step(self) -> float:
        """Seconds of a training batch."""
        return median(self.steps)

    @property
    def batch(self) -> float:
        """Seconds of the last validation."""
        return self.validations[-1]

    def on_train_batch_start(self, *args: Any) -> None:
        """Begin a batch."""
        self._begun = time.monotonic()

    def on_train_batch_end(self, *args: Any) -> None:
        """End a batch."""
        self.steps.append(time.monotonic() - self._begun)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin a validation."""
        if self.forget:
            cast(PromptTuner, pl_module).lm.text_cache.clear()
        self._begun = time.monotonic()

    def on_validation_end(self, *args: Any) -> None:
        """End a validation."""
        self.validations.append(time.monotonic() - self._begun)


def costs(config: StudyConfig, lm: SharedLM) -> dict[str, Cost]:
    """Measure each variant by a few steps and one batch of an evaluation.

    The evaluation batch is the one with the longest rows, and what earlier runs leave in the cache
    of texts is not counted on, so that a run seldom takes longer.

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
    if wanted.max_steps < 1:
        raise PromptError("A study needs --trainer.max_steps, so that its runs cost the same.")
    with tempfile.TemporaryDirectory() as folder:
        cli = _probe(args, lm, Path(folder) / "first" / "run")
        tested = count_test_rows(cli) if test else 0
        cache = cli.model.lm.text_cache
        cache.clear()
        clock = Clock()
        start = time.monotonic()
        _run(cli, clock, baselines)
        begin = max(0.0, time.monotonic() - start - sum(clock.steps) - clock.batch)
        step, batch, room = Price(clock.step, clock.step), Price(clock.batch, clock.batch), 0
        if cache.num_texts:
            room = int(cache.bound / (cache.used / cache.num_texts))
            # The same rows again, which are kept now, but for those of a validation.
            again = Clock(forget=True)
            _run(_probe(args, lm, Path(folder) / "second" / "run"), again, baselines)
            step = Price(clock.step, again.step)
            # A run of one step has one validation, which the first time measures the baselines too.
            batch = Price(again.batch, min(clock.batch, again.batch))
    data, interval = cli.datamodule, wanted.val_check_interval
    steps = wanted.max_steps * wanted.accumulate_grad_batches if cli.model.learns else 1
    every = interval if isinstance(interval, int) and interval > 0 else steps
    return Cost(
        begin,
        step,
        batch,
        steps,
        math.ceil(steps / every),
        Size(len(data.rows("train")), len(data.train_dataloader())),
        Size(len(data.rows("validation")), len(data.val_dataloader())),
        Size(tested, math.ceil(tested / data.val_batch_size)),
        room,
    )


def _probe(args: Sequence[str], lm: SharedLM, folder: Path) -> PromptCLI:
    """A few steps of a run, not begun."""
    return PromptCLI([*args, *PROBE], run=False, show=False, make_lm=lm, folder=folder)


def _run(cli: PromptCLI, clock: Clock, baselines: SharedBaselines) -> None:
    cli.trainer.callbacks.append(clock)  # type: ignore[attr-defined]
    baselines.start(cli)
