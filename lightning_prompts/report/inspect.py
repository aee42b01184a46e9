"""One prompt looked at closely: what was found of it, its tables and its sentences."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from lightning_prompts.files.amounts import NONE, count, share, standard_error
from lightning_prompts.files.text import shorten
from lightning_prompts.metrics.in_words import Readout
from lightning_prompts.metrics.panel.token_effects import FILLER_NATS, Change, TokenEffects
from lightning_prompts.report import alike, in_words
from lightning_prompts.report.alike import Alike, Difference
from lightning_prompts.report.panel import MEANINGS, shown
from lightning_prompts.report.statistics import wilson
from lightning_prompts.report.tables import Table
from lightning_prompts.report.text import signed
from lightning_prompts.runs.shading import spaced
from lightning_prompts.tuners.record import PromptRecord

OTHERS = "Other prompts"
TERMINAL = 40  # characters of a text, at most, where a line has 80


@dataclass(frozen=True)
class Near:
    """A token near a vector, with its cosine distance."""

    token: str
    id: int
    distance: float


@dataclass(frozen=True)
class Way:
    """One way to read the prompt: its vectors, its tokens, its pasted text.

    Attributes:
        accuracy: A share; `recalibrated` likewise.
        shares: Of the rows, how often each class is answered.
        differs: Rows that are answered otherwise than in the first way.
        same: Whether it is the same tokens as the way before.
    """

    name: str
    accuracy: float
    recalibrated: float
    shares: list[float]
    differs: int
    same: bool = False


@dataclass(frozen=True)
class Row:
    """A row that ways answer differently.

    Attributes:
        number: In its source, from 1.
        answers: By way, the answer's label and how likely it is; None where it was not readable.
        difference: Largest total variation distance to the first way, 0 to 1.
    """

    number: int
    text: str
    label: str
    answers: dict[str, tuple[str, float] | None]
    difference: float


@dataclass(kw_only=True)
class Inspection:
    """All that was found of one prompt.

    Attributes:
        record: Its text and tokens, with surprise and distances.
        title: Task, rows and model.
        near: [P] Nearest tokens of each vector; empty where tokens are in use.
        effects: Of its tokens.
        ways: In use first.
        rows: Those that ways answer differently, the most different ones.
        panel: Values by name.
        alike: Other prompts, those that act most alike first.
        differences: Of runs' prompts among them.
        frequencies: Of each class among the rows.
        in_words: What was read out of the prompt, then of the controls, where that was asked for.
        limits: Sentences: what was left out, and what else the numbers must not be taken for.
    """

    record: PromptRecord
    title: str
    near: list[list[Near]]
    effects: TokenEffects
    ways: list[Way]
    rows: list[Row]
    panel: dict[str, float]
    alike: list[Alike]
    differences: list[Difference]
    frequencies: dict[str, float]
    calibrated_on: str
    in_words: list[Readout] = field(default_factory=list)
    limits: list[str] = field(default_factory=list)

    @property
    def about(self) -> str:
        """What is in use."""
        of = "vector" if self.record.soft_in_use else "token"
        kind = "; the text is of their nearest tokens" if self.record.soft_in_use else ""
        return f"{self.record.tuner}, {count(len(self.record.ids), of)}{kind}"

    def tables(self, length: int) -> Iterator[tuple[str, list[Table]]]:
        """Titles of sections, with their tables.

        Args:
            length: Characters of a text.
        """
        yield "Tokens", list(self._of_tokens(length))
        yield "Answers", list(self._of_answers(length))
        rows = [
            [name, MEANINGS[name], shown(self.panel, name)]
            for name in self.panel
            if name in MEANINGS
        ]
        yield "Panel", [Table("What its text says and does", ["value", "what it is", ""], rows, 2)]
        if self.alike:
            yield OTHERS, list(alike.tables(self.alike, self.differences, length))
        if self.in_words:
            yield "In its own words", list(in_words.tables(self.in_words, length))

    def _of_tokens(self, length: int) -> Iterator[Table]:
        record, far = self.record, self.record.token_distances
        heads = ["token", "surprise", *["distance"] * bool(far), "KL", "accuracy", "recalibrated"]
        rows = [
            [shorten(spaced(token), length), f"{nats:.2f}", *[f"{d:.3f}" for d in of], *_of(change)]
            for token, nats, of, change in zip(
                record.tokens,
                record.token_nats or [],
                [[d] for d in far] if far else [[]] * len(record.ids),
                self.effects.deletions,
                strict=True,
            )
        ]
        yield Table("Each token, and what leaving it out changes", heads, rows)
        if self.near:
            rows = [
                [
                    shorten(spaced(token), length),
                    ", ".join(f"{shorten(spaced(n.token), 16)} {n.distance:.3f}" for n in near),
                ]
                for token, near in zip(record.tokens, self.near, strict=True)
            ]
            heads = ["token", "nearest to its vector, with cosine distances"]
            yield Table("Vectors and their nearest tokens", heads, rows, 2)
        # `Change` has no text of a shuffle, and its tokens decoded alone are what was read.
        rows = [
            [shorten(self._ordered(change), 2 * length), *_of(change)]
            for change in self.effects.shuffles
        ]
        yield Table("Other orders", ["tokens", "KL", "accuracy", "recalibrated"], rows)

    def _of_answers(self, length: int) -> Iterator[Table]:
        n = self.effects.rows
        rows = []
        for way in self.ways:
            low, high = map(share, wilson(way.accuracy, n))
            shares = zip(self.frequencies, way.shares, strict=True)
            most_given, most = max(shares, key=lambda pair: pair[1])
            cells = [share(way.accuracy), f"{low}-{high}", share(way.recalibrated)]
            rows.append(
                [way.name, *cells, f"{most:.0%} {shorten(most_given, 12)}", f"{way.differs}"]
            )
        heads = ["read by", "accuracy", "95 %", "recalibrated", "answers", "differs"]
        strong = frozenset({0})
        yield Table(f"Accuracy on {count(n, 'row')}", heads, rows, strong=strong)
        if self.rows:
            names = [way.name for way in self.ways if not way.same]
            wide = length > TERMINAL
            label = 24 if wide else 8
            rows = [
                [
                    shorten(row.text, 8 * length if wide else length // 2 + 2),
                    shorten(row.label, label),
                    *[_answer(row.answers[name], label) for name in names],
                    f"{row.difference:.2f}",
                ]
                for row in self.rows
            ]
            title = "Rows that are answered differently, those that differ most"
            yield Table(title, ["text", "label", *names, "diff."], rows)

    def _ordered(self, change: Change) -> str:
        of = dict(zip(self.record.ids, self.record.tokens, strict=True))
        return spaced("".join(of[i] for i in change.ids))

    def findings(self) -> Iterator[str]:
        """What the numbers say."""
        deletions = self.effects.deletions
        most = max(deletions, key=lambda change: change.kl)
        fillers = sum(change.kl < FILLER_NATS for change in deletions)
        without = "Of its nearest tokens: without" if self.record.soft_in_use else "Without"
        yield (
            f"{without} '{shorten(most.token or '', 40)}' the answers change the most "
            f"({most.kl:.3f} nats, accuracy {signed(most.accuracy)}); {fillers} of "
            f"{count(len(deletions), 'token')} hardly matter (less than {FILLER_NATS:g} nats); "
            f"other orders change {self.effects.effect_of_order:.3f} nats on average."
        )
        first, *others = self.ways
        for way in others:
            if way.same:
                yield "Its text, pasted and tokenized anew, gives the same tokens on all rows."
            else:
                both = f"{first.name.capitalize()} and {way.name}"
                yield f"{both} disagree on {way.differs} of {count(self.effects.rows, 'row')}."
        yield from alike.sentences(self.alike, self.differences)
        yield from in_words.sentences(self.in_words)

    def restrictions(self) -> Iterator[str]:
        """What the numbers must not be taken for."""
        n = self.effects.rows
        shares = ", ".join(f"{label} {part:.0%}" for label, part in self.frequencies.items())
        yield (
            f"On {count(n, 'row')} an accuracy has a standard error of up to "
            f"{standard_error(0.5, n):.3f}: smaller changes of it are chance."
        )
        yield f"Recalibrating supposes equally frequent classes; of the rows here: {shares}."
        yield from self.limits


def _of(change: Change) -> list[str]:
    """A change's cells."""
    return [f"{change.kl:.3f}", signed(change.accuracy), signed(change.recalibrated)]


def _answer(given: tuple[str, float] | None, length: int) -> str:
    """An answer's label, and how likely it is."""
    return f"{shorten(given[0], length)} {given[1]:.2f}" if given else NONE
