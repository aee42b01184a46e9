"""Which rows are which split's: those of its own files, or a part of what is cut."""

import logging
from abc import abstractmethod
from dataclasses import replace

from lightning_prompts.files.errors import PromptError
from lightning_prompts.tasks.base import PromptTask
from lightning_prompts.tasks.rows import Rows
from lightning_prompts.tasks.sources import DataSource
from lightning_prompts.tasks.split_files import is_pattern
from lightning_prompts.tasks.splitting import SPLITS, cut
from lightning_prompts.tasks.tables import Tables

log = logging.getLogger(__name__)


class DividedRows(PromptTask):
    """A task whose splits are files, are on the Hub, or are cut from one file or the training rows.

    A subclass says where rows are read and how they become texts and classes.
    """

    files: dict[str, str | None]
    """By split, what was given in place of its rows."""
    shares: dict[str, float]
    """Of training, validation and test rows in one file."""
    _found: dict[str, Rows | None]

    @property
    @abstractmethod
    def _source(self) -> DataSource | Tables:
        """Where rows are read."""

    @abstractmethod
    def _labelled(self, raw: Rows, to_predict: bool = False) -> Rows:
        """The template's columns as text, and each row's class."""

    def has(self, split: str) -> bool:
        """Whether there is such a split."""
        return self._find(split) is not None

    def _find(self, split: str) -> Rows | None:
        """All rows of a split with their classes, None where there is no such split."""
        if split not in self._found:
            self._found.update(self._look_up(split))
        return self._found[split]

    def _look_up(self, split: str) -> dict[str, Rows | None]:
        """The rows of `split`, and of whatever splits come with it."""
        if split == "predict" and not self.files["predict"]:
            if self._source.is_file and not self.files["test"]:
                test = self._find("test")
                # What was left out may be of other parts of the file.
                return {split: None if test is None else replace(test, left_out={})}
            return {split: self._own(split, "test") if self._has_own("test") else None}
        if split in ("train", "validation") and self._must_cut_train:
            parts = cut(self._own("train"), ["train", "validation"], self.shares)
            kept = {name: len(part or ()) for name, part in parts.items()}
            log.info("There are no validation rows; the training rows are divided: %s.", kept)
            return parts
        if self._source.is_file and not self.files[split]:
            free = [name for name in SPLITS if not self.files[name]]
            return cut(self._labelled(self._raw(split)), free, self.shares)
        return {split: self._own(split) if self._has_own(split) else None}

    def _has_own(self, split: str) -> bool:
        """Whether a split has files, or is on the Hub."""
        return bool(self.files[split]) or self._source.has(split)

    def _own(self, split: str, place: str | None = None) -> Rows:
        """The rows of a split that has files, or is on the Hub; those of another one's `place`."""
        return self._labelled(self._raw(place or split), to_predict=split == "predict")

    def _raw(self, place: str) -> Rows:
        """Rows as they are in their source: of one split, or those of the one file."""
        if (given := self.files[place]) is not None:
            assert isinstance(self._source, DataSource)
            self._refuse_overlap(self._source, place, given)
            return self._source.named(given, place)
        if self._source.is_file:
            return self._source.whole_file()
        if not self._source.has(place):
            raise PromptError(self._source.missing(place))
        return self._source.split(place)

    def _refuse_overlap(self, source: DataSource, split: str, pattern: str) -> None:
        """Refuse a pattern that takes in another split's rows, which nobody meant to train on."""
        if not is_pattern(pattern):
            return
        own = set(source.paths(pattern, split))
        for other in SPLITS:
            given = self.files[other]
            if other == split or not self._has_own(other) or source.is_hub:
                continue
            theirs = source.paths(given, other) if given else source.files(other)
            if both := sorted(own.intersection(theirs)):
                raise PromptError(
                    f"--data.{split} {pattern} takes in {both[0]}, which has {other} rows; give a "
                    "narrower pattern."
                )

    @property
    def _must_cut_train(self) -> bool:
        """Whether there are training rows but no validation rows."""
        if self.files["validation"] or self._source.is_file or self._source.has("validation"):
            return False
        return bool(self.files["train"]) or self._source.has("train")
