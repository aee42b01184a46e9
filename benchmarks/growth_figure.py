"""The figure of how costs grow, in the look of the report's figures."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from benchmarks.exponents import LARGEST, Growth
from lightning_prompts.report.figures import looks


def draw(growths: Sequence[Growth], path: Path) -> None:
    """A panel for each kind of size, on logarithmic axes.

    Args:
        growths: What was measured.
        path: The PNG.
    """
    with looks.style():
        columns = min(3, len(growths))
        rows = -(-len(growths) // columns)
        figure = Figure(figsize=(2.5 * columns, 2.3 * rows))
        grid = figure.subplots(rows, columns, squeeze=False).flat
        for number, (axes, growth) in enumerate(zip(grid, growths, strict=False)):
            look = looks.PALETTE[number], looks.MARKERS[number]
            sizes = list(growth.costs)
            seconds = [cost.median for cost in growth.costs.values()]
            axes.plot(sizes, seconds, look[1], color=look[0], ms=5)
            fitted = sizes[-LARGEST:]
            # The least-squares line goes through the means of the logarithms.
            middle = _mean(fitted), _mean(seconds[-LARGEST:])
            line = [middle[1] * (size / middle[0]) ** growth.exponent for size in fitted]
            label = f"exponent {growth.exponent:.2f}"
            axes.plot(fitted, line, color=look[0], lw=1.2, alpha=0.7, label=label)
            axes.set_xscale("log")
            axes.set_yscale("log")
            axes.set_xticks(sizes, [f"{size:,}" for size in sizes], rotation=30)
            axes.xaxis.set_minor_locator(NullLocator())
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_minor_formatter(NullFormatter())
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.tick_params(axis="y", which="both", labelsize=6.5)
            axes.set_title(growth.name)
            axes.set_xlabel(growth.work, fontsize=7.5)
            axes.legend(loc="upper left")
        for axes in list(figure.axes)[len(growths) :]:
            axes.set_visible(False)
        figure.supylabel("seconds", fontsize=9)
        drawn = looks.drawn(figure, path.stem, "Growth", "")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(drawn.png)


def _mean(values: list[int] | list[float]) -> float:
    """Geometric."""
    product = 1.0
    for value in values:
        product *= value ** (1 / len(values))
    return product
