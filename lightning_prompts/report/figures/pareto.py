"""The trade-off: how likely the tokens are against how well the prompt does the task."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lightning_prompts.files.escaping import visible
from lightning_prompts.files.text import shorten
from lightning_prompts.report.comparison import Comparison, Problem, Setting
from lightning_prompts.report.figures import looks
from lightning_prompts.report.figures.baseline_lines import baseline_lines
from lightning_prompts.report.figures.names import names
from lightning_prompts.report.statistics import Estimate, non_dominated

# More intervals or names than this hide each other: then only the front has them.
CROWD = 16
NAMED = 8


def front(comparison: Comparison, problem: Problem) -> list[Setting]:
    """Settings whose means no other setting of the problem beats in one and equals in the other."""
    placed = _placed(comparison, problem)
    points = [(x.mean, y.mean) for _, x, y in placed]
    return [placed[i][0] for i in non_dominated(points)]


def pareto(comparison: Comparison, name: str) -> looks.Drawn | None:
    """The figure, a panel a problem; None where no setting has both coordinates."""
    problems = [p for p in comparison.problems if _placed(comparison, p)]
    if not problems:
        return None
    columns = min(len(problems), 3)
    rows = -(-len(problems) // columns)
    with looks.style():
        figure = Figure(figsize=(6.6 if columns == 1 else 4.2 * columns, 0.5 + 4.1 * rows))
        grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
        for axes in grid.flat[len(problems) :]:
            axes.set_visible(False)
        known = looks.by_label(comparison, shades=False)  # names tell a tuner's settings apart
        for axes, problem in zip(grid.flat, problems, strict=False):
            _points(axes, comparison, problem, known)
        _limits(grid, comparison, problems)
        looks.log_axis(grid[0, 0].xaxis)
        measure = comparison.measure
        for axes in grid[:, 0]:
            axes.set_ylabel(measure.axis(comparison.split))
        for column in range(columns):
            bottom = [a for a in grid[:, column] if a.get_visible()][-1]
            bottom.xaxis.set_tick_params(labelbottom=True)
            more = "; lower is likelier text" if columns == 1 else ""
            bottom.set_xlabel(f"perplexity of the tokens (log scale{more})")
        settings = [s for p in problems for s in p.settings]
        figure.legend(
            handles=_legend(settings, known, crossed=any(s.vectors for s in _crossed(comparison))),
            loc="outside lower center",
            ncols=4,
            columnspacing=1.4,
            handletextpad=0.5,
        )
        figure.draw_without_rendering()  # fixes the axes, so that texts can be kept apart
        for axes, problem in zip(grid.flat, problems, strict=False):
            baseline_lines(axes, problem.baselines(comparison.split, measure.name))
            _names(axes, comparison, problem)
        return looks.drawn(
            figure, name, "Interpretability against performance", _caption(comparison)
        )


def _placed(comparison: Comparison, problem: Problem) -> list[tuple[Setting, Estimate, Estimate]]:
    found = []
    for setting in problem.settings:
        x, y = setting.perplexity(comparison.split), comparison.score(setting)
        if x is not None and y is not None:
            found.append((setting, x, y))
    return found


def _points(
    axes: Axes, comparison: Comparison, problem: Problem, known: dict[str, looks.Look]
) -> None:
    placed = _placed(comparison, problem)
    best = {id(s) for s in front(comparison, problem)}
    joined = sorted((x.mean, y.mean) for s, x, y in placed if id(s) in best)
    axes.plot(*zip(*joined, strict=True), color=looks.INK, lw=1.1, alpha=0.75, zorder=2)
    crowded = len(placed) > CROWD
    for setting, x, y in placed:
        look, on_front = known[setting.label], id(setting) in best
        fill = "white" if setting.vectors else look.colour
        if len(setting.records) > 1:
            own = setting.values(f"{comparison.split}/{comparison.measure.name}")
            seeds = zip(setting.perplexities(comparison.split), own, strict=True)
            some = [(a, b) for a, b in seeds if a is not None and b is not None]
            small: Any = {"ms": 3.8, "mfc": "none", "mew": 0.8, "alpha": 0.9, "zorder": 3}
            axes.plot(*zip(*some, strict=True), look.marker, mec=look.colour, **small)
        if setting.vectors and not crowded:
            tokens = setting.estimate(f"hard_{comparison.measure.name}", comparison.split)
            if tokens is not None:
                line: Any = {"lw": 0.9, "ls": (0, (1, 2)), "zorder": 1.5}
                axes.plot([x.mean, x.mean], [y.mean, tokens.mean], color=look.colour, **line)
                cross: Any = {"marker": "x", "ms": 5.5, "mew": 1.4, "zorder": 3}
                axes.plot(x.mean, tokens.mean, color=look.colour, **cross)
        if not crowded or on_front:
            _interval(axes, x, y, look)
        size = 7.5 if not crowded else 6.5 if on_front else 4
        own_look: Any = {"ms": size, "mfc": fill, "mec": look.colour, "mew": 1.4, "zorder": 4}
        strength = 1 if on_front or not crowded else 0.45
        axes.plot(x.mean, y.mean, look.marker, alpha=strength, **own_look)
    looks.entitle(axes, problem)


def _interval(axes: Axes, x: Estimate, y: Estimate, look: looks.Look) -> None:
    for ends, across in ((x, False), (y, True)):
        if ends.low is not None and ends.high is not None:
            along, fixed = [ends.low, ends.high], [x.mean if across else y.mean] * 2
            first, second = (fixed, along) if across else (along, fixed)
            bar: Any = {"alpha": 0.8, "zorder": 2.5, "solid_capstyle": "butt"}
            width = 1.2 if ends.over == "seeds" else 0.8
            axes.plot(first, second, color=look.colour, lw=width, **bar)


def _limits(grid: Any, comparison: Comparison, problems: Sequence[Problem]) -> None:
    """Of points, baselines and intervals over rows: those of two seeds may be endless."""
    split, measure = comparison.split, comparison.measure
    metrics = (measure.name, f"hard_{measure.name}")
    records = [record for problem in problems for record in problem.records]
    ys = [
        r.metrics[f"{split}/{m}"] for r in records for m in metrics if f"{split}/{m}" in r.metrics
    ]
    for problem in problems:
        ys += [v for ends in problem.baselines(split, measure.name).values() for v in ends]
    placed = [y for problem in problems for _, _, y in _placed(comparison, problem)]
    ends = [end for y in placed if y.over == "rows" for end in (y.low, y.high)]
    ys += [end for end in ends if end is not None]
    xs = [v for p in problems for s in p.settings for v in s.perplexities(split) if v]
    margin = max(0.08 * (max(ys) - min(ys)), 0.02 * measure.top)
    grid[0, 0].set_ylim(min(ys) - margin, min(max(ys) + margin, measure.top * 1.01))
    stretch = max((max(xs) / min(xs)) ** 0.12, 1.5)
    grid[0, 0].set_xlim(min(xs) / stretch, max(xs) * stretch)


def _names(axes: Axes, comparison: Comparison, problem: Problem) -> None:
    """Beside each mean what tells it from the others of its tuner."""
    placed = _placed(comparison, problem)
    chosen = placed
    if len(placed) > CROWD:
        best = {id(s) for s in front(comparison, problem)}
        chosen = [entry for entry in placed if id(entry[0]) in best][:NAMED]
    texts = [
        (shorten(visible(own), 34), (x.mean, y.mean))
        for setting, x, y in chosen
        if (own := setting.label.partition(", ")[2])
    ]
    names(axes, [(x.mean, y.mean) for _, x, y in placed], texts)


def _legend(
    settings: Sequence[Setting], known: dict[str, looks.Look], crossed: bool
) -> list[Line2D]:
    """One entry a tuner; a setting each where there is one tuner and few settings."""
    entries: dict[str, tuple[looks.Look, bool]] = {}
    single = len({s.tuner for s in settings}) == 1 and len({s.label for s in settings}) <= 8
    for setting in settings:
        name = looks.name_of(setting) if single else setting.tuner
        entries.setdefault(name, (known[setting.label], setting.vectors))
    handles = []
    for name, (look, vectors) in entries.items():
        fill = "white" if vectors else look.colour
        point: Any = {"ls": "", "marker": look.marker, "ms": 7, "mec": look.colour, "mew": 1.4}
        handles.append(Line2D([], [], mfc=fill, label=name, **point))
    if crossed:
        cross: Any = {"ls": "", "marker": "x", "ms": 6, "mew": 1.4, "color": looks.MUTED}
        handles.append(Line2D([], [], label="its nearest tokens", **cross))
    handles.append(Line2D([], [], color=looks.INK, lw=1.1, label="Pareto front"))
    return handles


def _crossed(comparison: Comparison) -> list[Setting]:
    """Settings beside which there is room for what their nearest tokens reach."""
    return [
        setting
        for problem in comparison.problems
        if len(placed := _placed(comparison, problem)) <= CROWD
        for setting, _, _ in placed
    ]


def _caption(comparison: Comparison) -> str:
    placed = [entry for p in comparison.problems for entry in _placed(comparison, p)]
    settings = [s for s, _, _ in placed]
    over = {y.over for _, _, y in placed}
    parts = [looks.scored_on(comparison, settings)]
    if "seeds" in over:
        parts.append(
            "Large markers are means over seeds (perplexity: geometric), small ones the seeds; "
            "bars are 95 % t intervals of the mean, cut off at the frame."
        )
    if "rows" in over:
        parts.append(
            f"Thin bars, where one seed was run or all agree, are {looks.over_rows(settings)}"
        )
    if any(len(_placed(comparison, p)) > CROWD for p in comparison.problems):
        parts.append(
            f"Where a panel has more than {CROWD} settings, only those of the front have bars and "
            "names."
        )
    if any(s.vectors for s in settings):
        crossed = any(s.vectors for s in _crossed(comparison))
        parts.append(
            "Hollow: vectors are the prompt in use, placed at the perplexity of their nearest "
            f"tokens{'; the cross is what those tokens reach' if crossed else ''}."
        )
    parts.append(
        "The line joins the means that no other mean beats in one direction and equals or beats in "
        "the other."
    )
    return " ".join(parts)
