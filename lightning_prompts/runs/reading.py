"""What one run found, read from its folder, as a study keeps it and a report reads it."""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from lightning_prompts.files.errors import PromptError
from lightning_prompts.runs.events import Timeline, read_timeline
from lightning_prompts.runs.folder import CONFIG, PROMPT, TEST

FORWARD_TOKENS = "train/forward_tokens"
VARIANT = "variant"  # of a study: what its runs' settings call it


@dataclass
class Validation:
    """One validation of a run.

    Attributes:
        step: Training steps before it.
        seconds: Since the run began; the time between a stop and a restart is not counted.
        forward_tokens: Tokens that the model had read in training, None where that is not logged.
        metrics: By the names they are logged under: `val/accuracy`, ...
    """

    step: int
    seconds: float
    forward_tokens: float | None
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass
class RunRecord:
    """One run, finished or stopped.

    Attributes:
        name: Its folder, for people.
        tuner: Class of the tuner: SoftPrompt, PEZ, ...
        task: The task's short name.
        lm: The language model's name for people.
        template: Where text and prompt sit.
        perplexity_weight: w, or RLPrompt's alpha.
        seed: Of the tuner.
        step: Of the best prompt.
        steps: Trained in all.
        seconds: That the run took, without the time between a stop and a restart.
        forward_tokens: Tokens that the model read in training, None where that is not logged.
        text: Of the best prompt's tokens.
        ids: Of these tokens.
        tokens: Each of them decoded alone.
        distances: Cosine distance of each token to its vector, None where tokens are the prompt.
        nats: Surprise of each token under the task's model, None where it was not measured.
        soft_in_use: Whether vectors are the prompt in use.
        metrics: Of the best prompt, `val/...` of its validation and `test/...` where it was tested.
        baselines: Of the validation rows: metrics of what a prompt has to beat, by name.
        test_baselines: The same of the test rows.
        rows: Rows that were scored, of `validation` and `test`.
        correct: A digit for each test row, by its number: 1 where the prompt in use was right.
        history: Every validation.
        settings: The run's configuration by dotted names, as on the command line.
        variant: Of its study, where that has several.
        label: What its tuner calls itself; None in a record of an earlier version.
        symbols: How its tuner writes its options, by their names in `settings`.
    """

    name: str
    tuner: str
    task: str
    lm: str
    template: str
    perplexity_weight: float
    seed: int
    step: int
    steps: int
    seconds: float
    forward_tokens: float | None
    text: str
    ids: list[int]
    tokens: list[str]
    distances: list[float] | None
    nats: list[float] | None
    soft_in_use: bool
    metrics: dict[str, float]
    baselines: dict[str, dict[str, float]]
    test_baselines: dict[str, dict[str, float]]
    rows: dict[str, int]
    correct: str | None
    history: list[Validation]
    settings: dict[str, Any]
    variant: str = ""
    label: str | None = None
    symbols: dict[str, str] | None = None


def to_json(record: RunRecord) -> dict[str, Any]:
    """The record in types that JSON knows."""
    return asdict(record)


def from_json(content: Mapping[str, Any]) -> RunRecord:
    """A record that `to_json` wrote.

    Raises:
        PromptError: If it is none.
    """
    try:
        # A record of an earlier version lacks what has a default.
        names = [f.name for f in fields(RunRecord) if f.default is MISSING or f.name in content]
        known = {name: content[name] for name in names}
        history = [Validation(**each) for each in known.pop("history")]
    except (KeyError, TypeError) as error:
        raise PromptError(f"Not the record of a run: {error!r} is wrong with it.") from error
    return RunRecord(**known, history=history)


def read_run(folder: Path) -> RunRecord:
    """Read a run's folder.

    Args:
        folder: As `fit` leaves it, with test.json after `test`.

    Raises:
        PromptError: If it is no run, has not validated, or is damaged.
    """
    if not folder.is_dir():
        raise PromptError(f"{folder}: no such folder; give a run, for example logs/soft-demo/....")
    if not (folder / PROMPT).is_file():
        reason = (
            "has not validated a prompt yet; run fit until its first validation"
            if (folder / CONFIG).is_file()
            else "is no run, it has no prompt.json; give a folder that fit wrote"
        )
        raise PromptError(f"{folder} {reason}.")
    prompt = _read_json(folder / PROMPT)
    test = _read_json(folder / TEST) if (folder / TEST).is_file() else {}
    if any(test.get(name) != prompt.get(name) for name in ("step", "ids")):
        test = {}  # of another prompt: the run was trained further since
    settings = _settings(folder / CONFIG)
    timeline = read_timeline(folder)
    weight = prompt.get("perplexity_weight")
    if weight is None:  # written by an earlier version
        weight = settings.get("model.alpha", settings.get("model.perplexity_weight", 0.0))
    try:
        return RunRecord(
            name=_shown(folder),
            tuner=prompt["tuner"],
            task=prompt["task"] or "",
            lm=prompt["lm"]["label"],
            template=prompt["template"],
            perplexity_weight=float(weight),
            seed=prompt["seed"],
            step=prompt["step"],
            steps=max(timeline.steps, prompt["step"]),
            seconds=timeline.seconds,
            forward_tokens=timeline.latest(FORWARD_TOKENS),
            text=prompt["text"],
            ids=prompt["ids"],
            tokens=prompt["tokens"],
            distances=prompt.get("token_distances"),
            nats=prompt.get("token_nats"),
            soft_in_use=prompt["in_use"] == "vectors",
            metrics=_numbers(prompt["metrics"]) | _numbers(test.get("metrics", {})),
            baselines={k: _numbers(v) for k, v in prompt["baselines"].items()},
            test_baselines={k: _numbers(v) for k, v in test.get("baselines", {}).items()},
            rows=_rows(prompt, test),
            correct=test.get("correct"),
            history=list(_history(timeline)),
            settings=settings,
            label=prompt.get("label"),
            symbols=prompt.get("symbols"),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise PromptError(
            f"{folder / PROMPT}: not as fit writes it ({error!r}); run it again."
        ) from error


def _history(timeline: Timeline) -> Iterator[Validation]:
    """The validations, in the order of their steps."""
    for step in sorted({step for name in timeline.of("val/") for step in timeline.values[name]}):
        found = {name: timeline.values[name].get(step) for name in timeline.of("val/")}
        metrics = {name: point.value for name, point in found.items() if point is not None}
        seconds = max(point.seconds for point in found.values() if point is not None)
        tokens = timeline.latest(FORWARD_TOKENS, step)
        yield Validation(step, seconds, tokens, _numbers(metrics))


def _rows(prompt: Mapping[str, Any], test: Mapping[str, Any]) -> dict[str, int]:
    rows = {"validation": (prompt.get("rows") or {}).get("validation"), "test": test.get("rows")}
    return {split: count for split, count in rows.items() if count is not None}


def _numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    """What is a finite number: JSON files have null for the rest."""
    return {
        name: float(value)
        for name, value in metrics.items()
        if isinstance(value, int | float) and math.isfinite(value)
    }


def _settings(path: Path) -> dict[str, Any]:
    """A configuration by dotted names, as on the command line; empty where there is none."""
    if not path.is_file():
        return {}
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise PromptError(f"{path}: not readable as YAML; run the fit again.") from error
    return dict(_flat(content or {}))


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """A class stands under its block's own name, its arguments under the block's.

    >>> dict(_flat({"model": {"class_path": "a.PEZ", "init_args": {"prompt_length": 3}}}))
    {'model': 'a.PEZ', 'model.prompt_length': 3}
    """
    if not isinstance(value, Mapping):
        yield prefix, value
        return
    for key, inner in value.items():
        if key == "class_path":
            yield prefix, inner
        elif key in ("init_args", "dict_kwargs"):
            yield from _flat(inner or {}, prefix)
        else:
            yield from _flat(inner, f"{prefix}.{key}" if prefix else str(key))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise PromptError(f"{path}: not readable as JSON; run it again.") from error
    if not isinstance(content, dict):
        raise PromptError(f"{path}: not as lightning-prompts writes it; run it again.")
    return content


def _shown(folder: Path) -> str:
    """The folder as a person would write it here."""
    folder, here = folder.absolute(), Path.cwd()
    return str(folder.relative_to(here) if folder.is_relative_to(here) else folder)
