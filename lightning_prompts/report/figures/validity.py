"""How well measures tell groups of texts apart: a dot and its interval, models side by side."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lightning_prompts.files.escaping import visible
from lightning_prompts.files.text import shorten, shorten_middle
from lightning_prompts.report.figures import looks
from lightning_prompts.report.separation import Separation

TITLE, MODEL = 24, 40  # characters of a panel's title and of a model's name
APART = 0.5  # of a row's height, all models of a measure together


def dots(
    measures: Sequence[str],
    models: Sequence[str],
    panels: Mapping[str, Sequence[Sequence[Separation | None]]],
    needed: Collection[str],
    bar: float,
) -> looks.Drawn:
    """Draw a panel for each group that written texts are compared with.

    Args:
        measures: Their names, from the top.
        models: Their names.
        panels: By the group's name, for each measure what each model finds; None where it does not
            ask.
        needed: Groups that the verdict needs.
        bar: Above which it needs an interval's lower end.
    """
    with looks.style():
        figure = Figure(figsize=(2.1 + 1.2 * len(panels), 1.2 + 0.34 * len(measures)))
        every = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
        for axes, (group, rows) in zip(every, panels.items(), strict=True):
            title = shorten(visible(group), TITLE).replace(", ", ",\n")
            axes.set_title(title, fontsize=8.5)
            axes.axvline(0.5, color=looks.MUTED, lw=0.8)
            if group in needed:
                axes.axvline(bar, color=looks.MUTED, lw=0.8, ls=looks.BASELINE_LINES[0])
            for row, found in enumerate(rows):
                if not any(found):
                    look: Any = {"ha": "center", "va": "center", "color": looks.MUTED}
                    axes.text(0.5, row, "does not ask", fontsize=6.5, backgroundcolor="w", **look)
                for place, area in enumerate(found):
                    if area is not None:
                        shift = ((place + 0.5) / len(models) - 0.5) * APART
                        _dot(axes, area, row + shift, place, area.low > bar)
            axes.set_xlim(-0.04, 1.04)
            axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
            axes.tick_params(axis="y", length=0)
        every[0].set_yticks(range(len(measures)), measures)
        every[0].set_ylim(len(measures) - 0.5, -0.5)
        figure.supxlabel("share of pairs in which the written prompt is called better", fontsize=9)
        names = [shorten_middle(visible(model), MODEL) for model in models]
        figure.legend(
            handles=[
                Line2D([], [], label=name, ls="", **_look(place))
                for place, name in enumerate(names)
            ],
            loc="outside upper left",
            ncols=len(models),
        )
        caption = (
            "Areas under ROC curves, written prompts against other texts, with 95 % bootstrap "
            f"intervals. Filled: the interval's lower end is above {bar}. Dotted: the bar of the "
            "verdict, in the panels that it needs."
        )
        return looks.drawn(figure, "validity", "What each measure tells apart", caption)


def _dot(axes: Any, area: Separation, y: float, place: int, above: bool) -> None:
    look = _look(place)
    axes.plot([area.low, area.high], [y, y], color=look["color"], lw=1.2)
    face = look["color"] if above else "white"
    axes.plot(area.auc, y, **look, markerfacecolor=face)


def _look(place: int) -> dict[str, Any]:
    colour = looks.PALETTE[place % len(looks.PALETTE)]
    return {"color": colour, "marker": looks.MARKERS[place % len(looks.MARKERS)], "ms": 4.5}
