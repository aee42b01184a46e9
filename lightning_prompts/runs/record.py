"""A run's record: written to prompt.json and test.json, kept by studies, read by reports."""

import math
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, Self

import torch
from lightning.pytorch import Trainer

from lightning_prompts.callbacks.base import find_callback, task_of
from lightning_prompts.callbacks.baselines import Baselines
from lightning_prompts.callbacks.prompt_text import token_distances
from lightning_prompts.files.option_types import symbols
from lightning_prompts.files.stages import SPLIT_OF, Stage
from lightning_prompts.files.version import __version__
from lightning_prompts.tuners.base import PromptTuner
from lightning_prompts.tuners.record import PromptRecord, current, not_a_record

VARIANT = "variant"  # of a study: what its runs' settings call it
Bars = dict[str, dict[str, float]]


@dataclass
class Validation:
    """One validation of a run.

    Attributes:
        step: Training steps before it.
        seconds: Since the run began; the time between a stop and a restart is not counted.
        forward_tokens: Tokens that the model had read in training, None where that is not known.
        metrics: By the names they are logged under: `val/accuracy`, ...; none where the run was
            only stopped here.
    """

    step: int
    seconds: float
    forward_tokens: float | None
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass(kw_only=True)
class RunRecord(PromptRecord):
    """A prompt, what was measured of it, and the run that made it.

    prompt.json is of the best validation and test.json of a test; together with the run's other
    files they are the whole record.

    Attributes:
        task: The task's short name.
        data: Where its rows are from.
        perplexity_weight: w, or RLPrompt's alpha.
        seed: Of the tuner.
        versions: Of Python and the libraries.
        baselines: Of the validation rows: metrics of what a prompt has to beat, by name.
        test_baselines: The same of the test rows.
        rows: Rows that were scored, of `validation` and `test`.
        correct: A digit for each test row, by its number: 1 where the prompt in use was right.
        name: The run's folder, for people.
        steps: Trained in all.
        seconds: That the run took, without the time between a stop and a restart.
        forward_tokens: Tokens that the model read in training, None where that is not known.
        history: Every validation.
        settings: The run's configuration by dotted names, as on the command line.
        variant: Of its study, where that has several.
        other_test: Whether a test was left out that was of another prompt than this one.
        label: What the tuner calls itself; empty in a record of an earlier version.
        symbols: How the tuner writes its options, by their names in `settings`.
    """

    task: str
    data: Any = None
    perplexity_weight: float
    seed: int
    versions: dict[str, str] = field(default_factory=dict)
    baselines: Bars = field(default_factory=dict)
    test_baselines: Bars = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    correct: str | None = None
    name: str = ""
    steps: int = 0
    seconds: float = 0.0
    forward_tokens: float | None = None
    history: list[Validation] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    variant: str = ""
    other_test: bool = False
    label: str = ""
    symbols: dict[str, str] = field(default_factory=dict)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """As for a prompt, with its finite numbers alone: JSON files have null for the rest."""
        content = current(content)
        try:
            validations = [Validation(**each) for each in content.get("history", ())]
            for validation in validations:
                validation.metrics = finite(validation.metrics)
            content |= {
                "task": content["task"] or "",
                "metrics": finite(content["metrics"]),
                "rows": {k: v for k, v in content.get("rows", {}).items() if v is not None},
                "history": validations,
            }
            for name in ("baselines", "test_baselines"):
                content[name] = {k: finite(v) for k, v in content.get(name, {}).items()}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise not_a_record(error) from error
        return super().from_json(content)


def finite(metrics: Mapping[str, Any]) -> dict[str, float]:
    """What is a finite number."""
    return {
        name: float(value)
        for name, value in metrics.items()
        if isinstance(value, int | float) and math.isfinite(value)
    }


def scored_rows(trainer: Trainer, stage: Stage) -> int | None:
    """Rows of an evaluation, of which `limit_val_batches` may leave some out; None if not known."""
    task = task_of(trainer)
    split = SPLIT_OF[stage]
    rows: int | None = None if task is None else task.report.rows.get(split)
    # A run with nothing left to do has no batches.
    batches = sum(trainer.num_val_batches if stage == "val" else trainer.num_test_batches)
    if task is None or not rows or not batches:
        return rows
    return int(task.scored_rows(split, int(batches)))


@torch.no_grad()
def describe(trainer: Trainer, tuner: PromptTuner, metrics: Mapping[str, float]) -> RunRecord:
    """The record of the tuner's present prompt, as of one evaluation.

    Args:
        trainer: At the evaluation that measured the prompt.
        tuner: Holds the prompt.
        metrics: Of this evaluation, by the names they are logged under.
    """
    token_ids, task = tuner.hard_prompt(), task_of(trainer)
    record, baselines = tuner.record(), find_callback(trainer, Baselines)
    record.metrics = dict(sorted(metrics.items()))
    record.token_nats = tuner.lm.token_nll(token_ids[None])[0].tolist()
    if tuner.has_soft_prompt:
        record.token_distances = token_distances(tuner, token_ids).tolist()
    return RunRecord(
        **vars(record),
        task=getattr(task, "slug", ""),
        data=getattr(task, "origin", None),
        label=tuner.label,
        symbols=symbols(tuner, "model."),
        perplexity_weight=tuner.perplexity_weight,
        seed=tuner.seed,
        versions={
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "lightning", "transformers")},
            "lightning_prompts": __version__,
        },
        baselines={} if baselines is None else {k: dict(v) for k, v in baselines.results.items()},
    )
