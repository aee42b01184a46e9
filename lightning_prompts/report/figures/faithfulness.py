"""The faithfulness gap: what a prompt's vectors reach, and what the tokens nearest to them do."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import blended_transform_factory

from lightning_prompts.files.amounts import rounded
from lightning_prompts.files.stages import SPLIT_OF
from lightning_prompts.report.comparison import Comparison, Problem, Setting
from lightning_prompts.report.figures.looks import (
    BLUE,
    INK,
    MUTED,
    VERMILLION,
    Drawn,
    baseline_lines,
    drawn,
    foremost,
    left_out,
    name_of,
    seeds_of,
    style,
)
from lightning_prompts.report.statistics import Estimate, estimate, paired
from lightning_prompts.report.text import MINUS, shorten, visible

MOST = 14
# Metric, name, marker, colour, how far above its line: so that equal values are all seen.
VIEWS = {
    "vectors": ("the prompt's vectors", "o", BLUE, 0.0),
    "tokens": ("its tokens", "s", VERMILLION, 0.0),
    "text": ("its text, tokenized anew", "x", INK, -0.22),
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


def gap(setting: Setting, comparison: Comparison) -> str:
    """Tokens less vectors over the seeds, in words; empty where there are no vectors."""
    known = views(setting, comparison)
    if not {"vectors", "tokens"} <= known.keys():
        return ""
    pairs = zip(known["tokens"], known["vectors"], strict=True)
    some = [(a, b) for a, b in pairs if a is not None and b is not None]
    if not some:
        return ""
    mean = sum(a - b for a, b in some) / len(some)
    shown = signed(mean)
    if (test := paired(*zip(*some, strict=True))) is not None:
        return f"{shown} ± {test.high - test.mean:.3f}"
    return shown


def signed(value: float) -> str:
    """A difference of shares with its sign; what rounds to nothing has none."""
    shown = f"{value:+.3f}" if rounded(value) else f"{0:.3f}"
    return shown.replace("-", MINUS)


def faithfulness(comparison: Comparison, name: str) -> Drawn | None:
    """The figure, a panel a problem; None where no prompt has vectors."""
    # Those without vectors stand at the end, to compare with.
    shown = {
        id(p): sorted(
            foremost(comparison, p.settings, MOST),
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
    with style():
        figure = Figure(figsize=(7.4, 1.2 + sum(0.55 + 0.32 * n for n in lines)))
        grid = figure.subplots(
            len(problems), 1, squeeze=False, sharex=True, height_ratios=[n + 0.6 for n in lines]
        )
        for axes, problem in zip(grid[:, 0], problems, strict=True):
            _rows(axes, comparison, problem, shown[id(problem)])
        measure = comparison.measure
        grid[-1, 0].set_xlabel(f"{SPLIT_OF[comparison.split]} {measure.label} ({measure.unit})")
        handles = [
            Line2D([], [], ls="", marker=marker, color=colour, ms=6, label=label, mew=1.4)
            for label, marker, colour, _ in VIEWS.values()
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=3)
        figure.draw_without_rendering()
        for axes, problem in zip(grid[:, 0], problems, strict=True):
            baseline_lines(axes, problem.baselines(comparison.split, measure.name), vertical=True)
            if problem.label:
                axes.set_title(shorten(visible(problem.label), 70), pad=24)
        settings = [s for p in problems for s in shown[id(p)]]
        missing = sum(len(p.settings) for p in problems) - len(settings)
        caption = _caption(comparison, settings) + left_out(missing)
        return drawn(figure, name, "Faithfulness: vectors against their nearest tokens", caption)


def _rows(axes: Axes, comparison: Comparison, problem: Problem, settings: list[Setting]) -> None:
    places = range(len(settings), 0, -1)
    ends: list[float] = []
    for y, setting in zip(places, settings, strict=True):
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
                    axes.plot(
                        [found.low, found.high],
                        [y, y],
                        color=colour,
                        lw=4,
                        alpha=0.25,
                        solid_capstyle="butt",
                        zorder=2,
                    )
                if len(setting.records) > 1:
                    axes.plot(
                        seeds,
                        [y + 0.22] * len(seeds),
                        marker,
                        color=colour,
                        ms=2.6,
                        mew=0.6,
                        alpha=0.75,
                        zorder=3,
                        ls="",
                    )
            axes.plot(found.mean, y + shift, marker, color=colour, ms=6, mew=1.4, zorder=4)
            ends += seeds
        if {"vectors", "tokens"} <= means.keys():
            axes.plot([means["vectors"], means["tokens"]], [y, y], color=MUTED, lw=1.2, zorder=1.5)
        side = blended_transform_factory(axes.transAxes, axes.transData)
        axes.text(
            1.015,
            y,
            gap(setting, comparison) or "no vectors",
            transform=side,
            fontsize=7.5,
            color=INK if "vectors" in means else MUTED,
            va="center",
        )
    axes.text(
        1.015,
        len(settings) + 0.72,
        "tokens less vectors",
        transform=side,
        fontsize=7.5,
        color=MUTED,
        va="center",
    )
    ends += [
        v
        for pair in problem.baselines(comparison.split, comparison.measure.name).values()
        for v in pair
    ]
    low, high = axes.get_xlim() if axes.get_autoscalex_on() is False else (min(ends), max(ends))
    margin = 0.05 * (max(ends) - min(ends))
    axes.set_xlim(min(low, min(ends) - margin), max(high, max(ends) + margin))
    axes.set_yticks(list(places), [name_of(setting) for setting in settings])
    axes.set_ylim(0.4, len(settings) + 0.6)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
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
        else "Bars are 95 % Wilson intervals over the rows; they do not tell what another seed "
        "would give."
    )
    end = (
        " On the right the difference with its 95 % paired interval."
        if several
        else " On the right the difference."
    )
    return (
        f"{comparison.measure.label.capitalize()} on {comparison.rows}; {seeds_of(settings)}. "
        f"{what} Where the prompt in use is its tokens (PEZ), the vectors are its continuous "
        f"iterate.{end}"
    )
