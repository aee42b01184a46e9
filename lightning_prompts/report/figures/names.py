"""Names beside points, clear of the points and of each other."""

from collections.abc import Sequence
from itertools import product
from typing import Any

from matplotlib.axes import Axes

from lightning_prompts.report.figures.looks import INK

Point = tuple[float, float]


def names(axes: Axes, points: Sequence[Point], texts: Sequence[tuple[str, Point]]) -> None:
    """Write texts at the first place around their points that is free, or else the freest.

    Args:
        axes: With its limits set, in a figure whose layout is done.
        points: All that is drawn, in data's coordinates.
        texts: What to write, and the point that it belongs to.
    """
    transform, scale = axes.transData.transform, axes.figure.dpi / 72
    taken = [
        (x - 5 * scale, y - 5 * scale, x + 5 * scale, y + 5 * scale) for x, y in transform(points)
    ]
    inside = axes.get_window_extent()
    for text, place in texts:
        width, height = 4.8 * scale * len(text), 9 * scale
        px, py = transform(place)
        best, least = (7.0, 5.0, "left", "bottom"), float("inf")
        for (dx, ha), (dy, va) in product(
            ((7.0, "left"), (-7.0, "right"), (0.0, "center")),
            ((5.0, "bottom"), (-5.0, "top"), (13.0, "bottom"), (-13.0, "top"), (0.0, "center")),
        ):
            if ha == "center" and va == "center":
                continue
            left = px + dx * scale - {"left": 0, "right": width, "center": width / 2}[ha]
            low = py + dy * scale - {"bottom": 0, "top": height, "center": height / 2}[va]
            box = (left, low, left + width, low + height)
            cost = sum(_overlap(box, other) for other in taken) + 0.3 * (abs(dx) + abs(dy))
            cost += 1e6 * (box[0] < inside.x0 or box[2] > inside.x1)
            cost += 1e6 * (box[1] < inside.y0 or box[3] > inside.y1)
            if cost < least:
                best, least, best_box = (dx, dy, ha, va), cost, box
        dx, dy, ha, va = best
        taken.append(best_box)
        frame = {"boxstyle": "square,pad=0.1", "fc": "white", "ec": "none", "alpha": 0.7}
        look: Any = {"textcoords": "offset points", "fontsize": 7.5, "color": INK, "zorder": 5}
        axes.annotate(text, place, (dx, dy), ha=ha, va=va, bbox=frame, **look)


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    wide, high = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return max(wide, 0) * max(high, 0)
