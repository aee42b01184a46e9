"""A study's files, merged, and the options of the command line, which count more."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_prompts.cli import strict_yaml
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
        content = _merge(content, strict_yaml.read_config(path, "study; see configs/study/"))
    for name, value in options.items():
        block, _, key = name.partition(".")
        if block == "study":
            content.setdefault("study", {})[key] = strict_yaml.option_value(value)
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
