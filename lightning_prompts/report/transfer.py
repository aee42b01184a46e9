"""What texts are worth on several models: the cells of the matrix, its tables, its page."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lightning_prompts.files.amounts import count, share
from lightning_prompts.files.text import shorten_middle
from lightning_prompts.report import page
from lightning_prompts.report.figures.heat_map import heat_map
from lightning_prompts.report.statistics import McNemar, holm, mcnemar, wilson
from lightning_prompts.report.tables import Table
from lightning_prompts.report.text import large, probability

PAGE = "transfer.html"
LEVEL = 0.05
RAW, RECALIBRATED = "raw", "recalibrated"
WORD = 12  # characters of an answer in a table
READING = (
    "Each text is tokenized anew by each model. Raw are the model's own answers. Recalibrated, the "
    "mean log-probability of each class over training texts, whose labels are not looked at, is "
    "subtracted first, as for the baseline 'no prompt, calibrated'. That supposes that the classes "
    "are about equally frequent.",
    "Intervals are Wilson's, 95 %, over rows. p is McNemar's exact test of raw against "
    "recalibrated on the same rows, corrected for all cells looked at together (Holm).",
    "'Answers' is the answer given most often and its share: what a text leans to on a model.",
    "Perplexity is a text's under the model that reads it. Models cut texts into other tokens, so "
    "it is compared within a model; nats a character are compared between models.",
    "Round trip is the share of a text's tokens that come back when they are written out and "
    "tokenized again; below 1, or where the text itself changes (*), another text was scored than "
    "the one that stands here. Learned: on the model that learned a prompt, the share of its "
    "tokens that its text gives again.",
    "A soft prompt stands twice: by the text of its nearest tokens, and by its vectors, moved to a "
    "model without training: each model's vector that has the most nearly equal cosine "
    "similarities to the tokens that both models have (arXiv:2310.01691). On the model that "
    "learned them they are themselves.",
)


@dataclass
class Scores:
    """Of one text's answers on n rows.

    Attributes:
        accuracy: A share.
        loss: Mean cross-entropy, nats.
        shares: [C] Of the rows, how often each class is answered.
        correct: A digit a row, by its number: 1 where the answer was right.
    """

    accuracy: float
    loss: float
    shares: list[float]
    correct: str

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's, 95 %."""
        return wilson(self.accuracy, len(self.correct))


@dataclass(kw_only=True)
class Cell:
    """One text on one model.

    Attributes:
        key: Names all that the numbers depend on.
        text: Of the prompt; empty for none.
        model: Its label.
        vectors: Whether a soft prompt's vectors were read, and `text` is of their nearest tokens.
        tokens: Of the text, or how many vectors.
        kept: Whether these tokens, written out, are the text.
        round_trip: Share of the tokens that come back from it.
        perplexity: Of the text, like `nats_per_character` None where there is no text.
    """

    key: str
    text: str
    model: str
    raw: Scores
    recalibrated: Scores
    tokens: int
    kept: bool
    round_trip: float
    perplexity: float | None
    nats_per_character: float | None
    vectors: bool = False

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Cell":
        """Back from a line.

        Raises:
            TypeError, KeyError: If it is none.
        """
        scores = {name: Scores(**content[name]) for name in (RAW, RECALIBRATED)}
        return cls(**{**content, **scores})

    @cached_property
    def test(self) -> McNemar:
        """Raw against recalibrated."""
        return mcnemar(self.raw.correct, self.recalibrated.correct)


@dataclass
class Column:
    """All texts on one model.

    Attributes:
        model: Its label.
        cells: One for each text.
        learned: Of a prompt that was learned on this model the share of its tokens that its text
            gives again; None for others.
    """

    model: str
    cells: list[Cell]
    learned: list[float | None]
    cut: int = 0


@dataclass
class Matrix:
    """Texts, models, and what was measured.

    Attributes:
        title: The task and its rows.
        names: Of the texts.
        columns: One for each model.
        labels: The classes.
        words: The answer of each.
        frequencies: Of each class among the rows.
        template: As it was given.
        calibrated_on: How many texts.
    """

    title: str
    names: list[str]
    columns: list[Column]
    labels: list[str]
    words: list[str]
    frequencies: list[float]
    template: Any
    calibrated_on: str

    @cached_property
    def p(self) -> list[list[float]]:
        """For each column the p of its cells, corrected for all of them."""
        found = iter(holm([cell.test.p for column in self.columns for cell in column.cells]))
        return [[next(found) for _ in column.cells] for column in self.columns]

    def most(self, scores: Scores) -> str:
        """The answer given most often, with its share."""
        top = max(range(len(scores.shares)), key=scores.shares.__getitem__)
        word = shorten_middle(f"'{self.words[top]}'", WORD)
        return f"{scores.shares[top]:.0%} {word}"

    def tables(self, length: int) -> Iterator[Table]:
        """The whole on one, each model on one, and the texts.

        Args:
            length: Characters of a name.
        """
        names = [shorten_middle(name, length) for name in self.names]
        models = [shorten_middle(column.model, length // 2 + 3) for column in self.columns]
        both = [
            [f"{share(c.raw.accuracy)} / {share(c.recalibrated.accuracy)}" for c in column.cells]
            for column in self.columns
        ]
        rows = [list(row) for row in zip(names, *both, strict=True)]
        yield Table(f"{self.title}: accuracy, raw / recalibrated", ["prompt", *models], rows)
        heads = ["prompt", "accuracy", "95 %", "loss", "answers", "p"]
        for column, ps in zip(self.columns, self.p, strict=True):
            rows = []
            for name, cell, p in zip(names, column.cells, ps, strict=True):
                for scores, *ends in (
                    (cell.raw, name, ""),
                    (cell.recalibrated, f"  {RECALIBRATED}", probability(p)),
                ):
                    low, high = map(share, scores.interval)
                    numbers = [share(scores.accuracy), f"{low}-{high}", share(scores.loss)]
                    rows.append([ends[0], *numbers, self.most(scores), ends[1]])
            raw = frozenset(range(0, len(rows), 2))
            cut = f" ({column.cut:,} cut to fit)" if column.cut else ""
            yield Table(f"{self.title}{cut}, {column.model}", heads, rows, strong=raw)
        heads = ["prompt", "tokens", "perplexity", "nats/char", "round trip", "learned"]
        for column in self.columns:
            each = zip(names, column.cells, column.learned, strict=True)
            rows = [[n, *_of_text(c, own)] for n, c, own in each if c.text and not c.vectors]
            yield Table(f"The texts, {column.model}", heads, rows)

    def findings(self) -> Iterator[str]:
        """What the numbers say."""
        cells = [
            (f"{shorten_middle(name, 60)} on {column.model}", cell, p)
            for column, ps in zip(self.columns, self.p, strict=True)
            for name, cell, p in zip(self.names, column.cells, ps, strict=True)
        ]
        changed = [each for each in cells if each[2] < LEVEL]
        up = sum(cell.test.second > cell.test.first for _, cell, _ in changed)
        ways = f": {up} higher, {len(changed) - up} lower" if changed else ""
        yield (
            f"Recalibrating on {self.calibrated_on} changes the accuracy by more than chance in "
            f"{len(changed)} of {count(len(cells), 'cell')} (p < {LEVEL}, corrected){ways}."
        )
        if changed:
            name, cell, _ = max(changed, key=lambda c: abs(c[1].test.first - c[1].test.second))
            yield (
                f"The most: {name}, from {share(cell.raw.accuracy)} to "
                f"{share(cell.recalibrated.accuracy)}; of its raw answers {self.most(cell.raw)}."
            )

    def limits(self) -> Iterator[str]:
        """What the numbers must not be taken for."""
        classes = ", ".join(
            f"{label} {n:.0%}" for label, n in zip(self.labels, self.frequencies, strict=True)
        )
        yield (
            f"Recalibrating supposes equally frequent classes; of the rows scored here: {classes}."
        )
        for column in self.columns:
            for name, cell in zip(self.names, column.cells, strict=True):
                if not cell.kept or cell.round_trip < 1:
                    yield f"{column.model} does not keep the text {name}: it reads another."


def write(matrix: Matrix, folder: Path) -> Path:
    """Write the numbers, the heat map and the page.

    Returns:
        The page.
    """
    framed = [
        (row, x)
        for x, column in enumerate(matrix.columns)
        for row, learned in enumerate(column.learned)
        if learned is not None
    ]
    panels = {
        way: [
            [(s.accuracy, *s.interval) for s in (getattr(c.cells[i], way) for c in matrix.columns)]
            for i in range(len(matrix.names))
        ]
        for way in (RAW, RECALIBRATED)
    }
    caption = (
        "Accuracy, and Wilson's 95 % interval below it, by the model's own answers (raw) and "
        "recalibrated on training texts without labels."
        + (" Framed: the model that the prompt was learned on." if framed else "")
    )
    title = f"Transfer: {matrix.title}"
    models = [column.model for column in matrix.columns]
    drawn = heat_map(matrix.names, models, panels, framed, "accuracy", ("transfer", title, caption))
    whole, *rest = map(page.table, matrix.tables(80))
    of_models, texts = rest[: len(models)], rest[len(models) :]
    sections = [
        page.Section("Accuracy", [*page.figure(drawn), whole]),
        page.Section("Model by model", of_models),
        page.Section("The texts", texts),
        page.Section("How to read this", [page.reading(READING)]),
    ]
    found, limits = list(matrix.findings()), list(matrix.limits())
    text = page.render(title, [], found, limits, sections)
    return page.write(folder / PAGE, text, drawn, _numbers(matrix))


def _numbers(matrix: Matrix) -> dict[str, Any]:
    """All of them."""
    cells = []
    for column, ps in zip(matrix.columns, matrix.p, strict=True):
        each = zip(matrix.names, column.cells, column.learned, ps, strict=True)
        for name, cell, learned, p in each:
            content = {"prompt": name, **asdict(cell), "learned_tokens_left": learned}
            content["model"] = column.model  # equal weights under two names share their cells
            for way in (RAW, RECALIBRATED):
                content[way]["interval"] = list(getattr(cell, way).interval)
            test = {"only_raw": cell.test.first, "only_recalibrated": cell.test.second}
            cells.append(content | {"mcnemar": {**test, "p": cell.test.p, "p_holm": p}})
    return {
        "task": matrix.title,
        "template": matrix.template,
        "calibrated_on": matrix.calibrated_on,
        "labels": matrix.labels,
        "answers": matrix.words,
        "frequencies": matrix.frequencies,
        "cells": cells,
    }


def _of_text(cell: Cell, learned: float | None) -> list[str]:
    trip = share(cell.round_trip) + ("" if cell.kept else "*")
    perplexity, nats = large(cell.perplexity), share(cell.nats_per_character)
    return [f"{cell.tokens}", perplexity, nats, trip, share(learned)]
