"""Text classification from any table with text and a label, local or on the Hugging Face hub."""

import functools
import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from lightning_prompts.files.errors import PromptError
from lightning_prompts.files.option_names import for_reader
from lightning_prompts.files.option_types import NumRows
from lightning_prompts.lm.chat import Conversation
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.lm.verbalizer import Words
from lightning_prompts.metrics.panel.frames import TaskKind
from lightning_prompts.tasks.columns import labels_of
from lightning_prompts.tasks.divided import DividedRows
from lightning_prompts.tasks.files import stem
from lightning_prompts.tasks.labelled import Columns, labelled, unlabelled
from lightning_prompts.tasks.reading import Reading, columns_of, encoding_of, separator_of
from lightning_prompts.tasks.rows import SPLIT_SEED, Rows, few_shot, stratified_order
from lightning_prompts.tasks.sources import DataSource
from lightning_prompts.tasks.split_files import is_pattern
from lightning_prompts.tasks.splitting import shares_of
from lightning_prompts.tasks.tables import Tables

log = logging.getLogger(__name__)

MOST_LABELS = 1000  # that are answers without being named; more are texts, or numbers to predict


class TextClassification(DividedRows):
    """Rows of text and a label, from a local folder or file or from the Hub.

    A folder holds `train`, `validation` and `test` as JSON(L), CSV, TSV, Parquet or Arrow, plain or
    packed, alone or in numbered shards; or `save_to_disk` wrote it; or it is a clone of a
    repository of the Hub. One file is cut into the three, always in the same way and with the
    classes in their shares. Where a folder or a Hub data set has no validation rows, they are cut
    from its training rows.

    Args:
        template: Where the columns and `{prompt}` sit, e.g. `"{prompt} {text} It was"`; the model
            answers after its end. White space before `{prompt}` is refused. Or a conversation,
            `{chat: {system: "{prompt}", user: "{text}"}}`, answered as the assistant.
        verbalizer: Label to answer, or to a list of answers, e.g. `{"0": " terrible", "1":
            [" great", " good"]}`, mostly with a leading space; by default each label of the
            training rows is its own answer, with a space before it.
        path: Folder, file, several files (`part-*.csv`), or Hub id (OWNER/NAME).
        name: The task's name in folders and tables; by default the last part of `path`.
        text_column: The data's column that `{text}` of the template stands for.
        label_column: The data's column with the label: a number, a text, or true and false.
        id_column: The data's column that tells rows apart, for predictions.jsonl.
        separator: The character between the columns of a CSV file; by default the one by which its
            header names the columns that are needed.
        encoding: Of text files, e.g. cp1252; by default UTF-8, or what the first bytes say.
        header: Whether the first line of a CSV file names its columns.
        columns: Names of a CSV file's columns, in place of its header or without one.
        skip_bad_rows: Leave out, count and list rows that are broken, have no text, no label, or
            one that the verbalizer has no word for; by default the first one stops the command.
        subset: Configuration of a Hub data set, or of a clone of its repository.
        data_revision: Branch, tag or commit of a Hub data set.
        train: File, folder, several files (`part-*.csv`), or split on the Hub (`train[:500]`), in
            place of the training rows.
        validation: The same for the validation rows.
        test: The same for the test rows.
        predict: The same for the rows to predict, which need no label; by default the test rows.
        split: Shares of training, validation and test rows in one file.
        shots: Train on this many rows of each label, drawn by seed.
        train_rows: Train on at most this many rows, drawn by seed with the labels in their shares.
        validation_rows: Validate on at most this many rows, the same whatever the seed.
        test_rows: Test on at most this many rows, the same whatever the seed.
        data: Rows that are in memory, in place of `path`: a DataFrame of pandas or polars, a
            `datasets.Dataset`, or a list of mappings, which is cut as one file is; or a mapping
            from `train`, `validation` and `test` to such tables, as a `DatasetDict` is one. In
            Python alone; a text is taken for a path.
        task_kind: Which of eight described tasks this is, for the measure `task_identification`
            of `--scrutability.panel`; by default what the class says.
        lm, **kwargs: Of `PromptTask`.

    Raises:
        PromptError: If template or verbalizer do not fit the model, `split` is no such shares, or
            `data` is no such table.
    """

    python_only = frozenset({"data"})
    # Further names under which the data may have a column of the template, or "label".
    other_columns: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    # Columns that the task reads beside those of the template and the label.
    extra_columns: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        lm: FrozenLM,
        template: str | Conversation,
        verbalizer: Words | None = None,
        path: str | None = None,
        name: str | None = None,
        text_column: str = "text",
        label_column: str = "label",
        id_column: str | None = None,
        separator: str | None = None,
        encoding: str | None = None,
        header: bool | None = None,
        columns: list[str] | str | None = None,
        skip_bad_rows: bool = False,
        subset: str | None = None,
        data_revision: str | None = None,
        train: str | None = None,
        validation: str | None = None,
        test: str | None = None,
        predict: str | None = None,
        split: str = "0.8,0.1,0.1",
        shots: NumRows | None = None,
        train_rows: NumRows | None = None,
        validation_rows: NumRows | None = None,
        test_rows: NumRows | None = None,
        data: Any = None,
        task_kind: TaskKind | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(lm, template, verbalizer, **kwargs)
        self.kind = task_kind or self.kind
        if isinstance(data, str | Path):
            data, path = None, str(data)
        if data is not None and (path or train or validation or test or predict):
            raise PromptError("data holds the rows of all splits; leave out paths of files.")
        self.path, self.name, self._data = path, name, data
        self.text_column, self.label_column = text_column, label_column
        self.id_column, self.skip_bad_rows = id_column, skip_bad_rows
        self.subset, self.data_revision = subset, data_revision
        self._table = Reading(
            separator_of(separator), encoding_of(encoding), header, columns_of(columns)
        )
        self.files = {"train": train, "validation": validation, "test": test, "predict": predict}
        self.shares = shares_of(split)
        self._found: dict[str, Rows | None] = {}
        self._numbered: dict[str, tuple[str, list[str]]] = {}  # a source, and its classes' names
        self.shots = shots
        if path == "":
            raise PromptError(
                "--data.path is empty; give a folder, a file or a data set of the hub, or leave it "
                "out for the task's own."
            )
        self.num_rows = {"train": train_rows, "validation": validation_rows, "test": test_rows}
        if shots is not None and train_rows is not None:
            raise PromptError("--data.shots and --data.train_rows both choose rows; give one.")

    @property
    def slug(self) -> str:
        """`name`, else the last part of `path` without its suffixes."""
        if self.name:
            return self.name
        last = stem(Path(Path(self.path or "text").name))
        return (last.strip("*?[]-_.") if is_pattern(last) else last) or "text"

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
            raise unlabelled(rows, rows.labels.index(-1), self.label_column, split)
        if split == "train" and self.shots is not None:
            return rows.take(self._few_shot(rows, self.shots))
        count = self.num_rows[split]
        if count is None or count >= len(rows):
            return rows
        order = stratified_order(rows.labels, self.seed if split == "train" else SPLIT_SEED)
        return rows.take(sorted(order[:count]))

    def predict_parts(self, size: int) -> Iterator[Rows]:
        """The rows to predict, `size` of a file at a time; those of no file are read as a whole."""
        source, given = self._source, self.files["predict"] or self.files["test"]
        own = not isinstance(source, Tables) and not source.is_hub and self._has_own("test")
        if not isinstance(source, DataSource) or source.is_hub or not (given or own):
            yield from super().predict_parts(size)
            return
        split = "predict" if self.files["predict"] else "test"
        labels = self.verbalizer.labels
        for raw in source.parts(source.paths(given, split) if given else source.files(split), size):
            yield labelled(raw, self._columns, labels, self.skip_bad_rows, True, is_part=True)

    def label_words(self) -> Words:
        """The labels of the training rows, each with its own text behind a space.

        Raises:
            PromptError: If there are none, only one, or so many that they hardly are labels.
        """
        column, raw = self.label_column, self._raw("train")
        found = labels_of(raw, self._columns.label)
        if not 2 <= len(found) <= MOST_LABELS:
            raise PromptError(
                f"{raw.source} has {len(found)} different labels in the column {column!r}, which "
                "cannot be the answers; name the column with --data.label_column, or give each "
                "label an answer with --data.verbalizer."
            )
        log.info(
            for_reader(
                "No --data.verbalizer: the %d labels of %s are the answers, each behind a space."
            ),
            *(len(found), raw.source),
        )
        return {label: f" {label}" for label in found}

    # ---- from files to splits

    @functools.cached_property
    def _source(self) -> DataSource | Tables:
        reading = replace(
            self._table,
            needed=tuple(self._columns.texts.values()),
            wanted=self._columns.wanted,
            skip_bad_rows=self.skip_bad_rows,
        )
        if self._data is not None:
            return Tables(self._data, reading)
        return DataSource(self.path, self.subset, self.data_revision, reading)

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

    def _labelled(self, raw: Rows, to_predict: bool = False) -> Rows:
        """The template's columns as text, and each row's class."""
        labels = self.verbalizer.labels
        self._refuse_renumbered(raw)
        return labelled(raw, self._columns, labels, self.skip_bad_rows, to_predict)

    def _refuse_renumbered(self, raw: Rows) -> None:
        """Of `datasets` each split numbers its classes; words for numbers need the same ones."""
        for name in self._columns.label:
            names = raw.class_names.get(name, [])
            source, first = self._numbered.setdefault(name, (raw.source, names))
            if first[: len(names)] != names[: len(first)] and "0" in self.verbalizer.labels:
                raise PromptError(
                    f"{raw.source} numbers the classes of {name!r} as {names} and {source} as "
                    f"{first}; give all splits one ClassLabel (`cast_column` of datasets), or name "
                    "the classes themselves in --data.verbalizer."
                )

    @functools.cached_property
    def _columns(self) -> Columns:
        """The names that the data may have for what is read."""
        own = {"text": self.text_column, "label": self.label_column}
        names = {
            column: (own.get(column, column), *self.other_columns.get(column, ()))
            for column in (*self.template.columns, "label")
        }
        texts = {column: names[column] for column in self.template.columns}
        return Columns(texts, names["label"], self.id_column, self.extra_columns)
