"""Rows without splits of their own, divided among them."""

from collections.abc import Mapping, Sequence

from lightning_prompts.files.errors import PromptError
from lightning_prompts.files.option_types import Range
from lightning_prompts.tasks.rows import SPLIT_SEED, Rows, stratified_order

SPLITS = ("train", "validation", "test")


def shares_of(given: str) -> dict[str, float]:
    """The three shares of `--data.split`.

    Raises:
        PromptError: If they are no such shares.
    """
    try:
        shares = [float(share) for share in given.split(",")]
    except ValueError:
        shares = []
    good = len(shares) == 3 and all(map(Range(0, 1).has, shares)) and shares[0] > 0
    if not good or abs(sum(shares) - 1) > 1e-6:
        raise PromptError(
            f"--data.split is {given!r}; give the shares of training, validation and test rows, "
            "which add up to 1, for example 0.8,0.1,0.1."
        )
    return dict(zip(SPLITS, shares, strict=True))


def cut(rows: Rows, names: Sequence[str], shares: Mapping[str, float]) -> dict[str, Rows | None]:
    """Divide rows among splits by their shares, the classes evenly, always in the same way.

    Args:
        rows: Labelled.
        names: The splits.
        shares: Of each split; what those of `names` have together is all.

    Returns:
        For each split its rows, None where it gets none.
    """
    order = stratified_order(rows.labels, SPLIT_SEED)
    total = sum(shares[name] for name in names)
    parts: dict[str, Rows | None] = {}
    start, reached = 0, 0.0
    for name in names:
        reached += shares[name]
        end = round(len(order) * reached / total) if total else 0
        parts[name] = rows.take(sorted(order[start:end])) if end > start else None
        start = end
    return parts
