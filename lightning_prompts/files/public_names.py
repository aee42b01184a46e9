"""Names of the package's classes in configurations: without the module, so that files can move."""

import ast
import re
from pathlib import Path

_LIST = Path(__file__).parent.with_name("__init__.pyi").read_text(encoding="utf-8")
_IMPORTS = [node for node in ast.parse(_LIST).body if isinstance(node, ast.ImportFrom)]
MODULES = {alias.name: str(node.module) for node in _IMPORTS for alias in node.names}
"""The public names, and the module that each is in."""
_PATH = re.compile(r"\blightning_prompts(?:\.[a-z_]+)+\.([A-Z]\w+)\b")


def public_names(text: str) -> str:
    """A text in which the public classes have their public names, as runs of before have not.

    >>> public_names("class_path: lightning_prompts.prompt_init.FromText")
    'class_path: lightning_prompts.FromText'
    """
    return _PATH.sub(
        lambda found: f"lightning_prompts.{found[1]}" if found[1] in MODULES else found[0],
        text,
    )
