"""What one run found, read from its folder, as a study keeps it and a report reads it."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from lightning_prompts.files.errors import PromptError
from lightning_prompts.files.public_names import public_names
from lightning_prompts.files.text import short_path
from lightning_prompts.runs.folder import CONFIG, PROMPT, TEST
from lightning_prompts.runs.history import read_history
from lightning_prompts.runs.record import RunRecord
from lightning_prompts.tuners.record import VERSION

# Options that runs of before did not have, and what they did without.
LATER = {
    **dict.fromkeys(["data.columns", "data.encoding", "data.header", "data.separator"]),
    **{"data.skip_bad_rows": False, "data.answer_score": "sum", "lm.quantize": None},
}


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
    record, settings = read_prompt(folder / PROMPT), _settings(folder / CONFIG)
    record.name, record.settings = str(short_path(folder)), settings
    if lines := read_history(folder):
        record.history = [line for line in lines if line.metrics]
        record.steps, record.seconds = max(lines[-1].step, record.step), lines[-1].seconds
        counts = [line.forward_tokens for line in lines if line.forward_tokens is not None]
        record.forward_tokens = counts[-1] if counts else None
    else:
        record.steps = record.step
    add_test(record, folder / TEST)
    return record


def read_prompt(path: Path) -> RunRecord:
    """What a prompt.json says.

    Raises:
        PromptError: If it is damaged.
    """
    content = _read_json(path)
    if content.get("perplexity_weight") is None:  # written by an earlier version
        settings = _settings(path.with_name(CONFIG))
        names = ("model.alpha", "model.perplexity_weight")
        weight = next((settings[name] for name in names if name in settings), 0.0)
        content["perplexity_weight"] = float(weight)
    record = _record(path, content)
    if record.lm.add_bos is None:  # as well
        given = _settings(path.with_name(CONFIG)).get("lm.add_bos")
        record.lm = replace(record.lm, add_bos=given if isinstance(given, bool) else None)
    return record


def add_test(record: RunRecord, path: Path) -> None:
    """Add what a test of the same prompt found; a run may have been trained further since."""
    if not path.is_file():
        return
    content = _read_json(path)
    if VERSION not in content:  # then it was not a whole record
        content["test_baselines"] = content.pop("baselines", {})
        content["rows"] = {"test": content.get("rows")}
        content = {**record.to_json(), **content}
    test = _record(path, content)
    # Vectors may differ where their nearest tokens are the same.
    same_vectors = record.token_distances is None or test.step == record.step
    if test.ids != record.ids or not same_vectors:
        record.other_test = True
        return
    record.metrics, record.rows = record.metrics | test.metrics, record.rows | test.rows
    record.test_baselines, record.correct = test.test_baselines, test.correct


def _record(path: Path, content: dict[str, Any]) -> RunRecord:
    try:
        return RunRecord.from_json(content)
    except PromptError as error:
        raise PromptError(f"{path}: {error}") from error


def _settings(path: Path) -> dict[str, Any]:
    """A configuration by dotted names, as on the command line; empty where there is none."""
    if not path.is_file():
        return {}
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise PromptError(f"{path}: not readable as YAML; run the fit again.") from error
    return LATER | dict(_flat(content)) if content else {}


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
            yield prefix, public_names(str(inner))
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
