"""One process against two: the same global batch gives the same prompts and the same metrics."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.tiny import save_model, save_reviews

STEPS, EVERY = 20, 5
# 21 rows in global batches of 6: of an epoch's last one, one process has two rows and the other
# one; in batches of 10 it has a single row, and the second process none. Of 9 rows to validate on,
# one process has five and the other four.
ROWS = {"train": 21, "validation": 9, "test": 9}
SECONDS = 900  # a run that takes longer hangs

DDP = ("--trainer.strategy", "ddp")
SHARDED = ("--config", "configs/trainer/model_parallel.yaml")


@dataclass(frozen=True)
class Case:
    """A tuner with options under which what could differ does.

    Attributes:
        tuner: Name of its configuration.
        global_batch: Rows of a batch over all processes.
        options: Of `fit`.
        trains: Whether it has parameters that learn.
        lists: Whether it lists the prompts that it tried.
    """

    tuner: str
    global_batch: int
    options: tuple[str, ...]
    trains: bool = True
    lists: bool = False

    def with_options(self, *options: str) -> "Case":
        """The same with more options."""
        return replace(self, options=(*self.options, *options))


CASES = {
    "SoftPrompt": Case(
        "soft",
        6,
        (
            *("--trainer.accumulate_grad_batches", "2", "--trainer.gradient_clip_val", "0.05"),
            *("--model.perplexity_weight", "0.1"),
        ),
    ),
    "PEZ": Case(
        "pez", 10, ("--data.template", "{text}{prompt}", "--model.perplexity_weight", "0.1")
    ),
    "RLPrompt": Case(
        "rlprompt",
        10,
        (
            *("--model.policy.top_k", "5", "--model.policy.mlp_size", "32"),
            *("--model.alpha", "0.2", "--model.prompts_per_step", "8"),
            *("--model.optimizer.lr", "0.001"),
        ),
        lists=True,
    ),
    "GuidedSearch": Case(
        "guided_search",
        10,
        (
            *("--model.prompt_length", "5", "--model.candidates", "16", "--model.race", "[3,6]"),
            *("--model.edits.proposals", "0.5"),
        ),
        trains=False,
        lists=True,
    ),
}


@dataclass
class Difference:
    """How far two runs of the same steps are apart.

    Attributes:
        parameters: Largest absolute difference of the trained parameters after any step.
        losses: The same of what training logged.
        metrics: The same of the validations' metrics, in shares of those above 1.
        ids: Whether the hard prompt's tokens were the same after every step.
        accuracy: Whether accuracy and macro-F1 were.
        prompts: Largest difference of numbers in the lists of tried prompts; infinite where the
            prompts themselves differ.
        alike: Whether both processes knew the same, and one of them alone spoke.
        metric: Name of the metric that differs most.
    """

    parameters: float = 0.0
    losses: float = 0.0
    metrics: float = 0.0
    ids: bool = True
    accuracy: bool = True
    prompts: float = 0.0
    alike: bool = True
    metric: str = ""
    validations: int = field(default=0)


@dataclass
class Run:
    """A command line that runs with a witness.

    Attributes:
        seen: What the witness writes.
        process: The first one.
    """

    seen: Path
    process: subprocess.Popen[str]

    def wait(self, seconds: int = SECONDS) -> str:
        """What it said at its end.

        Raises:
            RuntimeError: If it failed, or took too long.
        """
        try:
            said, errors = self.process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.process.terminate()  # Lightning ends the other processes with it
            said, errors = self.process.communicate()
        if self.process.returncode:
            raise RuntimeError(f"{self.seen.name} ended with {self.process.returncode}: {errors}")
        return said


def start(folder: Path, arguments: Sequence[str], processes: int, strategy: Sequence[str]) -> Run:
    """Start a command line in a folder, with a witness.

    Args:
        folder: To run in; the repository's `configs/` are found from anywhere.
        arguments: Of `lightning-prompts`, without devices.
        processes: How many.
        strategy: Options that join them.
    """
    seen = folder / f"seen-{processes}"
    root = Path(__file__).resolve().parent.parent
    devices = ("--trainer.devices", str(processes), *(strategy if processes > 1 else ()))
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "lightning_prompts", *arguments, *devices),
            *("--trainer.callbacks+=soak.witness.Witness", "--trainer.callbacks.folder", str(seen)),
        ],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    return Run(seen, process)


def fit(lm: Path, data: Path, case: Case, precision: str, accelerator: str = "cpu") -> list[str]:
    """Arguments of a fit, without batch size and devices."""
    return [
        *("fit", "--config", f"configs/tuner/{case.tuner}.yaml"),
        *("--config", "configs/task/demo.yaml", "--lm.name", str(lm), "--data.path", str(data)),
        *("--trainer.precision", precision, "--trainer.accelerator", accelerator),
        *("--trainer.max_steps", str(STEPS), "--trainer.val_check_interval", str(EVERY)),
        *("--trainer.log_every_n_steps", "1", "--trainer.enable_progress_bar", "false"),
        *case.options,
    ]


def compare(
    folder: Path,
    lm: Path,
    data: Path,
    case: Case,
    precision: str,
    strategy: Sequence[str] = DDP,
    accelerator: str = "cpu",
    seconds: int = SECONDS,
) -> Difference:
    """Fit with one process and, at the same time, with two, and compare what they wrote down.

    Args:
        folder: Of both runs.
        lm: A saved language model.
        data: A folder with `train` and `validation`.
        case: What to train.
        precision: As `--trainer.precision`.
        strategy: Options that join two processes.
        accelerator: Where they run.
        seconds: After which they hang.
    """
    folder.mkdir(parents=True, exist_ok=True)
    arguments = fit(lm, data, case, precision, accelerator)
    runs = []
    for processes in (1, 2):
        size = ("--data.batch_size", str(case.global_batch // processes))
        experiment = ("--experiment", f"with-{processes}")
        runs.append(start(folder, [*arguments, *size, *experiment], processes, strategy))
    tables = [run.wait(seconds).count("majority") for run in runs]
    found = difference(*(run.seen for run in runs))
    found.alike &= tables == [1, 1]
    return found


def difference(alone: Path, together: Path) -> Difference:
    """Of what the witnesses of two runs wrote."""
    found = Difference()
    for path in sorted(alone.glob("*-0-*.json")):
        expected = json.loads(path.read_text())
        own = json.loads((together / path.name).read_text())
        other = json.loads((together / path.name.replace("-0-", "-1-")).read_text())
        found.alike &= own == other
        _compare(found, own, expected, path.name.startswith("train"))
    return found


def _compare(found: Difference, own: dict[str, Any], expected: dict[str, Any], train: bool) -> None:
    found.ids &= own["ids"] == expected["ids"] and own["tokens"] == expected["tokens"]
    pairs = zip(_numbers(own["parameters"]), _numbers(expected["parameters"]), strict=True)
    found.parameters = max([found.parameters, *(abs(a - b) for a, b in pairs)])
    found.prompts = max(found.prompts, _apart(own["prompts"], expected["prompts"]))
    for name, value in expected["metrics"].items():
        apart = abs(own["metrics"].get(name, float("inf")) - value) / max(1.0, abs(value))
        if train:
            found.losses = max(found.losses, apart)
            continue
        if name.endswith(("accuracy", "macro_f1")):
            found.accuracy &= apart == 0
        if apart > found.metrics:
            found.metrics, found.metric = apart, name
    found.validations += not train


def _apart(own: list[dict[str, Any]], expected: list[dict[str, Any]]) -> float:
    if [row["ids"] for row in own] != [row["ids"] for row in expected]:
        return float("inf")
    pairs = zip(_numbers(own), _numbers(expected), strict=True)
    return max((abs(a - b) / max(1.0, abs(b)) for a, b in pairs), default=0.0)


def _numbers(content: Any) -> Iterator[float]:
    """All numbers of nested lists and dictionaries, in order."""
    if isinstance(content, int | float):
        yield content
    elif isinstance(content, dict | list):
        for value in content.values() if isinstance(content, dict) else content:
            yield from _numbers(value)


def main(folder: Path) -> str:
    """Compare every tuner in float64 and in float32; a section of docs/reliability.md."""
    save_model(folder / "lm")
    save_reviews(folder / "data", ROWS)
    found = {
        (name, precision): compare(
            folder / f"{name}-{precision}", folder / "lm", folder / "data", case, precision
        )
        for precision in ("64-true", "32-true")
        for name, case in CASES.items()
    }
    return section(found)


def section(found: dict[tuple[str, str], Difference]) -> str:
    """What was found for each tuner and precision, as Markdown."""
    lines = [
        f"One process against two (CPU, gloo, `ddp`), {STEPS} steps of the tests' tiny model, each",
        f"run started through the command line. {ROWS['train']} training rows in global batches of",
        "6 (SoftPrompt) or 10: an epoch's last batch has three rows, which two processes cannot",
        f"share evenly, or one. Validations of {ROWS['validation']} rows every {EVERY} steps. The",
        "numbers are the largest differences after any step, of values above 1 relative to them.",
        "SoftPrompt accumulates two batches a step, and its gradient is clipped at 0.05. Where a",
        "line says no more, both processes knew the same, and one alone wrote.",
        "",
        "| tuner | precision | trained parameters | tokens | training's losses "
        "| validations' metrics | accuracy and macro-F1 | tried prompts' scores |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for (name, precision), apart in found.items():
        cells = [
            *(name, precision, f"{apart.parameters:.1e}" if CASES[name].trains else "none"),
            *(_same(apart.ids), f"{apart.losses:.1e}", f"{apart.metrics:.1e}"),
            *(_same(apart.accuracy), f"{apart.prompts:.1e}" if CASES[name].lists else "none"),
        ]
        unlike = "" if apart.alike else " the two processes were not alike"
        lines.append("| " + " | ".join(cells) + " |" + unlike)
    return "\n".join(lines) + "\n"


def _same(same: bool) -> str:
    return "equal" if same else "**differ**"
