"""The configurations that come with the package: where they lie, and what one of them says."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

_PACKAGE = Path(__file__).resolve().parents[1]
# In a wheel they lie inside the package, in a checkout beside it.
CONFIGS = next((c for c in (_PACKAGE / "configs", _PACKAGE.parent / "configs") if c.is_dir()), None)


@cache
def shipped(name: str) -> Mapping[str, Any]:
    """What a shipped configuration says; nothing where there is none of that name.

    Args:
        name: Below `configs/`, e.g. `tuner/soft.yaml`.
    """
    path = CONFIGS / name if CONFIGS else None
    if path is None or not path.is_file():
        return {}
    content: Mapping[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return content


def shipped_files(group: str) -> list[Path]:
    """The shipped configurations of a group: `tuner`, `task`, `study` or `trainer`."""
    return sorted((CONFIGS / group).glob("*.yaml")) if CONFIGS else []
