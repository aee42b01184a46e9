"""How nearly prompts answer like the one that is looked at: a dot and its interval each."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lightning_prompts.files.amounts import count
from lightning_prompts.files.escaping import visible
from lightning_prompts.report.alike import RUN, WRITTEN, Alike
from lightning_prompts.report.figures import looks
from lightning_prompts.report.figures.prompts import drawable

MOST = 40
TEXT = 44  # characters of one
APART = 0.18  # of a row's height: raw above, recalibrated below


def dots(found: Sequence[Alike]) -> looks.Drawn:
    """Draw kappa and KL of each prompt, those that act most alike first.

    Args:
        found: At least one, with intervals.
    """
    shown = found[:MOST]
    with looks.style():
        figure = Figure(figsize=(8.2, 1.3 + 0.28 * len(shown)))
        left, right = figure.subplots(1, 2, sharey=True)
        for row, each in enumerate(shown):
            colour = looks.BLUE if each.kind == WRITTEN else looks.VERMILLION
            marker = "D" if each.kind == RUN else "o"
            for axes, measure, shift, face in (
                (left, "kappa", -APART, "white"),
                (left, "kappa_recalibrated", APART, colour),
                (right, "kl", 0.0, colour),
            ):
                if ends := (each.intervals or {}).get(measure):
                    axes.plot(ends, [row + shift] * 2, color=colour, lw=1.2)
                value = getattr(each, measure)
                axes.plot(value, row + shift, marker, ms=4.5, color=colour, markerfacecolor=face)
        left.axvline(0, color=looks.MUTED, lw=0.8)
        left.set_xlabel("kappa with the prompt's answers")
        right.set_xlabel("KL from the prompt's answers (nats)")
        right.set_xlim(left=0)
        names = [drawable(visible(each.shown(TEXT))) for each in shown]
        left.set_yticks(range(len(shown)), names, fontsize=7.5)
        left.set_ylim(len(shown) - 0.5, -0.5)
        for axes in (left, right):
            axes.grid(axis="y", visible=False)
            axes.tick_params(axis="y", length=0)
        figure.legend(
            handles=[
                Line2D([], [], label=label, ls="", marker="o", ms=4.5, color=colour, mfc=face)
                for label, colour, face in (
                    ("written", looks.BLUE, looks.BLUE),
                    ("nearest tokens, or a run's (diamond)", looks.VERMILLION, looks.VERMILLION),
                    ("raw", looks.MUTED, "white"),
                    ("recalibrated", looks.MUTED, looks.MUTED),
                )
            ],
            loc="outside upper left",
            ncols=4,
        )
        more = len(found) - len(shown)
        left_out = f" Not shown: {count(more, 'prompt')}, less alike." if more else ""
        caption = (
            "Cohen's kappa of the answers with those of the prompt in use, and the KL from its "
            "distribution over the answers, mean over rows, each with a 95 % bootstrap interval "
            f"over rows.{left_out}"
        )
        return looks.drawn(figure, "alike", "Prompts that act alike", caption)
