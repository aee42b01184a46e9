"""The faithfulness gap: what a prompt's vectors reach, and what the tokens nearest to them do."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import blended_transform_factory

from lightning_prompts.report.comparison import Comparison, Problem, Setting
from lightning_prompts.report.figures import looks
from lightning_prompts.report.figures.baseline_lines import baseline_lines
from lightning_prompts.report.statistics import Estimate, estimate, paired
from lightning_prompts.report.text import signed

MOST = 14
# Metric, name, marker, colour, how far above its line: so that equal values are all seen.
VIEWS = {
    "vectors": ("the prompt's vectors", "o", looks.BLUE, 0.0),
    "tokens": ("its tokens", "s", looks.VERMILLION, 0.0),
    "text": ("its text, tokenized anew", "x", looks.INK, -0.22),
}


def views(setting: Setting, comparison: Comparison) -> dict[str, list[float | None]]:
    """What each view of a setting's prompts reaches, of each seed; views that exist only."""
    name, split = comparison.measure.name, comparison.split
    metrics = {
        "vectors": name if setting.vectors else f"soft_{name}",
        "tokens": f"hard_{name}" if setting.vectors else name,
        "text": f"round_trip_{name}",
    }
    found = {view: setting.values(f"{split}/{metric}") for view, metric in metrics.items()}
    return {view: values for view, values in found.items() if any(v is not None for v in values)}


def both_views(setting: Setting, comparison: Comparison) -> list[tuple[float, float]]:
    """What vectors and tokens reach, of the seeds of which both are known."""
    known = views(setting, comparison)
    pairs = zip(known.get("vectors", ()), known.get("tokens", ()), strict=False)
    return [(a, b) for a, b in pairs if a is not None and b is not None]


def gap(setting: Setting, comparison: Comparison) -> str:
    """Tokens less vectors over the seeds, in words; empty where there are no vectors."""
    if not (both := both_views(setting, comparison)):
        return ""
    vectors, tokens = zip(*both, strict=True)
    shown = signed(sum(b - a for a, b in both) / len(both))
    if (test := paired(tokens, vectors)) is not None:
        return f"{shown} ± {test.high - test.mean:.3f}"
    return shown


def faithfulness(comparison: Comparison, name: str) -> looks.Drawn | None:
    """The figure, a panel a problem; None where no prompt has vectors."""
    # Those without vectors stand at the end, to compare with.
    shown = {
        id(p): sorted(
            looks.foremost(comparison, p.settings, MOST),
            key=lambda s: "vectors" not in views(s, comparison),
        )
        for p in comparison.problems
    }
    problems = [
        p
        for p in comparison.problems
        if any("vectors" in views(s, comparison) for s in shown[id(p)])
    ]
    if not problems:
        return None
    lines = [len(shown[id(p)]) for p in problems]
    with looks.style():
        figure = Figure(figsize=(7.4, 1.2 + sum(0.55 + 0.32 * n for n in lines)))
        grid = figure.subplots(
            len(problems), 1, squeeze=False, sharex=True, height_ratios=[n + 0.6 for n in lines]
        )
        for axes, problem in zip(grid[:, 0], problems, strict=True):
            _rows(axes, comparison, problem, shown[id(problem)])
        measure = comparison.measure
        grid[-1, 0].set_xlabel(measure.axis(comparison.split))
        handles = [
            Line2D([], [], ls="", marker=marker, color=colour, ms=6, label=label, mew=1.4)
            for label, marker, colour, _ in VIEWS.values()
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=3)
        figure.draw_without_rendering()
        for axes, problem in zip(grid[:, 0], problems, strict=True):
            baseline_lines(axes, problem.baselines(comparison.split, measure.name), vertical=True)
            looks.entitle(axes, problem, 70, pad=24)
        settings = [s for p in problems for s in shown[id(p)]]
        missing = sum(len(p.settings) for p in problems) - len(settings)
        caption = _caption(comparison, settings) + looks.left_out(missing)
        return looks.drawn(
            figure, name, "Faithfulness: vectors against their nearest tokens", caption
        )


def _rows(axes: Axes, comparison: Comparison, problem: Problem, settings: list[Setting]) -> None:
    ends: list[float] = []
    side = blended_transform_factory(axes.transAxes, axes.transData)
    beside: Any = {"transform": side, "fontsize": 7.5, "va": "center"}
    for y, setting in zip(looks.setting_rows(axes, settings), settings, strict=True):
        known = views(setting, comparison)
        means: dict[str, float] = {}
        for view, values in known.items():
            _, marker, colour, shift = VIEWS[view]
            found = _estimate(setting, comparison, values)
            if found is None:
                continue
            means[view] = found.mean
            seeds = [value for value in values if value is not None]
            if view != "text":
                if found.low is not None and found.high is not None:
                    bar: Any = {"lw": 4, "alpha": 0.25, "solid_capstyle": "butt", "zorder": 2}
                    axes.plot([found.low, found.high], [y, y], color=colour, **bar)
                if len(setting.records) > 1:
                    small: Any = {"ms": 2.6, "mew": 0.6, "alpha": 0.75, "zorder": 3, "ls": ""}
                    axes.plot(seeds, [y + 0.22] * len(seeds), marker, color=colour, **small)
            axes.plot(found.mean, y + shift, marker, color=colour, ms=6, mew=1.4, zorder=4)
            ends += seeds
        if {"vectors", "tokens"} <= means.keys():
            axes.plot(
                [means["vectors"], means["tokens"]], [y, y], color=looks.MUTED, lw=1.2, zorder=1.5
            )
        shown = gap(setting, comparison) or "no vectors"
        axes.text(1.015, y, shown, color=looks.INK if "vectors" in means else looks.MUTED, **beside)
    axes.text(1.015, len(settings) + 0.72, "tokens less vectors", color=looks.MUTED, **beside)
    known_ends = problem.baselines(comparison.split, comparison.measure.name).values()
    ends += [value for pair in known_ends for value in pair]
    low, high = axes.get_xlim() if axes.get_autoscalex_on() is False else (min(ends), max(ends))
    # All may be equal, and an axis needs a width.
    margin = 0.05 * (max(ends) - min(ends)) or 0.05 * comparison.measure.top
    axes.set_xlim(min(low, min(ends) - margin), max(high, max(ends) + margin))
    axes.spines["left"].set_visible(False)


def _estimate(
    setting: Setting, comparison: Comparison, values: list[float | None]
) -> Estimate | None:
    rows = setting.rows(comparison.split) if comparison.measure.share else None
    return estimate(values, rows)


def _caption(comparison: Comparison, settings: list[Setting]) -> str:
    several = any(len(s.records) > 1 for s in settings)
    what = (
        "Markers are means over seeds, small ones the seeds; bars are 95 % t intervals over seeds, "
        "or Wilson intervals over the rows where seeds agree or there is one."
        if several
        else f"Bars are {looks.over_rows(settings)}"
    )
    with_interval = " with its 95 % paired interval" if several else ""
    return (
        f"{looks.scored_on(comparison, settings)} {what} Where the prompt in use is its tokens "
        "(PEZ), the vectors are its continuous iterate. On the right the difference"
        f"{with_interval}."
    )
