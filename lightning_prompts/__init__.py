"""Learn prompts for a frozen causal language model, and measure whether a person can read them.

After "Towards Interpretable Soft Prompts" (Patel et al. 2025, https://arxiv.org/abs/2504.02144).

Everything public is here, whichever file it stands in: `__init__.pyi` is the list, for editors and
type checkers too. A name is imported when it is first asked for, because torch takes seconds.
"""

from importlib import import_module
from typing import Any

from lightning_prompts.files.public_names import MODULES

__all__ = sorted(MODULES)


def __getattr__(name: str) -> Any:
    """A public name, for as long as it has not been imported."""
    if name not in MODULES:
        raise AttributeError(f"module 'lightning_prompts' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(MODULES[name]), name)
    return value


def __dir__() -> list[str]:
    return __all__
