"""One run while it goes on: its validations as a path between likely tokens and performance."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from lightning_prompts.report.comparison import MEASURES, Measure
from lightning_prompts.report.figures import looks
from lightning_prompts.report.figures.baseline_lines import baseline_lines
from lightning_prompts.runs.record import Bars, Validation

PERPLEXITY = "val/perplexity"


def trade_off(
    validations: Sequence[Validation], best: int, vectors: bool, baselines: Bars
) -> Figure | None:
    """Performance against perplexity, a point a validation; draw it within `looks.style`.

    Args:
        validations: In their order.
        best: Step of the prompt that would be chosen now.
        vectors: Whether vectors, not tokens, are the prompt in use.
        baselines: Metrics of what it has to beat, by name.

    Returns:
        None where no validation has both measures.
    """
    measure = next((m for m in MEASURES if any(_placed(v, m) for v in validations)), None)
    if measure is None:
        return None
    placed = [v for v in validations if _placed(v, measure)]
    bars = {name: found[measure.name] for name, found in baselines.items() if measure.name in found}
    with matplotlib.rc_context({"figure.constrained_layout.use": False}):
        figure = Figure(figsize=(5.6, 3.9))
        axes = figure.add_axes((0.115, 0.21, 0.62, 0.7))
        _points(axes, placed, measure, best, vectors)
        _limits(axes, placed, measure, bars)
        looks.log_axis(axes.xaxis)
        axes.set_xlabel("perplexity of the tokens (log scale; lower is likelier text)")
        axes.set_ylabel(measure.axis("val"))
        last = placed[-1].metrics
        score, likely = measure.shown(last[f"val/{measure.name}"]), looks.power(last[PERPLEXITY])
        axes.set_title(f"Step {placed[-1].step:,}: {measure.label} {score}, perplexity {likely}")
        baseline_lines(axes, {name: (value, value) for name, value in bars.items()})
        figure.legend(loc="lower center", ncols=3, columnspacing=1.4, handletextpad=0.5)
    return figure


def pixels(figure: Figure, dpi: int) -> Tensor:
    """[height, width, 3] bytes of a figure; call it within `looks.style`."""
    figure.set_dpi(dpi)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    width, height = canvas.get_width_height()
    values = torch.frombuffer(bytearray(canvas.buffer_rgba()), dtype=torch.uint8)
    return values.view(height, width, 4)[..., :3]


def _placed(validation: Validation, measure: Measure) -> bool:
    """Whether a validation has a place: finite, and on a logarithmic axis."""
    score = validation.metrics.get(f"val/{measure.name}", math.nan)
    likely = validation.metrics.get(PERPLEXITY, math.nan)
    return math.isfinite(score) and math.isfinite(likely) and likely > 0


def _points(
    axes: Axes, placed: Sequence[Validation], measure: Measure, best: int, vectors: bool
) -> None:
    """The path, the darker the later; the best in a ring; crosses for tokens behind vectors."""
    xs = [v.metrics[PERPLEXITY] for v in placed]
    ys = [v.metrics[f"val/{measure.name}"] for v in placed]
    shades = [
        looks.lighter(looks.BLUE, 0.75 * (1 - (i + 1) / len(placed))) for i in range(len(placed))
    ]
    axes.plot(xs, ys, color=looks.MUTED, lw=0.8, zorder=2)
    name = "vectors" if vectors else "tokens in use"
    fill = ["white"] * len(xs) if vectors else shades
    axes.scatter(xs, ys, s=36, c=fill, edgecolors=shades, linewidths=1.6, zorder=3)
    dot: Any = {"mfc": fill[-1], "mec": shades[-1], "mew": 1.6, "ms": 6, "ls": "", "zorder": 4}
    axes.plot(xs[-1], ys[-1], "o", label=name, **dot)
    tokens = [v.metrics.get(f"val/hard_{measure.name}") for v in placed]
    known = [(x, y, shade) for x, y, shade in zip(xs, tokens, shades, strict=True) if y is not None]
    if vectors and known:
        across, up, of_tokens = zip(*known, strict=True)
        label = "its nearest tokens"
        axes.scatter(across, up, s=30, c=of_tokens, marker="x", linewidths=1.4, zorder=3)
        axes.plot(across[-1], up[-1], "x", color=of_tokens[-1], ms=5.5, mew=1.4, ls="", label=label)
    chosen = [(x, y) for v, x, y in zip(placed, xs, ys, strict=True) if v.step == best]
    if chosen:
        ring: Any = {"mfc": "none", "mec": looks.VERMILLION, "mew": 1.4, "ms": 11, "ls": ""}
        axes.plot(*chosen[-1], "o", label=f"best so far, step {best:,}", zorder=5, **ring)


def _limits(
    axes: Axes, placed: Sequence[Validation], measure: Measure, bars: Mapping[str, float]
) -> None:
    metrics = (f"val/{measure.name}", f"val/hard_{measure.name}")
    ys = [v.metrics[m] for v in placed for m in metrics if m in v.metrics]
    ys += bars.values()
    xs = [v.metrics[PERPLEXITY] for v in placed]
    margin = max(0.08 * (max(ys) - min(ys)), 0.02 * measure.top)
    axes.set_ylim(min(ys) - margin, max(ys) + margin)
    stretch = max((max(xs) / min(xs)) ** 0.12, 1.5)
    axes.set_xlim(min(xs) / stretch, max(xs) * stretch)
