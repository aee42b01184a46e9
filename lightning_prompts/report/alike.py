"""How nearly other prompts answer like the one that is looked at: intervals and differences.

Dimensions: N rows, M unlabelled ones, C classes, D bootstrap draws of rows.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

import torch.nn.functional as F
from torch import Tensor

from lightning_prompts.files.amounts import share
from lightning_prompts.files.drawing import drawn_counts, percentile_interval
from lightning_prompts.files.text import shorten_middle
from lightning_prompts.metrics.agreement import kappa_of, row_kl
from lightning_prompts.metrics.panel.answered import recalibrated
from lightning_prompts.report.tables import Table
from lightning_prompts.report.text import signed

Kind = Literal["written", "nearest tokens", "run"]
Interval = tuple[float, float]
MEASURES = {"kappa": "kappa", "kappa_recalibrated": "kappa, recalibrated", "kl": "KL (nats)"}
VALUES = (*MEASURES, "accuracy", "recalibrated")
WRITTEN: Final = "written"
NEAREST: Final = "nearest tokens"
RUN: Final = "run"


@dataclass(frozen=True)
class Alike:
    """Another prompt beside the one in use; kappas -1 to 1, `kl` in nats, accuracies shares.

    Attributes:
        text: Its own; of vectors, that of their nearest tokens.
        kind: A text that was given or fixed beforehand, the nearest tokens of the vectors that are
            looked at, or another run's prompt.
        name: Of a run, what it was given as.
        intervals: By measure, 95 % bootstrap intervals over rows.
    """

    text: str
    kappa: float
    kappa_recalibrated: float
    kl: float
    accuracy: float
    recalibrated: float
    kind: Kind = "written"
    name: str = ""
    intervals: Mapping[str, Interval] | None = None

    def shown(self, length: int) -> str:
        """What it is, in so many characters."""
        lead = "" if self.kind == WRITTEN else f"{self.name or self.kind}: "
        return shorten_middle(f"{lead}'{self.text}'", length)


@dataclass(frozen=True)
class Difference:
    """A measure of one prompt less that of another, with the interval of the same draws of rows."""

    first: str
    second: str
    kind: Kind
    measure: str
    value: float
    low: float
    high: float


class Drawn(NamedTuple):
    """A prompt with what each draw of rows gave for it, by measure [D]."""

    prompt: Alike
    draws: Mapping[str, Tensor]


def resampled(
    ours: tuple[Tensor, Tensor], theirs: tuple[Tensor, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Interval]]:
    """Kappas and KL of two prompts on draws of the rows, the same draws at each call.

    The thresholds of the recalibrated kappa are of the unlabelled rows, and are not drawn again.

    Args:
        ours: Log-probabilities [N, C] and of unlabelled rows [M, C] of the prompt in use.
        theirs: The other one's.

    Returns:
        By measure, of each draw [D], and the 95 % interval.
    """
    n, classes = ours[0].shape
    drawn = drawn_counts(n) / n
    found = {}
    for name, sides in (
        ("kappa", (ours[0], theirs[0])),
        ("kappa_recalibrated", (recalibrated(*ours), recalibrated(*theirs))),
    ):
        one, other = (side.argmax(-1) for side in sides)
        pairs = F.one_hot(one * classes + other, classes**2).double()
        found[name] = kappa_of((drawn @ pairs).view(-1, classes, classes))
    found["kl"] = drawn @ row_kl(ours[0], theirs[0])
    return found, {name: percentile_interval(values) for name, values in found.items()}


def differences(found: Sequence[Drawn]) -> list[Difference]:
    """Each run's prompt less the nearest tokens, and less the written prompt that is most alike.

    Which written one that is, each measure says for itself, on these same rows; that favours it.

    Args:
        found: Those with draws of the same rows.
    """
    written = [each for each in found if each.prompt.kind == WRITTEN]
    differ = []
    for run in (each for each in found if each.prompt.kind == RUN):
        for measure in MEASURES:
            others = [each for each in found if each.prompt.kind == NEAREST]
            if written:
                sign = 1 if measure == "kl" else -1
                others.append(min(written, key=lambda w: sign * getattr(w.prompt, measure)))
            for other in others:
                value = getattr(run.prompt, measure) - getattr(other.prompt, measure)
                ends = percentile_interval(run.draws[measure] - other.draws[measure])
                name = run.prompt.name or run.prompt.text
                kind = other.prompt.kind
                differ.append(Difference(name, other.prompt.text, kind, measure, value, *ends))
    return sorted(differ, key=lambda d: (d.first, d.kind))  # as they stand within each


def tables(found: Sequence[Alike], differ: Sequence[Difference], length: int) -> Iterator[Table]:
    """What each one does alike, its intervals, and the differences.

    Args:
        found: In their order.
        differ: Maybe none.
        length: Characters of a text.
    """
    strong = frozenset(i for i, each in enumerate(found) if each.kind != WRITTEN)
    heads = ["text", "kappa", "recal.", "KL", "accuracy", "recal."]
    rows = [
        [a.shown(length + 2), *map(share, (getattr(a, name) for name in VALUES))] for a in found
    ]
    yield Table("Prompts that act alike", heads, rows, strong=strong)
    rows = [
        [a.shown(length - 4), *(_ends((a.intervals or {}).get(name)) for name in MEASURES)]
        for a in found
    ]
    heads = ["text", "kappa", "recal.", "KL"]
    yield Table("The same, 95 % over rows", heads, rows, strong=strong)
    if differ:
        rows = [
            [
                shorten_middle(d.first, length // 2 + 4),
                NEAREST if d.kind == NEAREST else shorten_middle(f"'{d.second}'", length - 4),
                MEASURES[d.measure],
                signed(d.value),
                _ends((d.low, d.high), signed),
            ]
            for d in differ
        ]
        heads = ["prompt", "less", "measure", "", "95 % over rows"]
        yield Table("Differences on the same rows", heads, rows, 3)


def sentences(found: Sequence[Alike], differ: Sequence[Difference]) -> Iterator[str]:
    """What the numbers say."""
    best = next((each for each in found if each.kind == WRITTEN), None)
    if best:
        yield (
            "The written prompt that acts most alike is "
            f"'{shorten_middle(best.text, 80)}': kappa {share(best.kappa_recalibrated)} "
            f"recalibrated, {share(best.kappa)} raw, KL {share(best.kl)} nats."
        )
    for d in differ:
        if d.measure == "kappa":
            continue
        better = d.value < 0 if d.measure == "kl" else d.value > 0
        word = "nearer to" if better else "no nearer to"
        sure = d.low > 0 or d.high < 0
        than = (
            "the prompt's nearest tokens"
            if d.kind == NEAREST
            else f"the written '{shorten_middle(d.second, 60)}'"
        )
        yield (
            f"{shorten_middle(d.first, 60)} is {word} the prompt than {than} by "
            f"{MEASURES[d.measure]}: {signed(d.value)}, 95 % {_ends((d.low, d.high), signed)}"
            + ("." if sure else ", which may be chance.")
        )


def _ends(interval: Interval | None, shown: Callable[[float], str] = share) -> str:
    return "" if interval is None else f"[{shown(interval[0])}, {shown(interval[1])}]"
