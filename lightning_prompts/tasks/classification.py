"""Text classification from any table with text and a label, local or on the Hugging Face hub."""

import functools
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from lightning_prompts.errors import PromptError
from lightning_prompts.inert import shorten
from lightning_prompts.language_model import FrozenLM
from lightning_prompts.ranges import SHARE, require
from lightning_prompts.tasks.base import PromptTask
from lightning_prompts.tasks.files import suffix
from lightning_prompts.tasks.labels import class_index, is_missing
from lightning_prompts.tasks.rows import SPLIT_SEED, Rows, few_shot, stratified_order
from lightning_prompts.tasks.sources import DataSource

log = logging.getLogger(__name__)

SPLITS = ("train", "validation", "test")


class TextClassification(PromptTask):
    """Rows of text and a label, from a local folder or file or from the Hub.

    A folder holds `train`, `validation` and `test` as JSONL, CSV, TSV or Parquet, plain or .gz. One
    file is cut into the three, always in the same way and with the classes in their shares. Where
    a folder or a Hub data set has no validation rows, they are cut from its training rows.

    Args:
        lm: The frozen language model; gives tokenizer and positions.
        template: Where the columns and `{prompt}` sit, e.g. `"{prompt} {text} It was"`; the model
            answers after its end. White space before `{prompt}` is refused.
        verbalizer: Label to answer word, each one token, e.g. `{"0": " terrible", "1": " great"}`.
        path: Folder, file, or Hub id (OWNER/NAME).
        name: The task's name in folders and tables; by default the last part of `path`.
        text_column: The data's column that `{text}` of the template stands for.
        label_column: The data's column with the label: a number, a text, or true and false.
        subset: Configuration of a Hub data set.
        data_revision: Branch, tag or commit of a Hub data set.
        train: File (or split on the Hub, e.g. `train[:500]`) in place of the training rows.
        validation: The same for the validation rows.
        test: The same for the test rows.
        predict: The same for the rows to predict, which need no label; by default the test rows.
        split: Shares of training, validation and test rows in one file.
        shots: Train on this many rows of each label, drawn by seed.
        seed: Order of the training rows, and which of them `shots` and `train_rows` draw.
        truncate: Column that is cut from its end where an example is too long; by default the
            longest.
        max_tokens: Most tokens of an example beside the prompt; by default, and at most, the
            model's positions less the prompt.
        batch_size: Training rows a step on each device.
        val_batch_size: Rows of an evaluation batch on each device.
        num_workers: Processes that build batches; the rows are tokenized before, so 0 is fast.
        train_rows: Train on at most this many rows, drawn by seed with the labels in their shares.
        validation_rows: Validate on at most this many rows, the same whatever the seed.
        test_rows: Test on at most this many rows, the same whatever the seed.

    Raises:
        PromptError: If template or verbalizer do not fit the model, or `split` is no such shares.
    """

    # Further names under which the data may have a column of the template, or "label".
    other_columns: ClassVar[Mapping[str, tuple[str, ...]]] = {}

    def __init__(
        self,
        lm: FrozenLM,
        template: str,
        verbalizer: dict[str, str],
        path: str | None = None,
        name: str | None = None,
        text_column: str = "text",
        label_column: str = "label",
        subset: str | None = None,
        data_revision: str | None = None,
        train: str | None = None,
        validation: str | None = None,
        test: str | None = None,
        predict: str | None = None,
        split: str = "0.8,0.1,0.1",
        shots: int | None = None,
        seed: int = 0,
        truncate: str | None = None,
        max_tokens: int | None = None,
        batch_size: int = 32,
        val_batch_size: int = 64,
        num_workers: int = 0,
        train_rows: int | None = None,
        validation_rows: int | None = None,
        test_rows: int | None = None,
    ) -> None:
        super().__init__(
            lm,
            template,
            verbalizer,
            seed=seed,
            truncate=truncate,
            max_tokens=max_tokens,
            batch_size=batch_size,
            val_batch_size=val_batch_size,
            num_workers=num_workers,
        )
        self.path, self.name = path, name
        self.text_column, self.label_column = text_column, label_column
        self.subset, self.data_revision = subset, data_revision
        self.files = {"train": train, "validation": validation, "test": test, "predict": predict}
        self.shares = _shares(split)
        self._found: dict[str, Rows | None] = {}
        self.shots = shots
        if path == "":
            raise PromptError(
                "--data.path is empty; give a folder, a file or a data set of the hub, or leave it "
                "out for the task's own."
            )
        self.num_rows = {"train": train_rows, "validation": validation_rows, "test": test_rows}
        if shots is not None and train_rows is not None:
            raise PromptError("--data.shots and --data.train_rows both choose rows; give one.")
        counts = {"shots": shots, **{f"{k}_rows": v for k, v in self.num_rows.items()}}
        for flag, count in counts.items():
            require(f"data.{flag}", count)

    @property
    def slug(self) -> str:
        """`name`, else the last part of `path` without its suffixes."""
        if self.name:
            return self.name
        last = Path(self.path or "text").name
        return last.removesuffix(".gz").removesuffix(suffix(Path(last))) or "text"

    @property
    def origin(self) -> dict[str, str | None]:
        """Where the rows come from: path, configuration, revision asked for, and commit read."""
        source = self._source
        return {
            "path": self.path,
            "subset": self.subset,
            "revision": self.data_revision,
            "commit": source.commit,
        }

    def has(self, split: str) -> bool:
        """Whether there is such a split."""
        return self._find(split) is not None

    def read(self, split: str) -> Rows:
        """The rows of a split, or the part of them that was asked for.

        Raises:
            PromptError: If there are none, or a row is bad: the message names it.
        """
        rows = self._find(split)
        if rows is None:
            raise PromptError(self._source.missing("test" if split == "predict" else split))
        if split == "predict":
            return rows
        if -1 in rows.labels:
            raise PromptError(
                f"{rows.place(rows.labels.index(-1))} has no label (column {self.label_column!r} "
                f"is absent, empty or -1; columns found: {', '.join(rows.columns)}), so these "
                f"{split} rows cannot be used; name the column with --data.label_column, or use "
                "`predict`, which needs no labels."
            )
        if split == "train" and self.shots is not None:
            return rows.take(self._few_shot(rows, self.shots))
        count = self.num_rows[split]
        if count is None or count >= len(rows):
            return rows
        order = stratified_order(rows.labels, self.seed if split == "train" else SPLIT_SEED)
        return rows.take(sorted(order[:count]))

    # ---- from files to splits

    @functools.cached_property
    def _source(self) -> DataSource:
        return DataSource(self.path, self.subset, self.data_revision)

    def _find(self, split: str) -> Rows | None:
        """All rows of a split with their classes, None where there is no such split."""
        if split not in self._found:
            self._found.update(self._look_up(split))
        return self._found[split]

    def _look_up(self, split: str) -> dict[str, Rows | None]:
        """The rows of `split`, and of whatever splits come with it."""
        if split == "predict" and not self.files["predict"]:
            return {split: self._find("test")}
        if split in ("train", "validation") and self._must_cut_train:
            parts = self._cut(self._own("train"), ["train", "validation"])
            kept = {name: len(part or ()) for name, part in parts.items()}
            log.info("There are no validation rows; the training rows are divided: %s.", kept)
            return parts
        if self._source.is_file and not self.files[split]:
            free = [name for name in SPLITS if not self.files[name]]
            return self._cut(self._labelled(self._source.whole_file()), free)
        there = bool(self.files[split]) or self._source.has(split)
        return {split: self._own(split) if there else None}

    def _own(self, split: str) -> Rows:
        """The rows of a split that has a file, or is on the Hub."""
        given = self.files[split]
        raw = self._source.named(given) if given else self._source.split(split)
        return self._labelled(raw, strict=split != "predict")

    @property
    def _must_cut_train(self) -> bool:
        """Whether there are training rows but no validation rows."""
        if self.files["validation"] or self._source.is_file or self._source.has("validation"):
            return False
        return bool(self.files["train"]) or self._source.has("train")

    def _cut(self, rows: Rows, names: list[str]) -> dict[str, Rows | None]:
        """Divide rows among splits by their shares, the classes evenly."""
        order = stratified_order(rows.labels, SPLIT_SEED)
        total = sum(self.shares[name] for name in names)
        parts: dict[str, Rows | None] = {}
        start, reached = 0, 0.0
        for name in names:
            reached += self.shares[name]
            end = round(len(order) * reached / total) if total else 0
            parts[name] = rows.take(sorted(order[start:end])) if end > start else None
            start = end
        return parts

    def _few_shot(self, rows: Rows, shots: int) -> list[int]:
        drawn = few_shot(rows.labels, shots, self.seed)
        for index, members in drawn.items():
            if len(members) < shots:
                raise PromptError(
                    f"--data.shots is {shots}, but label {self.verbalizer.labels[index]!r} has "
                    f"{len(members)} rows in {rows.source}; ask for at most {len(members)}."
                )
        return sorted(index for members in drawn.values() for index in members)

    # ---- from cells to texts and classes

    def _labelled(self, raw: Rows, strict: bool = True) -> Rows:
        """The template's columns as text, and each row's class; `strict` refuses unknown labels."""
        columns = {name: self._names(name) for name in self.template.columns}
        rows = [
            {name: _text(raw, i, name, names) for name, names in columns.items()}
            for i in range(len(raw))
        ]
        labels = [self._label(raw, i, strict) for i in range(len(raw))]
        return Rows(raw.source, rows, labels=labels, numbers=raw.numbers, columns=raw.columns)

    def _names(self, column: str) -> tuple[str, ...]:
        """The names that the data may have for a column of the template, or for `label`."""
        own = {"text": self.text_column, "label": self.label_column}.get(column, column)
        return (own, *self.other_columns.get(column, ()))

    def _label(self, raw: Rows, index: int, strict: bool) -> int:
        """The class of a row, -1 where it has no label (or, not strict, an unknown one)."""
        row = raw.rows[index]
        column = next((name for name in self._names("label") if name in row), None)
        value = None if column is None else row[column]
        found = class_index(value, self.verbalizer.labels, raw.class_names.get(column or "", ()))
        if found is None and strict and not is_missing(value):
            known = ", ".join(shorten(repr(label), 80) for label in self.verbalizer.labels)
            raise PromptError(
                f"{raw.place(index)}: the verbalizer has no word for the label "
                f"{shorten(repr(value), 80)}, only for {known}; add it to --data.verbalizer, or "
                "remove the row."
            )
        return -1 if found is None else found


def _text(raw: Rows, index: int, column: str, names: tuple[str, ...]) -> str:
    row = raw.rows[index]
    found = next((name for name in names if name in row), None)
    if found is None:
        fix = "name it with --data.text_column" if column == "text" else "change --data.template"
        raise PromptError(
            f"{raw.place(index)} has no column {' or '.join(map(repr, names))} (columns found: "
            f"{', '.join(map(repr, row))}) for {{{column}}} of the template; {fix}."
        )
    value = row[found]
    if isinstance(value, list | dict | bytes):
        raise PromptError(
            f"{raw.place(index)} has {type(value).__name__} {shorten(repr(value), 40)} in the "
            f"column {found!r}, not a text; give one text a row."
        )
    text = "" if value is None or value != value else str(value)
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise PromptError(
            f"{raw.place(index)} has half a character (a lone surrogate) in {found!r}; repair the "
            "text or remove the row."
        )
    if not text.strip():
        raise PromptError(
            f"{raw.place(index)} has an empty {found!r}; fill it in or remove the row."
        )
    return text


def _shares(split: str) -> dict[str, float]:
    """The three shares of `--data.split`."""
    try:
        shares = [float(share) for share in split.split(",")]
    except ValueError:
        shares = []
    good = len(shares) == 3 and all(map(SHARE.has, shares)) and shares[0] > 0
    if not good or abs(sum(shares) - 1) > 1e-6:
        raise PromptError(
            f"--data.split is {split!r}; give the shares of training, validation and test rows, "
            "which add up to 1, for example 0.8,0.1,0.1."
        )
    return dict(zip(SPLITS, shares, strict=True))
