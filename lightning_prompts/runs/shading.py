"""How a token is shaded by a number: the more the darker, and black on it is still readable."""

from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

from lightning_prompts.files.escaping import visible
from lightning_prompts.tuners.record import PromptRecord


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
        share = self.share(value)
        return "#" + "".join(f"{round(255 + (c - 255) * share):02x}" for c in self.hue)

    def share(self, value: float) -> float:
        """How much of the hue there is over what lies below it, 0 to 0.72."""
        return 0.72 * min(max(value / self.top, 0.0), 1.0)


def scales(prompts: Sequence[PromptRecord]) -> tuple[Scale, Scale]:
    """One scale of surprise and one of distance for all prompts, so that shades compare."""
    nats = max((n for p in prompts for n in p.token_nats or ()), default=0.0)
    far = max((d for p in prompts for d in p.token_distances or ()), default=0.0)
    return (
        Scale("surprise", "nats", (0, 114, 178), max(nats, 5.0)),
        Scale("distance", "cosine", (230, 120, 0), max(far, 0.1)),
    )


def shaded(prompt: PromptRecord, surprise: Scale, distance: Scale) -> Markup:
    """HTML of a prompt's tokens, shaded by surprise, with both numbers below each."""
    nats, far = prompt.token_nats or (), prompt.token_distances or ()
    drawn = []
    for i, token in enumerate(prompt.tokens):
        parts, face = Markup(), "#ffffff"
        if i < len(nats):
            face = surprise.shade(nats[i])
            parts += Markup("<small>{:.1f}</small>").format(nats[i])
        if i < len(far):
            shade = distance.shade(far[i])
            face = face if nats else shade
            parts += Markup('<small style="background:{}">{:.2f}</small>').format(shade, far[i])
        box = Markup('<span class="token"><b style="background:{}">{}</b>{}</span>')
        drawn.append(box.format(face, visible(spaced(token)), parts))
    return Markup('<div class="tokens">{}</div>').format(Markup().join(drawn))


def spaced(token: str) -> str:
    """A token with its spaces as dots, so that they are seen."""
    return token.replace(" ", "·")
