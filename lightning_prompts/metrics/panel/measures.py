"""The panel: measures of a prompt's text by their names, each for itself, none added to another."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from weakref import WeakKeyDictionary

from lightning_prompts.files.errors import PromptError
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.metrics.panel.answered import AnsweredRows
from lightning_prompts.metrics.panel.frames import TaskKind
from lightning_prompts.metrics.panel.likelihood import Unmeasured, grammar, natural_percentile
from lightning_prompts.metrics.panel.simulatability import Simulatability, simulatability
from lightning_prompts.metrics.panel.task_identification import (
    TaskIdentification,
    task_identification,
)
from lightning_prompts.metrics.panel.token_effects import TokenEffects, token_effects
from lightning_prompts.metrics.panel.words import (
    as_characters,
    copied_run,
    frequent_words,
    natural_words,
    real_words,
    repetition,
)

log = logging.getLogger(__name__)


@dataclass(eq=False)
class TaskFacts:
    """What measures ask of the task that a prompt is for.

    Attributes:
        kind: Which of the described tasks it is; None where it is none of them.
        answers: The words that it is answered with.
        texts: Of training rows.
        rows: That the prompt has answered, for the costly measures.
        shuffled: Whether `task_identification` reads shuffles of the text as well, most of its
            cost; without them `task_margin_over_shuffled` is left out.
    """

    kind: TaskKind | None = None
    answers: Sequence[str] = ()
    texts: Sequence[str] = ()
    rows: AnsweredRows | None = None
    shuffled: bool = True

    @cached_property
    def known_words(self) -> set[str]:
        """Words of natural sentences, and those that the texts have twice or more."""
        return natural_words() | frequent_words(self.texts)

    @cached_property
    def _encoded(self) -> "WeakKeyDictionary[FrozenLM, str]":
        return WeakKeyDictionary()

    def characters(self, lm: FrozenLM) -> str:
        """The texts for `copied_run`, each tokenized behind a space, as behind a prompt."""
        if lm not in self._encoded:
            self._encoded[lm] = as_characters(lm.tokenize([f" {text}" for text in self.texts]))
        return self._encoded[lm]


@dataclass(frozen=True)
class _Reading:
    """What is read, and by whom."""

    lm: FrozenLM
    ids: list[int]
    text: str
    task: TaskFacts


def _task_identification(read: _Reading) -> dict[str, float]:
    task = read.task
    if task.kind is None:
        raise Unmeasured(
            "which of the described tasks this one is is not known; say so by --data.task_kind"
        )
    found = task_identification(read.lm, read.ids, task.kind, task.answers, task.shuffled)
    left_out = () if task.shuffled else (OVER_SHUFFLED,)
    return {name: value for name, value in asdict(found).items() if name not in left_out}


def _copied_run(read: _Reading) -> dict[str, float]:
    if not read.task.texts:
        raise Unmeasured("there are no training texts")
    return {"copied_run": float(copied_run(read.ids, read.task.characters(read.lm)))}


def _rows(read: _Reading) -> AnsweredRows:
    if read.task.rows is None:
        raise Unmeasured("there are no rows with labels that answer words stand for")
    return read.task.rows


def _token_effects(read: _Reading) -> dict[str, float]:
    return over_rows(token_effects(_rows(read)))


def _simulatability(read: _Reading) -> dict[str, float]:
    return over_rows(simulatability(read.lm, read.ids, _rows(read)))


def over_rows(found: TokenEffects | Simulatability) -> dict[str, float]:
    """The values of a measure that passes over rows, each followed by the ends of its interval."""
    values: dict[str, float] = {}
    for name, (low, high) in found.intervals.items():
        values |= {name: getattr(found, name), f"{name}{LOW}": low, f"{name}{HIGH}": high}
    return values


OVER_SHUFFLED = "task_margin_over_shuffled"
LOW, HIGH = "_low", "_high"  # behind the name of a value: the ends of its interval over rows
ALL = "all"  # stands for every measure
LOGGED: Mapping[str, tuple[str, ...]] = {
    "token_effects": ("effect_of_tokens", "effect_of_order", "filler"),
    "simulatability": ("simulatability", "simulatability_kappa"),
}
# Values of which more is better, each with its measure, of those that pass over no rows.
OF_MORE: Mapping[str, str] = {
    **{name: name for name in ("natural_percentile", "grammar", "real_words")},
    **{
        each.name: "task_identification"
        for each in fields(TaskIdentification)
        if each.name != "task_rank"
    },
}
MEASURES: Mapping[str, Callable[[_Reading], dict[str, float]]] = {
    "natural_percentile": lambda r: {"natural_percentile": natural_percentile(r.lm, r.ids)},
    "task_identification": _task_identification,
    "grammar": lambda r: {"grammar": grammar(r.lm, r.ids)},
    "repetition": lambda r: {"repetition": repetition(r.ids)},
    "real_words": lambda r: {"real_words": real_words(r.text, r.task.known_words)},
    "copied_run": _copied_run,
    "token_effects": _token_effects,
    "simulatability": _simulatability,
}
COSTLY = tuple(LOGGED)
"""Those that pass over the task's rows again."""
CHEAP = tuple(name for name in MEASURES if name not in COSTLY)
VALID = ("natural_percentile", "grammar", "copied_run")
"""What a test measures unasked: what tells written prompts from others in the study `validity`, and
how much is copied, which is a fact and not a judgement."""


def scrutability_panel(
    lm: FrozenLM,
    prompt: str | Sequence[int],
    measures: Sequence[str] = CHEAP,
    task: TaskFacts | None = None,
    say: Callable[[str], None] = log.info,
) -> dict[str, float]:
    """Measures of a prompt's text, by the names under which they are logged.

    What cannot be measured (no token, no known task, no training texts, more tokens than positions)
    is left out, and why is said.

    Args:
        lm: The language model that reads.
        prompt: The text, or its token ids in this model.
        measures: Names of `MEASURES`; one can have several values.
        task: Which the prompt is for.
        say: Takes a sentence for each measure that is left out.

    Raises:
        PromptError: If there is no measure of a name.
    """
    refuse_unknown(measures)
    (ids,) = lm.tokenize([prompt]) if isinstance(prompt, str) else (list(prompt),)
    text = prompt if isinstance(prompt, str) else lm.decode(ids)
    read = _Reading(lm, ids, text, task or TaskFacts())
    if not ids:
        say("The panel of scrutability is left out: the prompt's text is empty.")
        return {}
    found: dict[str, float] = {}
    for name in measures:
        try:
            found |= MEASURES[name](read)
        except PromptError as error:
            say(f"{name} is left out: {str(error).rstrip('.')}.")
    return found


def chosen(names: str | Sequence[str], option: str = "--scrutability.panel") -> tuple[str, ...]:
    """The measures that names, or one name, stand for: `all` for every one.

    Raises:
        PromptError: If there is no measure of a name.
    """
    names = [names] if isinstance(names, str) else names
    refuse_unknown([name for name in names if name != ALL], option)
    return tuple(MEASURES) if ALL in names else tuple(names)


def refuse_unknown(measures: Sequence[str], option: str = "--scrutability.panel") -> None:
    """Refuse a name that no measure has.

    Args:
        measures: Names.
        option: That they were given by.

    Raises:
        PromptError: At the first one; the message names those that there are.
    """
    for name in measures:
        if name not in MEASURES:
            raise PromptError(
                f"{option} names {name!r}, which is no measure; give some of {', '.join(MEASURES)}."
            )
