"""What of the peers is installed."""

import importlib.util
from collections.abc import Sequence


def not_installed(packages: Sequence[str]) -> str | None:
    """Why a peer cannot be measured, or None."""
    absent = [name for name in packages if importlib.util.find_spec(name) is None]
    return f"{' and '.join(absent)} not installed" if absent else None
