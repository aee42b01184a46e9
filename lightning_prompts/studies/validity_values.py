"""What one language model's measures say of the texts of a study of validity; kept as they come."""

import hashlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_prompts.files.amounts import count
from lightning_prompts.files.atomic_files import append_line, read_lines
from lightning_prompts.files.console import notice
from lightning_prompts.files.version import __version__
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.metrics.panel.frames import KINDS, TaskKind
from lightning_prompts.metrics.panel.likelihood import (
    Unmeasured,
    grammar,
    natural_percentile,
    readable,
    shuffles,
)
from lightning_prompts.metrics.panel.task_identification import (
    TASK_SHUFFLES,
    identified,
    task_scores,
)
from lightning_prompts.metrics.panel.words import natural_words, real_words, repetition
from lightning_prompts.metrics.scrutability import row_nats
from lightning_prompts.report.validity_readings import VALUES, Asked, Reading
from lightning_prompts.studies.progress import duration
from lightning_prompts.studies.validity_texts import answer_words

AT_ONCE = 8  # texts: what a kill loses
NOTICES = 10  # of how far it is

Ids = tuple[int, ...]
known_words = cache(natural_words)
ONE_BY_ONE: Mapping[str, Callable[[FrozenLM, Ids], float]] = {
    "natural_percentile": natural_percentile,
    "grammar": grammar,
    "repetition": lambda _, ids: repetition(ids),
    "real_words": lambda lm, ids: real_words(lm.decode(ids), known_words()),
}
Kept = dict[str, dict[str, Any]]
"""By text and model, then by measure: a number, or numbers by the names of tasks and values."""


class Measuring:
    """One model, and what is known of each text.

    Args:
        lm: Reads.
        label: Its name in the results.
        measures: Names of measures, a part of those in `VALUES`.
        path: The file that keeps what is known.
        kept: What it keeps already; the new values are added.
        shuffles: Of each text that `task_identification` reads beside it.
    """

    def __init__(
        self,
        lm: FrozenLM,
        label: str,
        measures: Sequence[str],
        path: Path,
        kept: Kept,
        shuffles: int = TASK_SHUFFLES,
    ) -> None:
        self.lm, self.label, self.measures = lm, label, list(measures)
        self.shuffles = shuffles
        self.path, self.kept = path, kept
        self.left_out: dict[str, str] = {}
        self._answered: dict[TaskKind, Tensor] = {}

    def reading(self, asked: Sequence[Asked]) -> Reading:
        """The values of all texts, those that are not known measured first."""
        texts = sorted(dict.fromkeys(each.ids for each in asked), key=lambda ids: (len(ids), ids))
        todo = [ids for ids in texts if self._missing(ids)]
        notice(
            f"{self.label}: {count(len(todo), 'text')} to read, {len(texts) - len(todo):,} kept."
        )
        begun, said = time.monotonic(), 0
        for start in range(0, len(todo), AT_ONCE):
            self._measure(todo[start : start + AT_ONCE])
            done = min(len(todo), start + AT_ONCE)
            if done * NOTICES // len(todo) > said or start == 0:
                said = done * NOTICES // len(todo)
                left = (time.monotonic() - begun) / done * (len(todo) - done)
                notice(f"{self.label}: {done:,} of {len(todo):,}, about {duration(left)} left.")
        values = {
            value.name: [self._value(each, value.measure, value.name) for each in asked]
            for value in VALUES
            if value.measure in self.measures
        }
        return Reading(self.label, list(asked), values, self.left_out, self.shuffles)

    def _measure(self, texts: Sequence[Ids]) -> None:
        """Measure texts and keep them; what cannot be measured of one is left out of the study."""
        found: list[dict[str, Any]] = [{} for _ in texts]
        for measure in list(self.measures):
            todo = [i for i, ids in enumerate(texts) if measure in self._missing(ids)]
            try:
                values = self._values(measure, [texts[i] for i in todo]) if todo else []
                if not all(map(_finite, values)):
                    raise Unmeasured("a text has a value that is no finite number")
            except Unmeasured as error:
                self.measures.remove(measure)
                self.left_out[measure] = str(error)
                notice(f"{self.label}: {measure} is left out: {error}.")
                continue
            for i, value in zip(todo, values, strict=True):
                found[i][measure] = value
        for ids, measured in zip(texts, found, strict=True):
            key = self._key(ids)
            self.kept.setdefault(key, {}).update(measured)
            about = {"key": key, "model": self.label, "text": self.lm.decode(ids)}
            append_line(self.path, {**about, "values": measured})

    def _values(self, measure: str, texts: Sequence[Ids]) -> list[Any]:
        """A number of each text, or what `task_identification` says, by the names of tasks."""
        if measure == "perplexity":
            return self._perplexities(texts)
        if measure == "task_identification":
            return self._identified(texts)
        return [ONE_BY_ONE[measure](self.lm, ids) for ids in texts]

    def _perplexities(self, texts: Sequence[Ids]) -> list[float]:
        nats = row_nats(self.lm, [readable(self.lm, ids) for ids in texts])
        lengths = torch.tensor([len(ids) for ids in texts])
        return (nats / lengths).exp().tolist()  # inf where no float holds it

    def _identified(self, texts: Sequence[Ids]) -> list[dict[str, dict[str, float]]]:
        """What is said where each task is taken for the true one; a text is read once for all."""
        lm = self.lm
        if not self._answered:
            words = [" ".join(answers) for answers in answer_words().values()]
            scores = task_scores(lm, [readable(lm, ids) for ids in lm.tokenize(words)])
            self._answered = {kind: scores[:, i] for i, kind in enumerate(answer_words())}
        rows = [row for ids in texts for row in (readable(lm, ids), *shuffles(ids, self.shuffles))]
        of_texts = task_scores(lm, rows).split(1 + self.shuffles, 1)
        return [
            {kind: asdict(identified(scores, self._answered[kind], kind)) for kind in KINDS}
            for scores in of_texts
        ]

    def _missing(self, ids: Ids) -> list[str]:
        known = self.kept.get(self._key(ids), {})
        return [measure for measure in self.measures if measure not in known]

    def _value(self, asked: Asked, measure: str, name: str) -> float:
        value = self.kept[self._key(asked.ids)][measure]
        return value if isinstance(value, float) else value[asked.kind][name]

    def _key(self, ids: Ids) -> str:
        """Names all that the values depend on."""
        lm = self.lm
        setting = (lm.fingerprint, str(lm.embedding_table.dtype), __version__, answer_words())
        given = (setting, ids) if self.shuffles == TASK_SHUFFLES else (setting, ids, self.shuffles)
        return hashlib.sha256(repr(given).encode()).hexdigest()[:16]


def _finite(value: Any) -> bool:
    return all(map(_finite, value.values())) if isinstance(value, dict) else math.isfinite(value)


def read_kept(path: Path) -> Kept:
    """What a file keeps."""
    kept: Kept = {}
    for key, values in read_lines(path, lambda row: (row["key"], dict(row["values"]))):
        kept.setdefault(key, {}).update(values)
    return kept
