"""A study's files, merged, and the options of the command line, which count more."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from lightning_prompts.cli.strict_yaml import load_yaml
from lightning_prompts.files.errors import PromptError
from lightning_prompts.studies.config import StudyConfig, parse_config


def read_config(paths: Sequence[Path], options: Mapping[str, Any]) -> StudyConfig:
    """Merge a study's files.

    Args:
        paths: The study's file first, then files that change it.
        options: Dotted options of the command line; `study.*` change the study, all others are
            added to `override`.

    Raises:
        PromptError: At the first mistake, with its place.
    """
    content: dict[str, Any] = {}
    for path in paths:
        content = _merge(content, _load(path))
    for name, value in options.items():
        block, _, key = name.partition(".")
        if block == "study":
            content.setdefault("study", {})[key] = _typed(value)
        else:
            content.setdefault("override", {})[name] = value
    return parse_config(content)


def _merge(
    one: Mapping[str, Any], other: Mapping[str, Any], path: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Blocks merge key by key, the later value of a key wins; an option's value stays whole."""
    merged = dict(one)
    for key, value in other.items():
        old, here = merged.get(key), (*path, key)
        of_options = here[0] == "variants" and (len(here) < 3 or here[2] in ("set", "space"))
        if isinstance(old, Mapping) and isinstance(value, Mapping) and (not path or of_options):
            value = _merge(old, value, here)
        merged[key] = value
    return merged


def _load(path: Path) -> dict[str, Any]:
    try:
        content = load_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise PromptError(f"--config {path}: no such file.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise PromptError(f"--config {path}: not readable as YAML ({reason}).") from error
    if not isinstance(content, dict):
        raise PromptError(f"--config {path}: holds no study; see configs/study/ for how one looks.")
    return content


def _typed(value: str) -> Any:
    """An option of the command line as YAML would read it."""
    try:
        return load_yaml(value)
    except yaml.YAMLError:
        return value
