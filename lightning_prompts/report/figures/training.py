"""What happened in training: against steps, and against what the steps cost."""

import math
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lightning_prompts.files.escaping import visible
from lightning_prompts.files.text import shorten
from lightning_prompts.report.comparison import MEASURES, Comparison, Measure, Problem, Setting
from lightning_prompts.report.figures import looks
from lightning_prompts.report.figures.baseline_lines import spread
from lightning_prompts.runs.record import RunRecord, Validation

MOST = 10
DISTANCE = "val/distance_differential_cosine"
PERPLEXITY = "val/perplexity"
Value = Callable[[Validation], float | None]


class Cost(NamedTuple):
    """An x axis: what a validation had cost by then."""

    label: str
    of: Value


SECONDS = Cost("seconds since the start (log scale)", lambda v: v.seconds)
TOKENS = Cost("forward tokens in training (log scale)", lambda v: v.forward_tokens)


class Panel(NamedTuple):
    """What one panel shows: a metric against steps, or against a cost."""

    label: str
    metric: str
    cost: Cost | None = None


def training(comparison: Comparison, name: str) -> looks.Drawn | None:
    """Performance, perplexity and distance over the steps; a row a problem."""
    metrics = {**_metrics(comparison), DISTANCE: "cosine distance to nearest tokens"}
    panels = [Panel(label, m) for m, label in metrics.items() if _logged(comparison, m)]
    caption = (
        "Every validation that most seeds have; {seeds}. Lines are means over seeds (perplexity: "
        "geometric), bands reach from the lowest seed to the highest; the marker is nearest to "
        "where the prompt was chosen (mean step)."
    )
    return _draw(comparison, name, "Over training", [panels], caption)


def equal_compute(comparison: Comparison, name: str) -> looks.Drawn | None:
    """The best prompt so far, against seconds and, where it was counted, forward tokens."""
    settings = [s for p in comparison.problems if _learning(p) for s in p.settings]
    counted = [s for s in settings if all(r.forward_tokens for r in s.records)]
    costs = [SECONDS, TOKENS] if len(counted) > 1 else [SECONDS]
    metrics = {m: label for m, label in _metrics(comparison).items() if _logged(comparison, m)}
    # Costs beside each other, measures below each other; with one cost the measures stand in a row.
    rows = [[Panel(label, m, cost) for cost in costs] for m, label in metrics.items()]
    if len(costs) == 1:
        rows = [[panel for row in rows for panel in row]]
    caption = (
        "Of the prompt that would have been chosen at that point: the one with the lowest "
        "objective so far; {seeds}, a thin line each, the thick one their mean (perplexity: "
        "geometric). Seconds are of the machines that the runs were on, validations included."
    )
    return _draw(comparison, name, "At equal cost", rows, caption)


def _draw(
    comparison: Comparison, name: str, title: str, rows: list[list[Panel]], caption: str
) -> looks.Drawn | None:
    """Rows of panels for each problem; None where there is nothing to draw."""
    problems = [p for p in comparison.problems if _learning(p)]
    places = [(problem, panels) for problem in problems for panels in rows if panels]
    if not places:
        return None
    with looks.style():
        columns = len(rows[0])
        figure = Figure(figsize=(max(3.35 * columns, 4.6), 0.7 + 2.9 * len(places)))
        grid = [list(row) for row in figure.subplots(len(places), columns, squeeze=False)]
        known = looks.by_label(comparison)
        curves = [[s for s in problem.settings if _has_curve(s)] for problem in problems]
        # The better ones where there are many.
        shown = [s for some in curves for s in looks.foremost(comparison, some, MOST)]
        for row, (problem, panels) in zip(grid, places, strict=True):
            for axes, panel in zip(row, panels, strict=True):
                line = _mean_line if panel.cost is None else _cost_line
                for setting in shown:
                    if setting in problem.settings:
                        line(axes, setting, known[setting.label], panel)
                if panel.cost and axes.has_data():
                    looks.log_axis(axes.xaxis)
                if panel.metric == PERPLEXITY and axes.has_data():
                    looks.log_axis(axes.yaxis)
                axes.set_ylabel(panel.label)
                axes.set_xlabel(panel.cost.label if panel.cost else "training steps")
            if panels is rows[0]:
                looks.entitle(row[0], problem)
        _finish(figure, shown, known)
        _baselines(grid, [problem for problem, _ in places], _measure(comparison))
        missing = sum(map(len, curves)) - len(shown)
        caption = caption.format(seeds=looks.seeds_of(shown)) + looks.left_out(missing)
        return looks.drawn(figure, name, title, caption)


def _mean_line(axes: Axes, setting: Setting, look: looks.Look, panel: Panel) -> None:
    """Mean over the seeds that validated at a step, as long as most of them did."""
    log = panel.metric == PERPLEXITY
    at: dict[int, list[float]] = {}
    for record in setting.records:
        for validation in record.history:
            value = validation.metrics.get(panel.metric)
            if value is not None and (value > 0 or not log):
                at.setdefault(validation.step, []).append(value)
    steps = sorted(s for s, values in at.items() if 2 * len(values) > len(setting.records))
    if not steps:
        return
    means = [_mean_of(at[s], log) for s in steps]
    axes.plot(steps, means, color=look.colour, ls=look.line, lw=1.5, zorder=3)
    if len(setting.records) > 1:
        low, high = ([end(at[s]) for s in steps] for end in (min, max))
        axes.fill_between(steps, low, high, color=look.colour, alpha=0.15, lw=0, zorder=2)
    chosen = fmean(record.step for record in setting.records)
    near = min(range(len(steps)), key=lambda i: abs(steps[i] - chosen))
    axes.plot(steps[near], means[near], look.marker, color=look.colour, ms=4.5, zorder=4)


def _cost_line(axes: Axes, setting: Setting, look: looks.Look, panel: Panel) -> None:
    """Each seed's steps, and their mean over the validations that all seeds have."""
    assert panel.cost is not None
    curves: list[list[tuple[float, float]]] = []
    for record in setting.records:
        pairs = _best_so_far(record)
        found = [(panel.cost.of(now), best.metrics.get(panel.metric)) for now, best in pairs]
        curves.append([(x, y) for x, y in found if x and x > 0 and y is not None])
    curves = [curve for curve in curves if curve]
    stairs: Any = {"color": look.colour, "drawstyle": "steps-post"}
    for curve in curves if len(curves) > 1 else []:
        axes.plot(*zip(*curve, strict=True), lw=0.7, alpha=0.4, zorder=2, **stairs)
    log = panel.metric == PERPLEXITY
    middle = [
        (fmean(x for x, _ in at), _mean_of([y for _, y in at], log))
        for at in zip(*curves, strict=False)
    ]
    if middle:
        stairs |= {"ls": look.line, "lw": 1.5, "zorder": 3, "marker": look.marker, "ms": 3.2}
        axes.plot(*zip(*middle, strict=True), **stairs)


def _measure(comparison: Comparison) -> Measure:
    """What validations log of the task: not all of what a test knows."""
    return next((m for m in MEASURES if _logged(comparison, f"val/{m.name}")), comparison.measure)


def _metrics(comparison: Comparison) -> dict[str, str]:
    """What validations log of every task, with what stands at its axis."""
    measure = _measure(comparison)
    perplexity = "perplexity of the tokens (log scale)"
    return {f"val/{measure.name}": measure.axis("val"), PERPLEXITY: perplexity}


def _logged(comparison: Comparison, metric: str) -> bool:
    """Whether there is something to draw: where all prompts are tokens, all distances are 0."""
    return any(
        validation.metrics.get(metric)
        for setting in comparison.settings
        for record in setting.records
        for validation in record.history
    )


def _has_curve(setting: Setting) -> bool:
    return any(len(record.history) > 1 for record in setting.records)


def _learning(problem: Problem) -> bool:
    return any(map(_has_curve, problem.settings))


def _baselines(grid: list[list[Axes]], problems: Sequence[Problem], measure: Measure) -> None:
    """In the panels of performance, with the names inside: a panel's right edge is another's."""
    for row, problem in zip(grid, problems, strict=True):
        found = sorted(
            ((least + most) / 2, visible(name))
            for name, (least, most) in problem.baselines("val", measure.name).items()
        )
        for axes in row if found else []:
            if measure.label not in axes.get_ylabel():
                continue
            low, high = axes.get_ylim()
            low, high = min(low, found[0][0]), max(high, found[-1][0])
            axes.set_ylim(low - 0.04 * (high - low), high + 0.02 * (high - low))
            gap = 0.045 * (high - low)
            apart = spread([value + 0.6 * gap for value, _ in found], gap)
            frame = {"boxstyle": "square,pad=0.05", "fc": "white", "ec": "none", "alpha": 0.6}
            look: Any = {"ha": "right", "va": "center", "fontsize": 6.5, "color": looks.MUTED}
            look |= {"transform": axes.get_yaxis_transform(), "zorder": 5, "bbox": frame}
            for place, ((value, name), y) in enumerate(zip(found, apart, strict=True)):
                axes.axhline(
                    value, color=looks.MUTED, lw=0.9, ls=looks.BASELINE_LINES[place % 4], zorder=1
                )
                axes.text(0.99, y, shorten(name, 26), **look)


def _finish(figure: Figure, shown: Sequence[Setting], known: dict[str, looks.Look]) -> None:
    entries = {setting.label: looks.name_of(setting) for setting in shown}
    handles = []
    for label, name in entries.items():
        colour, marker, line = known[label]
        look: Any = {"color": colour, "ls": line, "lw": 1.6, "marker": marker, "ms": 4}
        handles.append(Line2D([], [], label=name, **look))
    width = figure.get_size_inches()[0]
    longest = max(len(name) for name in entries.values())
    columns = max(1, int(width / (0.075 * longest + 0.65)))
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, handlelength=3.2)


def _best_so_far(record: RunRecord) -> list[tuple[Validation, Validation]]:
    """Each validation, with the one up to it whose objective is the lowest; ties to the earlier."""
    pairs: list[tuple[Validation, Validation]] = []
    best: Validation | None = None
    for validation in record.history:
        value = validation.metrics.get("val/objective", math.inf)
        if best is None or value < best.metrics.get("val/objective", math.inf):
            best = validation
        pairs.append((validation, best))
    return pairs


def _mean_of(values: Sequence[float], log: bool) -> float:
    """The mean, geometric where the axis is logarithmic."""
    if min(values) == max(values):  # rounded, the axis would have two limits that are nearly one
        return values[0]
    return math.exp(fmean(math.log(max(v, 1e-300)) for v in values)) if log else fmean(values)
