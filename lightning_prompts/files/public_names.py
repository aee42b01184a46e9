"""Classes by their names in configurations: without the module, so that files can move."""

import ast
import re
from importlib import import_module
from pathlib import Path
from typing import Any

_LIST = Path(__file__).parent.with_name("__init__.pyi").read_text(encoding="utf-8")
_IMPORTS = [node for node in ast.parse(_LIST).body if isinstance(node, ast.ImportFrom)]
MODULES = {alias.name: str(node.module) for node in _IMPORTS for alias in node.names}
"""The public names, and the module that each is in."""
_PATH = re.compile(r"\blightning_prompts(?:\.[a-z_]+)+\.([A-Z]\w+)\b")


def find_class(path: object) -> type[Any] | None:
    """The class that a dotted path names, None where there is none."""
    module, _, name = str(path).rpartition(".")
    try:
        found = getattr(import_module(module), name, None)
    except (ImportError, ValueError):  # of no module
        return None
    return found if isinstance(found, type) else None


def public_names(text: str) -> str:
    """A text in which the public classes have their public names, as runs of before have not.

    >>> public_names("class_path: lightning_prompts.prompt_init.FromText")
    'class_path: lightning_prompts.FromText'
    """
    return _PATH.sub(
        lambda found: f"lightning_prompts.{found[1]}" if found[1] in MODULES else found[0], text
    )
