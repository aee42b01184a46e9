"""How a token is shaded by a number: the more the darker, and black on it is still readable."""

from typing import NamedTuple

from lightning_prompts.runs.record import RunRecord


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


def scales(records: list[RunRecord]) -> tuple[Scale, Scale]:
    """One scale of surprise and one of distance for all prompts, so that shades compare."""
    nats = max((n for r in records for n in r.token_nats or ()), default=0.0)
    far = max((d for r in records for d in r.token_distances or ()), default=0.0)
    return (
        Scale("surprise", "nats", (0, 114, 178), max(nats, 5.0)),
        Scale("distance", "cosine", (230, 120, 0), max(far, 0.1)),
    )


def spaced(token: str) -> str:
    """A token with its spaces as dots, so that they are seen."""
    return token.replace(" ", "·")
