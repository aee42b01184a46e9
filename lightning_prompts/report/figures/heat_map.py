"""A share for each row and column as shaded cells, one panel beside another."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from lightning_prompts.files.escaping import visible
from lightning_prompts.files.text import shorten, shorten_middle
from lightning_prompts.report.figures import looks
from lightning_prompts.report.figures.prompts import drawable

Cell = tuple[float, float, float]
"""A share and the ends of its interval."""
SHADES = colormaps["cividis"]  # read alike with and without colour vision
NAME, COLUMN = 40, 20  # characters of a row's and of a column's name


def heat_map(
    rows: Sequence[str],
    columns: Sequence[str],
    panels: Mapping[str, Sequence[Sequence[Cell]]],
    framed: Sequence[tuple[int, int]],
    label: str,
    texts: tuple[str, str, str],
) -> looks.Drawn:
    """Draw shares, each with its interval below it; all panels have one scale.

    Args:
        rows: Their names, from the top.
        columns: Their names, from the left.
        panels: For each row its cells, under the panel's title.
        framed: Row and column of cells with a frame around them.
        label: Of the scale.
        texts: Name of the files, title and caption.
    """
    values = [cell[0] for panel in panels.values() for row in panel for cell in row]
    scale = Normalize(min(values), max(max(values), min(values) + 0.01))
    with looks.style():
        width = 3.0 + len(panels) * (0.95 * len(columns) + 0.15) + 0.7
        figure = Figure(figsize=(width, 1.1 + 0.42 * len(rows)))
        every = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
        for axes, (title, cells) in zip(every, panels.items(), strict=True):
            _panel(axes, columns, cells, scale)
            axes.set_title(title)
            for row, column in framed:
                frame: Any = {"fill": False, "ec": looks.VERMILLION, "lw": 2}
                axes.add_patch(Rectangle((column - 0.46, row - 0.46), 0.92, 0.92, **frame))
        names = [drawable(shorten_middle(visible(name), NAME)) for name in rows]
        every[0].set_yticks(range(len(rows)), names, family="DejaVu Sans Mono", fontsize=7)
        figure.colorbar(
            ScalarMappable(scale, SHADES), ax=list(every), shrink=0.8, pad=0.02, label=label
        )
        return looks.drawn(figure, *texts)


def _panel(
    axes: Axes, columns: Sequence[str], cells: Sequence[Sequence[Cell]], scale: Normalize
) -> None:
    axes.imshow(
        [[cell[0] for cell in row] for row in cells], cmap=SHADES, norm=scale, aspect="auto"
    )
    for y, row in enumerate(cells):
        for x, (value, low, high) in enumerate(row):
            light = scale(value) > 0.5
            look: Any = {"ha": "center", "va": "center", "color": "black" if light else "white"}
            axes.text(x, y - 0.13, f"{value:.3f}", fontsize=8.5, **look)
            axes.text(x, y + 0.24, f"{low:.3f} to {high:.3f}", fontsize=5.5, **look)
    named = [shorten(visible(name), COLUMN) for name in columns]
    axes.set_xticks(range(len(columns)), named, rotation=25, ha="right", rotation_mode="anchor")
    axes.grid(visible=False)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
