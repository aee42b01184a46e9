"""A prompt's tokens from the top: how surprising each is, and what leaving it out changes."""

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from lightning_prompts.files.amounts import count
from lightning_prompts.files.escaping import visible
from lightning_prompts.files.text import shorten
from lightning_prompts.report.figures import looks
from lightning_prompts.report.figures.prompts import drawable
from lightning_prompts.runs.shading import spaced

MOST_TOKENS = 40
TOKEN = 16  # characters of one


def bars(
    tokens: Sequence[str], nats: Sequence[float], kl: Sequence[float], filler: float
) -> looks.Drawn:
    """Draw two bars for each token.

    Args:
        tokens: P of them, as text.
        nats: [P] Surprise of each.
        kl: [P] What leaving it out changes, in nats.
        filler: Nats below which a token counts as a filler; a line stands there.
    """
    shown = min(len(tokens), MOST_TOKENS)
    places = range(shown, 0, -1)
    with looks.style():
        figure = Figure(figsize=(7.2, 0.9 + 0.2 * shown))
        left, right = figure.subplots(1, 2, sharey=True)
        left.barh(places, nats[:shown], color=looks.BLUE, height=0.7)
        left.set_xlabel("surprise (nats)")
        right.barh(places, kl[:shown], color=looks.VERMILLION, height=0.7)
        right.axvline(filler, color=looks.MUTED, lw=1, ls=":")
        right.set_xlabel("change without it (KL, nats)")
        names = [drawable(shorten(spaced(visible(token)), TOKEN)) for token in tokens[:shown]]
        font: Any = {"family": "DejaVu Sans Mono", "fontsize": 7.5}
        left.set_yticks(list(places), names, **font)
        left.set_ylim(0.4, shown + 0.6)
        for axes in (left, right):
            axes.grid(axis="y", visible=False)
            axes.tick_params(axis="y", length=0)
        more = len(tokens) - shown
        caption = (
            "Left, how unlikely each token is after those before it; right, how far the answers "
            f"move where it is left out, mean over rows, with a dotted line at {filler:g} nats, "
            "below which a token is a filler. A dot in a token is a space."
            + (f" Not shown: the last {count(more, 'token')}." if more else "")
        )
        return looks.drawn(figure, "tokens", "The tokens", caption)
