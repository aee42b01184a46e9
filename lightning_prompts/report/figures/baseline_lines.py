"""Lines of what every prompt has to beat, and their names, kept apart along an axis."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes

from lightning_prompts.files.escaping import visible
from lightning_prompts.files.text import shorten
from lightning_prompts.report.figures.looks import BASELINE_LINES, MUTED


def baseline_lines(
    axes: Axes, baselines: Mapping[str, tuple[float, float]], vertical: bool = False
) -> None:
    """What every prompt has to beat: a line each with its name at the end, a band where it varies.

    Args:
        axes: With its limits set: names are kept apart along them.
        baselines: Lowest and highest value by name.
        vertical: Whether the values are on the x axis.
    """
    line, span = (axes.axvline, axes.axvspan) if vertical else (axes.axhline, axes.axhspan)
    low, high = axes.get_xlim() if vertical else axes.get_ylim()
    named: list[tuple[float, str]] = []
    for place, (name, (least, most)) in enumerate(baselines.items()):
        if most > least:
            span(least, most, color=MUTED, alpha=0.12, lw=0, zorder=0.5)
        middle = (least + most) / 2
        line(middle, color=MUTED, lw=1, ls=BASELINE_LINES[place % len(BASELINE_LINES)], zorder=0.6)
        if low <= middle <= high:
            named.append((middle, shorten(visible(name), 26)))
    size = axes.get_window_extent().size[0 if vertical else 1] / axes.figure.dpi * 72  # points
    look: Any = {"color": MUTED, "annotation_clip": False}
    if vertical:
        places = _levels(named, low, high, size)
        look |= {"xycoords": axes.get_xaxis_transform(), "textcoords": "offset points"}
        look |= {"ha": "center", "va": "bottom", "fontsize": 7}
        for (value, name), (level, left) in zip(sorted(named), places, strict=True):
            axes.annotate(name, (value, 1.0), (-left, 3 + 9.5 * level), **look)
        return
    apart = spread([value for value, _ in sorted(named)], 9.5 * (high - low) / size)
    edge = axes.get_yaxis_transform()
    look |= {"xycoords": edge, "textcoords": edge, "va": "center", "fontsize": 7.5}
    arrow = {"arrowstyle": "-", "lw": 0.5, "color": MUTED, "shrinkA": 1, "shrinkB": 0}
    for (value, name), y in zip(sorted(named), apart, strict=True):
        axes.annotate(name, (1.0, value), (1.025, y), arrowprops=arrow, **look)


def spread(values: Sequence[float], gap: float) -> list[float]:
    """Rising values moved as little as they must to be `gap` apart.

    >>> spread([0.0, 0.1, 5.0], 1.0)
    [-0.45, 0.55, 5.0]
    """
    groups: list[tuple[float, int]] = []  # middle of each run of neighbours, and how many
    for value in values:
        middle, count = value, 1
        while groups and middle - groups[-1][0] < gap * (count + groups[-1][1]) / 2:
            other, n = groups.pop()
            middle, count = (middle * count + other * n) / (count + n), count + n
        groups.append((middle, count))
    return [m + gap * (i - (n - 1) / 2) for m, n in groups for i in range(n)]


def _levels(
    named: Sequence[tuple[float, str]], low: float, high: float, size: float
) -> list[tuple[int, float]]:
    """For each name along an x axis its level, so that neighbours do not overlap.

    And how far left of its value it stands, in points, so that it ends with the axis: beside that
    stand other words.
    """
    ends: list[float] = []
    found = []
    for value, name in sorted(named):
        place, half = (value - low) / (high - low) * size, 2.0 * len(name) + 3
        left = max(0.0, place + half - size)
        place -= left
        level = next((i for i, end in enumerate(ends) if place - half > end), len(ends))
        ends[level : level + 1] = [place + half]
        found.append((level, left))
    return found
