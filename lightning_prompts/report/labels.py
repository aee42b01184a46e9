"""What tells one setting from another: the options that differ, by short names."""

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

from lightning_prompts.files.text import shorten
from lightning_prompts.runs.record import RunRecord

# What changes neither the prompt that is found nor how it is measured.
_OUTPUT = (
    *("experiment", "ckpt_path", "weights_only", "prompt_text", "checkpoint.dirpath"),
    *("trainer.logger", "trainer.default_root_dir", "trainer.enable_", "trainer.log_every_n_steps"),
    *("data.num_workers", "data.id_column", "lm.text_cache", "lm.recompute"),
    "faithfulness.rows",  # of validations that are not the best prompt's
    *("scrutability.panel", "data.task_kind"),  # more measures, which change no other one
)
# Of the data's settings those that say what is learned from, not what is asked.
_TRAINING = {"batch_size", "val_batch_size", "shots", "train", "train_rows"}
_SYMBOLS = {"trainer.max_steps": "steps"}  # tuners say theirs in the types of their options
# What only repeats a setting with another chance.
_SEEDS = {"seed_everything", "model.seed", "data.seed"}
_ABSENT = object()
MOST_TOLD = 5
"""Options that a label names; more would not be read."""


def labels(runs: Sequence[RunRecord], relevant: Callable[[str], bool]) -> list[str]:
    """What tells each run from the others: `w = 0.1, lr = 0.01`."""
    keys = {key for run in runs for key in run.settings if relevant(key)}
    telling = [
        key for key in sorted(keys, key=_order) if len({frozen(run, key) for run in runs}) > 1
    ]
    # A class that differs has other settings, which its name alone tells.
    classes = [key for key in telling if any(k.startswith(f"{key}.") for k in keys)]
    telling = [
        key
        for key in telling
        if not any(
            key.startswith(f"{parent}.") and any(key not in run.settings for run in runs)
            for parent in classes
        )
    ]
    short = {key: key.rpartition(".")[2] for key in telling}
    for key in telling:
        if list(short.values()).count(short[key]) > 1:
            short[key] = key.partition(".")[2] or key
    found = []
    for run in runs:
        symbols = _SYMBOLS | run.symbols
        told = [
            f"{symbols.get(key, short[key])} = {_shown(run.settings[key])}"
            for key in telling
            if key in run.settings
        ]
        more = ["…"] if len(told) > MOST_TOLD else []
        found.append(", ".join(told[:MOST_TOLD] + more))
    return found


def by_number(label: str) -> list[tuple[float, str]]:
    """To sort labels by the numbers in them.

    >>> sorted(["lr = 0.1", "lr = 0.02", "lr = 1e-05"], key=by_number)
    ['lr = 1e-05', 'lr = 0.02', 'lr = 0.1']
    """
    parts = re.split(r"(\d+(?:\.\d+)?(?:e[+-]?\d+)?)", label)
    return [(float(part), "") if i % 2 else (0.0, part) for i, part in enumerate(parts)]


def _order(key: str) -> tuple[int, str]:
    """What the tool is about comes first."""
    first = ("perplexity_weight", "alpha", "template", "prompt_length", "lr")
    last = key.rpartition(".")[2]
    return (first.index(last) if last in first else len(first), key)


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, str):
        # Of a class path the class; other texts quoted.
        names = value.split(".")
        return names[-1] if all(map(str.isidentifier, names)) else shorten(f'"{value}"', 48)
    return shorten(json.dumps(value, ensure_ascii=False, default=str), 48)


def any_setting(key: str) -> bool:
    """Whether a setting can make two runs differ; `chance` tells their seeds apart."""
    return not key.startswith(_OUTPUT) and key not in _SEEDS


def chance(run: RunRecord) -> tuple[int, str]:
    """In what runs of one setting may differ: the tuner's seed, and that of the rows."""
    return run.seed, frozen(run, "data.seed")


def of_problem(key: str) -> bool:
    """Whether a setting says what is asked: which rows, which template, which words."""
    return key.partition(".")[0] == "data" and any_setting(key) and key[5:] not in _TRAINING


def of_setting(key: str) -> bool:
    """Whether a setting says how a prompt is looked for."""
    return any_setting(key) and not of_problem(key)


def frozen(run: RunRecord, key: str) -> str:
    """A setting to compare: 1 and 1.0 are the same, and absent is not null."""
    value = run.settings.get(key, _ABSENT)
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = float(value)
    return "" if value is _ABSENT else json.dumps(value, sort_keys=True, default=str)
