"""What a fit will take: a few steps of it, and what follows from them for the whole."""

import contextlib
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Timer

from lightning_prompts.callbacks.base import callback_of, callbacks_of
from lightning_prompts.callbacks.baselines import Baselines
from lightning_prompts.cli.app import PromptCLI
from lightning_prompts.files.amounts import count
from lightning_prompts.files.console import notice
from lightning_prompts.files.lightning_internals import seconds_of
from lightning_prompts.lm.batch import Batch
from lightning_prompts.studies.estimate import Clock
from lightning_prompts.studies.progress import duration
from lightning_prompts.studies.shared import SharedLM
from lightning_prompts.tuners.base import PromptTuner

STEPS = 2  # of which the last counts: the first one finds its kernels
PROBED_TOKENS = 1024  # of a step, and of the validation that is timed: seconds on a CPU
PROBED_ROWS = 8  # of the validation, at most
PROBED_BATCHES = 16  # of training rows, so that batches are as mixed as in the whole
CALIBRATED_ON = 256  # training texts, in a fit
ONE_DEVICE = ("--trainer.devices=1", "--trainer.strategy=auto")
PROBE = (
    *(f"--trainer.max_steps={STEPS}", f"--trainer.val_check_interval={STEPS}"),
    *("--trainer.enable_progress_bar=false", "--trainer.accumulate_grad_batches=1"),
    *("--trainer.logger=false", *ONE_DEVICE),
)
GIB = 2**30
LONG = 600.0  # seconds of validations that are worth a warning where they are most of a fit
SHORT = 99.5  # seconds that are printed as such
ROOM = 0.9  # of a device's memory

Line = tuple[str, str | None]
"""What is said, and the warning that it deserves."""


class Measured(NamedTuple):
    """What the steps of a probe took.

    Attributes:
        token: Seconds of a token in a training step, the prompt's own counted with each row.
        row: Seconds of a validation row, with all measures.
        before: Bytes of memory between two steps.
        peak: At most, in the last of them.
        tokens: Of its batch, padding and all.
    """

    token: float
    row: float
    before: int
    peak: int
    tokens: int


class _Probe(Clock):
    """Times steps, and counts the tokens of their batches, the prompt's with each row."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens: list[int] = []
        self.before = self.peak = 0

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Batch, *args: Any
    ) -> None:
        """Begin a batch."""
        num_prompt = cast(PromptTuner, pl_module).prompt_length
        self.tokens.append(len(batch["rows"]) * (batch["num_tokens"] + num_prompt))
        _forget_peak()
        self.before = _memory()[0]
        super().on_train_batch_start(trainer, pl_module, batch, *args)

    def on_train_batch_end(self, *args: Any) -> None:
        """End a batch, before the validation that follows the last one."""
        super().on_train_batch_end(*args)
        self.peak = _memory()[1]


def probe(
    args: Sequence[str], cli: PromptCLI, longest: int, lm: SharedLM, folder: Path
) -> Measured:
    """Take a few steps and validate a few rows, as a fit does, in smaller batches of long rows.

    Args:
        args: Options of the fit.
        cli: Of these, built.
        longest: Tokens of nearly all rows, the prompt's among them.
        lm: Gives its language model again.
        folder: For what the probe leaves.
    """
    task, options = cli.datamodule, cli.config["fit"].data.init_args
    fit = max(1, PROBED_TOKENS // max(1, longest))
    size, scored = min(task.batch_size, fit), min(PROBED_ROWS, fit)
    notice(f"Timing {count(STEPS, 'step')} and a validation of {count(scored, 'row')}")
    few = [f"--data.batch_size={size}", f"--data.val_batch_size={scored}"]
    if longest > PROBED_TOKENS:
        few.append(f"--data.max_tokens={PROBED_TOKENS}")
    # Drawn evenly where a task can, for the first batch has the longest rows.
    can = "validation_rows" in options
    few.append(f"--data.validation_rows={scored}" if can else "--trainer.limit_val_batches=1")
    if "train_rows" in options and options.shots is None:
        few.append(f"--data.train_rows={min(len(task.rows('train')), PROBED_BATCHES * size)}")
    probing = PromptCLI(
        ["fit", *args, *PROBE, *few], run=False, show=False, make_lm=lm, folder=folder
    )
    # They cost a pass over training texts, which is counted on its own.
    callback_of(probing.trainer, Baselines).wanted = lambda *_: False  # type: ignore[method-assign]
    clock = _Probe()
    probing.trainer.callbacks.append(clock)  # type: ignore[attr-defined]
    probing.trainer.fit(probing.model, datamodule=probing.datamodule)
    scored = probing.datamodule.scored_rows("validation", 1)
    token = clock.steps[-1] / clock.tokens[-1]
    return Measured(token, clock.batch / scored, clock.before, clock.peak, clock.tokens[-1])


def costs(
    cli: PromptCLI, rows: Mapping[str, int], mean: float, longest: int, measured: Measured
) -> Iterator[Line]:
    """Sentences on what is kept, on time and on memory.

    Args:
        cli: The fit, built.
        rows: Of each split.
        mean: Tokens of a training row, the prompt's among them.
        longest: The same of the longest.
        measured: What a few steps took.
    """
    lm = cli.model.lm
    weights = sum(weight.nbytes for weight in lm.parameters())
    yield f"Kept in memory: the model's weights, {weights / GIB:.2f} GiB", None
    if lm.text_cache.num_texts:
        yield _of_texts(lm.text_cache, rows["train"] + rows["validation"])
    yield _of_time(cli, rows, mean, measured)
    tokens = cli.datamodule.batch_size * longest
    # What a batch needs grows with its tokens; what is there before it does not.
    of_batch = max(0, measured.peak - measured.before) / measured.tokens
    most = measured.before + of_batch * max(tokens, measured.tokens)
    there = _of_device(cli.trainer.strategy.root_device)
    if not measured.peak:
        return
    line = (
        f"Memory: {measured.peak / GIB:.1f} GiB at a batch of {measured.tokens:,} tokens; where a "
        f"batch has the longest rows ({tokens:,} tokens) at most about {most / GIB:.1f} GiB"
    )
    warning = (
        f"A batch of the longest rows may need {most / GIB:.1f} GiB, and there are "
        f"{there / GIB:.1f}; lower --data.batch_size or --data.max_tokens, or give "
        "--lm.recompute true."
    )
    yield line, warning if most > ROOM * there else None


def _of_texts(cache: Any, texts: int) -> Line:
    """Texts before a prompt, whose keys and values are kept."""
    needed = cache.used / cache.num_texts * texts / GIB
    line = f"keys and values of {count(texts, 'text')}, {needed:.2f} GiB"
    if needed <= cache.gib:
        return f"  and {line}", None
    return f"  and of the {line} the latest {cache.gib:g}", (
        f"To keep the {line} would take, --lm.text_cache {cache.gib:g} has room for "
        f"{cache.gib / needed:.0%}, so that most are read anew at each step; give --lm.text_cache "
        f"{needed * 1.05:.2g} where there is the memory, or fewer rows with --data.train_rows."
    )


def _of_time(cli: PromptCLI, rows: Mapping[str, int], mean: float, measured: Measured) -> Line:
    steps, given = _steps(cli, rows["train"]), cli.config["fit"].trainer
    every, batches = given.val_check_interval, given.limit_val_batches
    validations = -(-steps // every) if isinstance(every, int) and every > 0 else 1
    scored = rows["validation"]
    if isinstance(batches, int) and not isinstance(batches, bool):
        scored = min(scored, batches * cli.datamodule.val_batch_size)
    step = measured.token * mean * cli.datamodule.batch_size
    training, validating = steps * step, validations * scored * measured.row
    # A measured row is answered with several prompts, for a baseline with none.
    baselines = (scored + CALIBRATED_ON) * measured.row / 2
    total = training + validating + baselines
    limits = [seconds_of(timer) for timer in callbacks_of(cli.trainer, Timer)]
    limit = min((seconds for seconds in limits if seconds is not None), default=math.inf)
    ended = ""
    if training + validating > limit:
        reached = int(steps * limit / (training + validating))
        ended = f"; --trainer.max_time ends it after {duration(limit)}, about step {reached}"
    line = (
        f"Time: {_seconds(step)} a step and {_seconds(measured.row)} a validation row; "
        f"{count(steps, 'step')} {duration(training)}, {count(validations, 'validation')} of "
        f"{count(scored, 'row')} {duration(validating)}, baselines {duration(baselines)}: about "
        f"{duration(total)} in all{ended}"
    )
    if validating < max(LONG, total / 2):
        return line, None
    return line, (
        f"Validation takes {validating / total:.0%} of about {duration(total)}; validate on fewer "
        "rows with --data.validation_rows, or less often with --trainer.val_check_interval."
    )


def _seconds(seconds: float) -> str:
    """A short time to two digits."""
    return f"{seconds:.2g} s" if seconds < SHORT else duration(seconds)


def _steps(cli: PromptCLI, rows: int) -> int:
    """Training batches of the whole fit."""
    given = cli.config["fit"].trainer
    if not cli.model.learns:
        return 1
    if given.max_steps > 0:
        return int(given.max_steps) * int(given.accumulate_grad_batches)
    return -(-rows // cli.datamodule.batch_size) * max(1, given.max_epochs or 1)


def _forget_peak() -> None:
    """Count the most memory anew, where the system can."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _memory() -> tuple[int, int]:
    """Bytes that this process has, and has had at most; of the GPU where there is one.

    Both 0 where the system does not say.
    """
    if torch.cuda.is_available():
        return int(torch.cuda.memory_allocated()), int(torch.cuda.max_memory_allocated())
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        return 0, 0
    of = dict(re.findall(r"^(VmRSS|VmHWM):\s*(\d+) kB", status, flags=re.MULTILINE))
    return 1024 * int(of.get("VmRSS", 0)), 1024 * int(of.get("VmHWM", 0))


def _of_device(device: torch.device) -> float:
    """Bytes of memory; infinite where the system does not say."""
    if device.type == "cuda":
        return float(torch.cuda.get_device_properties(device).total_memory)
    if not hasattr(os, "sysconf"):
        return float("inf")
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
