"""The prompts themselves: each token shaded by its surprise and by its distance."""

from functools import cache
from typing import Any, NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.patches import Rectangle

from lightning_prompts.files.amounts import count
from lightning_prompts.files.escaping import visible
from lightning_prompts.report.comparison import Comparison, Setting, perplexity
from lightning_prompts.report.figures import looks
from lightning_prompts.runs.record import RunRecord
from lightning_prompts.runs.shading import Scale, scales, spaced
from lightning_prompts.tuners.record import PromptRecord

MOST = 10
MOST_TOKENS = 40
FONT = "DejaVu Sans Mono"
# In inches.
WIDTH, MARGIN, LINE, STRIP, TITLE, APART = 7.4, 0.1, 0.21, 0.15, 0.2, 0.16
NARROW, KEY = 4.2, 0.22  # of a prompt by itself
SIZE = 8.0
CHARACTER = 0.602 * SIZE / 72  # of the font's size, the width of each of its characters
LEAST = 0.31  # holds a number


class Box(NamedTuple):
    """One token's place."""

    x: float
    line: int
    width: float
    text: str
    nats: float | None
    distance: float | None


def chosen(setting: Setting, comparison: Comparison) -> RunRecord:
    """The seed whose prompt stands for a setting: the one with the lowest objective."""
    return min(
        setting.records, key=lambda r: (r.metrics.get("val/objective", float("inf")), r.seed)
    )


def prompts(comparison: Comparison, name: str) -> looks.Drawn | None:
    """The best prompt of each setting; None where no token was measured."""
    settings = looks.foremost(comparison, comparison.settings, MOST)
    records = [chosen(setting, comparison) for setting in settings]
    shown = [
        (s, r) for s, r in zip(settings, records, strict=True) if r.token_nats or r.token_distances
    ]
    if not shown:
        return None
    surprise, distance = scales([r for _, r in shown])
    blocks = [(setting, record, boxes(record)) for setting, record in shown]
    heights = [_height(record, placed) for _, record, placed in blocks]
    with looks.style(), matplotlib.rc_context({"figure.constrained_layout.use": False}):
        figure, axes = _page(sum(heights))
        top = axes.get_ylim()[1] - 0.05
        for (setting, record, placed), taken in zip(blocks, heights, strict=True):
            title, beside = _titles(comparison, setting, record)
            _block(axes, record, placed, top, (surprise, distance), title, beside)
            top -= taken
        far = any(record.token_distances for _, record in shown)
        for i, scale in enumerate([surprise] + [distance] * far):
            _key(axes, MARGIN + i * 3.6, scale)
        caption = _caption(len(comparison.settings) - len(shown), far)
        return looks.drawn(figure, name, "The prompts", caption)


def one_prompt(record: PromptRecord) -> Figure:
    """One prompt by itself, on scales of its own; draw it within `looks.style`."""
    placed, known = boxes(record, NARROW), scales([record])
    with matplotlib.rc_context({"figure.constrained_layout.use": False}):
        figure, axes = _page(_height(record, placed) + KEY, NARROW)
        top, title = axes.get_ylim()[1] - 0.05, f"Step {record.step:,}"
        _block(axes, record, placed, top, known, title, _kind(record))
        measured = (record.token_nats, record.token_distances)
        for i, scale in enumerate(s for s, of in zip(known, measured, strict=True) if of):
            _key(axes, MARGIN, scale, KEY * (1 - i))
    return figure


def boxes(record: PromptRecord, within: float = WIDTH) -> list[Box]:
    """Tokens from left to right, broken into lines of a width."""
    tokens = list(record.tokens[:MOST_TOKENS])
    nats, far = record.token_nats or [], record.token_distances or []
    placed: list[Box] = []
    x, line = MARGIN, 0
    for i, token in enumerate(tokens):
        text = drawable(spaced(visible(token)))
        width = max(CHARACTER * len(text) + 0.07, LEAST)
        if x + width > within - MARGIN and x > MARGIN:
            x, line = MARGIN, line + 1
        of_token = (values[i] if i < len(values) else None for values in (nats, far))
        placed.append(Box(x, line, width, text, *of_token))
        x += width + 0.025
    more = len(record.tokens) - len(tokens)
    if more:
        text = f"… {more} more"
        width = CHARACTER * len(text) + 0.07
        if x + width > within - MARGIN:
            x, line = MARGIN, line + 1
        placed.append(Box(x, line, width, text, None, None))
    return placed


def drawable(text: str) -> str:
    """The text with escapes for what the font cannot draw."""
    known = _characters()
    return "".join(c if ord(c) in known else c.encode("unicode_escape").decode() for c in text)


@cache
def _characters() -> frozenset[int]:
    return frozenset(get_font(findfont(FontProperties(family=FONT))).get_charmap())


def _line_height(record: PromptRecord) -> float:
    return LINE + STRIP * (bool(record.token_nats) + bool(record.token_distances)) + 0.05


def _height(record: PromptRecord, placed: list[Box]) -> float:
    """Of a title and the lines below it."""
    return TITLE + _line_height(record) * (placed[-1].line + 1) + APART


def _page(height: float, width: float = WIDTH) -> tuple[Figure, Axes]:
    """An empty page, in inches, with room for a line of keys at its foot."""
    height += 0.45
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(0, height))
    axes.axis("off")
    return figure, axes


def _titles(comparison: Comparison, setting: Setting, record: RunRecord) -> tuple[str, str]:
    """What stands above a setting's prompt, on the left and on the right."""
    measure, split = comparison.measure, comparison.split
    score = record.metrics.get(f"{split}/{measure.name}")
    likely = perplexity(record, split)
    numbers = f"{measure.label} {measure.shown(score)}"
    numbers += f", perplexity {likely:,.0f}" if likely is not None else ""
    title = f"{looks.name_of(setting, 60)}, seed {record.seed}"
    return title, f"{numbers}; {_kind(record)}"


def _kind(record: PromptRecord) -> str:
    return "nearest tokens of its vectors" if record.soft_in_use else "tokens in use"


def _block(
    axes: Axes,
    record: PromptRecord,
    placed: list[Box],
    top: float,
    known: tuple[Scale, Scale],
    title: str,
    beside: str,
) -> None:
    """A prompt's tokens, shaded, below its titles."""
    axes.text(MARGIN, top, title, fontsize=8.5, fontweight="bold", color=looks.INK, va="top")
    right: Any = {"fontsize": 7.5, "color": looks.MUTED, "va": "top", "ha": "right"}
    axes.text(axes.get_xlim()[1] - MARGIN, top, beside, **right)
    middle: Any = {"ha": "center", "va": "center_baseline"}
    # As artists, where patches would each take time to widen limits that are set.
    for box in placed:
        low = top - TITLE - _line_height(record) * box.line - LINE
        surprise, distance = known
        colour = "#ffffff" if box.nats is None else surprise.shade(box.nats)
        if box.nats is None and box.distance is not None:
            colour = distance.shade(box.distance)
        centre = box.x + box.width / 2
        axes.add_artist(Rectangle((box.x, low), box.width, LINE, fc=colour, ec="#bbbbbb", lw=0.5))
        font: Any = {"family": FONT, "fontsize": SIZE, "color": "black"}
        axes.text(centre, low + LINE / 2, box.text, **font, **middle)
        for scale, value in ((surprise, box.nats), (distance, box.distance)):
            if value is not None:
                low -= STRIP
                face = scale.shade(value) if scale is distance else "white"
                edge: Any = {"ec": "#dddddd", "lw": 0.4}
                axes.add_artist(Rectangle((box.x, low), box.width, STRIP, fc=face, **edge))
                number = f"{value:.1f}" if scale is surprise else f"{value:.2f}"
                axes.text(centre, low + STRIP / 2, number, fontsize=6, color=looks.INK, **middle)


def _key(axes: Axes, x: float, scale: Scale, low: float = 0.0) -> None:
    """A scale's shades, from none to the most."""
    y = low + 0.2
    axes.text(x, y, f"{scale.label} ({scale.unit})", fontsize=7.5, color=looks.INK, va="center")
    left, steps, width = x + 1.15, 24, 1.5
    for i in range(steps):
        shade = scale.shade(scale.top * i / (steps - 1))
        place = (left + i * width / steps, y - 0.07)
        axes.add_artist(Rectangle(place, width / steps, 0.14, fc=shade, ec="none"))
    end: Any = {"fontsize": 7, "color": looks.MUTED, "va": "center"}
    axes.text(left - 0.05, y, "0", ha="right", **end)
    axes.text(left + width + 0.05, y, f"{scale.top:.3g}", **end)


def _caption(left_out: int, far: bool) -> str:
    out = f" Not shown: {count(left_out, 'setting')}." if left_out > 0 else ""
    orange = "; the orange number is the cosine distance of its vector to it" if far else ""
    return (
        "Of each setting the seed with the lowest validation objective. A token's shade and the "
        f"number below it are its surprise under the task's model, in nats{orange}. A dot is a "
        f"space; characters that the font lacks are escaped.{out}"
    )
