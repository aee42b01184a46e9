"""How a token is shaded by a number: the more the darker, and black on it is still readable."""

from collections.abc import Sequence
from html import escape
from typing import NamedTuple, Protocol

from lightning_prompts.files.text import visible


class Tokens(Protocol):
    """Tokens with what is known of each."""

    @property
    def tokens(self) -> Sequence[str]:
        """Each decoded alone."""

    @property
    def nats(self) -> Sequence[float] | None:
        """Surprise of each."""

    @property
    def distances(self) -> Sequence[float] | None:
        """Cosine distance of each to its vector."""


class Scale(NamedTuple):
    """A number that tokens are shaded by."""

    label: str
    unit: str
    hue: tuple[int, int, int]
    top: float
    """The number that is shaded the most."""

    def shade(self, value: float) -> str:
        """A colour as `#rrggbb`.

        >>> Scale("", "", (0, 0, 0), 2.0).shade(0.0)
        '#ffffff'
        """
        share = 0.72 * min(max(value / self.top, 0.0), 1.0)
        return "#" + "".join(f"{round(255 + (c - 255) * share):02x}" for c in self.hue)


def scales(prompts: Sequence[Tokens]) -> tuple[Scale, Scale]:
    """One scale of surprise and one of distance for all prompts, so that shades compare."""
    nats = max((n for p in prompts for n in p.nats or ()), default=0.0)
    far = max((d for p in prompts for d in p.distances or ()), default=0.0)
    return (
        Scale("surprise", "nats", (0, 114, 178), max(nats, 5.0)),
        Scale("distance", "cosine", (230, 120, 0), max(far, 0.1)),
    )


def shaded(prompt: Tokens, surprise: Scale, distance: Scale) -> str:
    """HTML of a prompt's tokens, shaded by surprise, with both numbers below each."""
    nats, far = prompt.nats or (), prompt.distances or ()
    drawn = []
    for i, token in enumerate(prompt.tokens):
        parts, face = [], "#ffffff"
        if i < len(nats):
            face = surprise.shade(nats[i])
            parts.append(f"<small>{nats[i]:.1f}</small>")
        if i < len(far):
            shade = distance.shade(far[i])
            face = face if nats else shade
            parts.append(f'<small style="background:{shade}">{far[i]:.2f}</small>')
        text = escape(visible(spaced(token)))
        drawn.append(
            f'<span class="token"><b style="background:{face}">{text}</b>{"".join(parts)}</span>'
        )
    return f'<div class="tokens">{"".join(drawn)}</div>'


def spaced(token: str) -> str:
    """A token with its spaces as dots, so that they are seen."""
    return token.replace(" ", "·")
