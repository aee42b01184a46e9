"""What the runs cost, and how many of them ended how."""

from collections.abc import Mapping
from statistics import fmean
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from lightning_prompts.report.comparison import Comparison, Setting
from lightning_prompts.report.figures import looks

MOST = 20
OUTCOMES = {
    "finished": "#009E73",
    "failed": "#D55E00",
    "pruned": "#E69F00",
    "not finished": "#999999",
}
HATCHES = {"failed": "////", "pruned": "....", "not finished": "xx"}


def budgets(comparison: Comparison, name: str) -> looks.Drawn | None:
    """Seconds of each setting's runs and, where they were counted, the tokens read.

    Nothing where no prompt was learned: what is left is the time of measuring.
    """
    if not any(setting.learned for setting in comparison.settings):
        return None
    settings = looks.foremost(comparison, comparison.settings, MOST)
    columns = [("seconds of one run", [[r.seconds for r in s.records] for s in settings])]
    tokens = [[float(r.forward_tokens or 0) for r in s.records] for s in settings]
    if any(value for values in tokens for value in values):
        columns.append(("forward tokens in training", tokens))
    columns = [(label, values) for label, values in columns if any(v for vs in values for v in vs)]
    if not columns:
        return None
    known = looks.by_label(comparison)
    with looks.style():
        figure = Figure(figsize=(7.4, 0.9 + 0.27 * len(settings)))
        grid = figure.subplots(1, len(columns), squeeze=False, sharey=True)[0]
        for axes, (label, values) in zip(grid, columns, strict=True):
            _bars(axes, settings, values, known)
            axes.set_xlabel(label)
        caption = (
            "Bars are means over seeds, dots the seeds. Seconds are of the machines that the runs "
            "were on, from the start of training to its last validation. Tokens are those of the "
            "model's passes in training, for tuners that count them."
        ) + looks.left_out(len(comparison.settings) - len(settings))
        return looks.drawn(figure, name, "Budgets", caption)


def outcomes(counts: Mapping[str, int], name: str) -> looks.Drawn:
    """How many runs ended how, as one bar."""
    with looks.style():
        figure = Figure(figsize=(7.4, 0.95))
        axes = figure.subplots()
        start = 0
        for kind, count in counts.items():
            if count:
                look: Any = {"color": OUTCOMES[kind], "hatch": HATCHES.get(kind)}
                label = f"{kind}: {count:,}"
                axes.barh(0, count, left=start, edgecolor="white", label=label, **look)
                start += count
        axes.set_xlim(0, start)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.grid(visible=False)
        axes.set_xlabel("runs")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        figure.legend(loc="outside upper center", ncols=len(counts))
        return looks.drawn(figure, name, "Outcomes", "All runs, by how they ended.")


def _bars(
    axes: Axes, settings: list[Setting], values: list[list[float]], known: Mapping[str, looks.Look]
) -> None:
    axes.set_xlim(0, 1.25 * max(v for seeds in values for v in seeds))  # room for a bar's number
    places = looks.setting_rows(axes, settings)
    for y, setting, seeds in zip(places, settings, values, strict=True):
        some = [value for value in seeds if value > 0]
        if not some:
            axes.text(0, y, " not counted", fontsize=7, color=looks.MUTED, va="center")
            continue
        mean, look = fmean(some), known[setting.label]
        axes.barh(y, mean, height=0.55, color=look.colour, alpha=0.55)
        if len(some) > 1:
            axes.plot(some, [y] * len(some), look.marker, ms=3, color=looks.INK, alpha=0.7, mew=0)
        number: Any = {
            "textcoords": "offset points",
            "fontsize": 7.5,
            "va": "center",
            "color": looks.INK,
        }
        axes.annotate(brief(mean), (max([mean, *some]), y), (4, 0), **number)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: brief(value)))


def brief(value: float) -> str:
    """A number that people read at a glance.

    >>> [brief(v) for v in (0.0, 7.0, 150_000.0, 3e6, 2.25e6, 1.2345e9)]
    ['0', '7', '150,000', '3 M', '2.25 M', '1,230 M']
    """
    return f"{value:,.0f}" if value < 1e6 else f"{float(f'{value / 1e6:.3g}'):,g} M"
