"""Draws docs/figures/data_path.svg, the path from a row to a loss: `python docs/data_path.py`."""

import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent))

from lightning_prompts.report.figures import looks  # noqa: E402 - from the folder above

FIGURE = DOCS / "figures" / "data_path.svg"
WIDTH, HEIGHT = 600, 960  # in hundredths of an inch, which all places below are in
LEFT, LANE, RIGHT = 210, 223, 236  # the prompt's column ends, a lane for lines, the row's begins
# Cards are opaque, and what stands between them is of a middle tone: the page may be light or dark.
BETWEEN, DEPTH, CELL = "#808080", 4, 37

MEASURED = {
    "prompt in use": "accuracy",
    "nearest tokens": "hard_accuracy",
    "pasted text": "round_trip_accuracy",
    "vectors against tokens": "output_differential",
    "tokens, as language": "perplexity",
}


class Hue(NamedTuple):
    """Colours of what belongs together."""

    fill: Any
    edge: str


def _hue(edge: str) -> Hue:
    return Hue(looks.lighter(edge, 0.84), edge)


PROMPT, ROW, MODEL, ANSWER = map(_hue, (looks.VERMILLION, looks.BLUE, "#5a5a5a", "#009E73"))


def svg() -> bytes:
    """The figure as a file."""
    with looks.style():
        figure = Figure(figsize=(WIDTH / 100, HEIGHT / 100), layout="none")
        axes = figure.add_axes((0, 0, 1, 1), xlim=(-2, WIDTH + 2), ylim=(HEIGHT + 2, -2))
        axes.set_axis_off()
        _row(axes)
        _prompt(axes)
        _answer(axes)
        buffer = io.BytesIO()
        metadata = {"Date": None, "Creator": None, "Title": "From a row to a loss, with shapes"}
        figure.savefig(buffer, format="svg", transparent=True, metadata=metadata)
    return buffer.getvalue()


def _row(axes: Axes) -> None:
    """From the table to embeddings: the row's column, above the model."""
    tokens = ("A", "fun", "film", ".", "It", "was")
    start = WIDTH - 14 - CELL * len(tokens)
    _card(axes, (RIGHT, 0, WIDTH, 74), ROW, "row of a table")
    _say(axes, RIGHT + 14, 52, "text:  A fun film.")
    _say(axes, WIDTH - 14, 52, "label:  positive", ha="right")
    _arrow(axes, (475, 74), (475, 100))
    _card(axes, (RIGHT, 100, WIDTH, 174), ROW, "template")
    _say(axes, RIGHT + 14, 152, "{prompt} {text} It was", family="DejaVu Sans Mono")
    _arrow(axes, (475, 174), (475, 200))
    _card(axes, (RIGHT, 200, WIDTH, 286), ROW, "token ids of the text", "[T]")
    _cells(axes, start, 241, ROW, tokens)
    _arrow(axes, (475, 286), (475, 324))
    _aside(axes, 463, 303, "rows of the table [V, H]", ha="right")
    _card(axes, (RIGHT, 324, WIDTH, 484), ROW, "what the model reads", "[P + T, H]")
    _columns(axes, start, 362, ROW, len(tokens))
    _columns(axes, start - 3 * CELL - 6, 362, PROMPT, 3)
    _say(axes, start - 1.5 * CELL - 8, 467, "prompt in use", size=11.5, ha="center")
    _say(axes, start + 3 * CELL - 2, 467, "embeddings of the text", size=11.5, ha="center")


def _prompt(axes: Axes) -> None:
    """The prompt's views, and what is measured of each."""
    middle, start = LEFT / 2, LEFT / 2 - 1.5 * CELL
    _card(axes, (0, 0, LEFT, 138), PROMPT, "soft prompt", "[P, H]")
    _columns(axes, start + 2, 40, PROMPT, 3)
    _arrow(axes, (middle, 138), (middle, 200))
    _aside(axes, middle + 9, 159, "projection:")
    _aside(axes, middle + 9, 178, "the nearest")
    _card(axes, (0, 200, LEFT, 286), PROMPT, "hard prompt", "[P]")
    _cells(axes, start, 241, PROMPT, ("so", "it", "!"))
    _arrow(axes, (middle, 286), (middle, 324))
    _aside(axes, middle + 9, 303, "decoded")
    _card(axes, (0, 324, LEFT, 398), PROMPT, "pasted text")
    _say(axes, middle, 376, '" so it!"', ha="center", family="DejaVu Sans Mono")

    # What is in use: the vectors, or rows of the tokens; and what comes back to it.
    line: dict[str, Any] = {"color": looks.VERMILLION, "lw": 1.8, "solid_joinstyle": "round"}
    axes.plot([LEFT, LANE, LANE], [70, 70, 412], **line)
    axes.plot([LEFT, LANE], [256, 256], **line)
    _arrow(axes, (LANE, 412), (RIGHT + 1, 412), looks.VERMILLION)
    axes.plot([RIGHT, LANE, LANE], [910, 910, 440], **line, ls=(0, (3, 2)))
    _arrow(axes, (LANE, 440), (LANE, 418), looks.VERMILLION)
    _aside(axes, LEFT - 4, 902, "gradient, to the", ha="right")
    _aside(axes, LEFT - 4, 921, "prompt alone", ha="right")

    _card(axes, (0, 422, LEFT, 524), PROMPT, "in use", "[P, H]")
    told = ("soft, bounded: vectors", "all others: rows of", "their tokens")
    for i, text in enumerate(told):
        _say(axes, 14, 466 + 20 * i, text, size=11.5)
    _card(axes, (0, 548, LEFT, 878), MODEL, "measured, val/...")
    for i, (what, key) in enumerate(MEASURED.items()):
        y = 594 + 58 * i
        _say(axes, 14, y, what, size=11.5)
        _say(axes, 14, y + 22, key, size=11, family="DejaVu Sans Mono")


def _answer(axes: Axes) -> None:
    """From the frozen model to the loss."""
    last, middle = WIDTH - 14 - CELL / 2, (RIGHT + WIDTH) / 2
    _arrow(axes, (middle, 484), (middle, 510))
    _card(axes, (RIGHT, 510, WIDTH, 584), MODEL, "frozen language model")
    _say(axes, RIGHT + 14, 562, "no weight of it changes")
    _arrow(axes, (last, 584), (last, 622))
    _aside(axes, last - 12, 602, "hidden state of the last token [H]", ha="right")
    _card(axes, (RIGHT, 622, WIDTH, 734), MODEL, "logits of the next token", "[V]")
    for i in range(42):
        height = {11: 30, 29: 56}.get(i, 10 + (7 * i * i + 3 * i) % 11 * 3.6)
        fill = ANSWER.edge if i in (11, 29) else "#b4b4b8"
        axes.add_patch(
            Rectangle((RIGHT + 15 + i * 8, 722 - height), 5.6, height, fc=fill, ec="none")
        )
    _arrow(axes, (middle, 734), (middle, 760))
    _card(axes, (RIGHT, 760, WIDTH, 834), ANSWER, "scores of the answers", "[C]")
    _say(axes, RIGHT + 14, 812, "terrible  \u22122.1")
    _say(axes, WIDTH - 14, 812, "great  0.4", ha="right", weight="bold")
    _card(axes, (RIGHT, 860, middle - 6, HEIGHT), ANSWER, "loss")
    _card(axes, (middle + 6, 860, WIDTH, HEIGHT), ANSWER, "accuracy")
    ends = (
        (RIGHT, "cross-entropy", "against the label"),
        (middle + 6, "is the largest", "the label's?"),
    )
    for left, above, below in ends:
        _arrow(axes, (left + (middle - 6 - RIGHT) / 2, 834), (left + (middle - 6 - RIGHT) / 2, 860))
        _say(axes, left + 14, 910, above, size=11.5)
        _say(axes, left + 14, 933, below, size=11.5)


def _aside(axes: Axes, x: float, y: float, text: str, **look: Any) -> None:
    """What stands between cards, on the page itself."""
    _say(axes, x, y, text, size=11.5, color=BETWEEN, **look)


def _card(
    axes: Axes, box: tuple[float, float, float, float], hue: Hue, title: str, shape: str = ""
) -> None:
    """A box with a title, and a shape at the right; `box` is left, top, right, bottom."""
    left, top, right, bottom = box
    form = "round,pad=0,rounding_size=9"
    patch = FancyBboxPatch((left, top), right - left, bottom - top, form, fc=hue.fill, ec=hue.edge)
    axes.add_patch(patch)
    _say(axes, left + 14, top + 22, title, weight="bold", color=hue.edge)
    _say(axes, right - 14, top + 22, shape, weight="bold", ha="right")


def _say(axes: Axes, x: float, y: float, text: str, size: float = 13, **look: Any) -> None:
    look = {"color": looks.INK, "va": "center_baseline", **look}
    axes.text(x, y, text, size=size, **look)


def _cells(axes: Axes, x: float, y: float, hue: Hue, names: Sequence[str]) -> None:
    """One number each, with the token that it stands for."""
    for i, name in enumerate(names):
        box = Rectangle((x + i * CELL, y), CELL, 30, fc="white", ec=hue.edge, lw=0.9)
        axes.add_patch(box)
        _say(axes, x + (i + 0.5) * CELL, y + 15.5, name, size=12, ha="center")


def _columns(axes: Axes, x: float, y: float, hue: Hue, count: int) -> None:
    """So many vectors; shades stand for their numbers."""
    for i in range(count):
        for j in range(DEPTH):
            shade = looks.lighter(hue.edge, 0.2 + 0.15 * ((3 * i + 2 * j + i * j) % 5))
            corner = (x + i * CELL, y + j * 22)
            axes.add_patch(Rectangle(corner, CELL - 4, 22, fc=shade, ec="white", lw=0.8))


def _arrow(
    axes: Axes, start: tuple[float, float], end: tuple[float, float], color: str = BETWEEN
) -> None:
    look = {"arrowstyle": "-|>,head_width=0.3,head_length=0.55", "color": color, "lw": 1.8}
    axes.annotate("", end, start, arrowprops={**look, "shrinkA": 0, "shrinkB": 0})


if __name__ == "__main__":
    FIGURE.write_bytes(svg())
