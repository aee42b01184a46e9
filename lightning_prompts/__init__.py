"""Learn prompts for a frozen causal language model, and measure whether a person can read them.

After "Towards Interpretable Soft Prompts" (Patel et al. 2025, https://arxiv.org/abs/2504.02144).

Everything public is here, whichever file it stands in: `__init__.pyi` is the list, for editors and
type checkers too. A name is imported when it is first asked for, because torch takes seconds.
"""

import ast
from importlib import import_module
from pathlib import Path
from typing import Any

_LIST = ast.parse(Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8")).body
_IMPORTS = [node for node in _LIST if isinstance(node, ast.ImportFrom)]
_MODULES = {alias.name: node.module for node in _IMPORTS for alias in node.names}

__all__ = sorted(_MODULES)


def __getattr__(name: str) -> Any:
    """A public name, for as long as it has not been imported."""
    if name not in _MODULES:
        raise AttributeError(f"module 'lightning_prompts' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(str(_MODULES[name])), name)
    return value


def __dir__() -> list[str]:
    return __all__
