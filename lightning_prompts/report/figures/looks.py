"""How all figures look: colours that the colour-blind tell apart, axes with units, files.

Colours are those of Okabe and Ito. Nothing is told by colour alone: markers and lines differ too.
"""

import io
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from lightning_prompts.files.escaping import visible
from lightning_prompts.files.text import shorten
from lightning_prompts.report.comparison import Comparison, Problem, Setting

INK, MUTED, FAINT = "#222222", "#6b6b6b", "#e4e4e4"
BLUE, VERMILLION = "#0072B2", "#D55E00"
PALETTE = (BLUE, VERMILLION, "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D31")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p")
LINES: tuple[Any, ...] = (
    "-",
    (0, (5, 2)),
    (0, (1, 1.3)),
    (0, (6, 2, 1, 2)),
    (0, (3, 1, 1, 1, 1, 1)),
)
BASELINE_LINES: tuple[Any, ...] = ((0, (1, 2)), (0, (4, 2, 1, 2)), (0, (5, 3)), (0, (8, 3)))
STYLE: Any = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same figure everywhere
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.7,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "figure.constrained_layout.use": True,
    "text.parse_math": False,  # a `$` in a prompt is a dollar
    "svg.fonttype": "path",
    "svg.hashsalt": "lightning-prompts",  # the same figure is the same file
    "savefig.facecolor": "white",
}
DPI = 160


class Look(NamedTuple):
    """What tells a setting from the others."""

    colour: str | tuple[float, float, float]
    marker: str
    line: Any


@dataclass
class Drawn:
    """A finished figure.

    Args:
        name: Of its files.
        title: What it shows.
        caption: How to read it: units, n, spread.
        svg: As a file.
        png: The same in pixels.
    """

    name: str
    title: str
    caption: str
    svg: bytes
    png: bytes

    def save(self, folder: Path) -> None:
        """Write both files."""
        (folder / f"{self.name}.svg").write_bytes(self.svg)
        (folder / f"{self.name}.png").write_bytes(self.png)


def style() -> AbstractContextManager[None]:
    """Draw in it; matplotlib's own settings are as before afterwards."""
    return rc_context(STYLE)


def drawn(figure: Figure, name: str, title: str, caption: str) -> Drawn:
    """Render a figure; call it within `style`."""
    files = {}
    for kind, metadata in (("svg", {"Date": None, "Creator": None}), ("png", {"Software": None})):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, dpi=DPI, metadata=metadata)
        files[kind] = buffer.getvalue()
    return Drawn(name, title, caption, files["svg"], files["png"])


def by_label(comparison: Comparison, shades: bool = True) -> dict[str, Look]:
    """A look for each setting's label: its tuner gives the hue, its place there shade and line.

    Where there is one tuner only, each setting has a hue of its own.

    Args:
        comparison: Whose settings.
        shades: Whether a tuner's settings differ in shade, where nothing else tells them apart.
    """
    by_tuner: dict[str, list[str]] = {}
    for setting in comparison.settings:
        labels = by_tuner.setdefault(setting.tuner, [])
        if setting.label not in labels:
            labels.append(setting.label)
    found: dict[str, Look] = {}
    for i, labels in enumerate(by_tuner.values()):
        for j, label in enumerate(labels):
            place = j if len(by_tuner) == 1 else i
            shade = 0.45 * j / max(len(labels) - 1, 1) if shades and len(by_tuner) > 1 else 0.0
            colour = lighter(PALETTE[place % len(PALETTE)], shade)
            found[label] = Look(colour, MARKERS[place % len(MARKERS)], LINES[j % len(LINES)])
    return found


def foremost(comparison: Comparison, settings: Sequence[Setting], most: int) -> list[Setting]:
    """At most so many settings, the better ones of each tuner, in the order that they have."""
    if len(settings) <= most:
        return list(settings)
    places: dict[str, int] = {}
    order: list[tuple[int, int, Setting]] = []
    for setting in sorted(settings, key=lambda s: -comparison.mean(s)):
        place = places[setting.tuner] = places.get(setting.tuner, -1) + 1
        order.append((place, len(order), setting))
    chosen = {id(setting) for _, _, setting in sorted(order)[:most]}
    return [s for s in settings if id(s) in chosen]


def name_of(setting: Setting, length: int = 44) -> str:
    """A setting's label, as it can be drawn."""
    return shorten(visible(setting.label), length)


def entitle(axes: Axes, problem: Problem, length: int = 48, **kwargs: Any) -> None:
    """Write a problem's label over its panel, where it has one."""
    if problem.label:
        axes.set_title(shorten(visible(problem.label), length), **kwargs)


def setting_rows(axes: Axes, settings: Sequence[Setting]) -> range:
    """Give each setting a line with its name, from the top; their places on the y axis."""
    places = range(len(settings), 0, -1)
    axes.set_yticks(list(places), [name_of(setting) for setting in settings])
    axes.set_ylim(0.4, len(settings) + 0.6)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
    return places


def seeds_of(settings: Sequence[Setting]) -> str:
    """How many seeds each setting has, in words."""
    counts = sorted({len(s.records) for s in settings})
    if counts == [1]:
        return "one seed a setting"
    return f"n = {counts[0]}{f' to {counts[-1]}' if len(counts) > 1 else ''} seeds a setting"


def scored_on(comparison: Comparison, settings: Sequence[Setting]) -> str:
    """The first sentence of a caption."""
    measure = comparison.measure.label.capitalize()
    seeds = f"; {seeds_of(settings)}" if any(s.learned for s in settings) else ""
    return f"{measure} on {comparison.rows}{seeds}."


def over_rows(settings: Sequence[Setting]) -> str:
    """What intervals over rows are, to end a sentence with."""
    known = any(s.learned for s in settings)
    seeds = "; they do not tell what another seed would give" if known else ""
    return f"95 % Wilson intervals over the rows{seeds}."


def left_out(count: int) -> str:
    """A sentence on settings that a figure has no room for; empty where there are none."""
    if not count:
        return ""
    if count == 1:
        return " One setting is left out, the lowest of its tuner."
    return f" {count:,} settings are left out, of each tuner those that score lowest."


SUBS = {True: (1.0, 2.0, 5.0), False: (1.0,)}  # ticks of a decade, where there are few or many


def log_axis(axis: Axis) -> None:
    """A logarithmic axis whose ticks read as numbers."""
    axis._set_axes_scale("log")  # type: ignore[attr-defined]
    low, high = sorted(axis.get_view_interval())
    span = high / max(low, 1e-300)
    # Within half a decade powers of ten leave no tick, and matplotlib's own stand in its place.
    locator = MaxNLocator(4) if span < 5 else LogLocator(subs=SUBS[span < 100], numticks=9)
    axis.set_major_locator(locator)
    axis.set_major_formatter(FuncFormatter(lambda value, _: power(value)))
    axis.set_minor_formatter(NullFormatter())


def power(value: float) -> str:
    """A tick of a logarithmic axis.

    >>> [power(v) for v in (0.5, 20, 5000, 1e6, 2e6)]
    ['0.5', '20', '5,000', '10⁶', '2·10⁶']
    """
    if value < 1e5:
        return f"{value:,.0f}" if value >= 1 else f"{value:g}"
    digits, _, exponent = f"{value:.0e}".partition("e+")
    raised = str(int(exponent)).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"10{raised}" if digits == "1" else f"{digits}·10{raised}"


def lighter(colour: str, share: float) -> tuple[float, float, float]:
    """A colour with a share of white."""
    red, green, blue = (c + (1 - c) * share for c in to_rgb(colour))
    return red, green, blue
