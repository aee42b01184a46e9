"""The texts that a study of validity asks about: written ones, and groups made of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml

from lightning_prompts.cli.strict_yaml import load_yaml
from lightning_prompts.files.errors import PromptError, first_line
from lightning_prompts.files.text import did_you_mean
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.metrics.panel.frames import KINDS, TaskKind
from lightning_prompts.metrics.panel.written_texts import shipped_texts
from lightning_prompts.report.validity_readings import (
    ANSWERS,
    COMMON,
    LEARNED,
    NOTHING,
    OTHER,
    RANDOM,
    REPEATED,
    SHUFFLED,
    WRITTEN,
    Asked,
)

SEED = 20_000  # not that of the shuffles inside measures
SHUFFLES = 3
FIRST_IDS = 5000  # of a byte-pair vocabulary roughly its most frequent tokens
ENTRY = "{text: ..., from: PEZ}, and accuracy where it is known"


class Learned(NamedTuple):
    """A prompt that was learned: for which task, by what, and how good its answers are."""

    kind: TaskKind
    text: str
    maker: str
    accuracy: float | None


def learned_texts(path: Path) -> list[Learned]:
    """The learned prompts of a file: a task's name, then a list of text, from and accuracy.

    Raises:
        PromptError: If it cannot be read as such.
    """
    try:
        content = load_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise PromptError(f"--learned {path}: not readable ({first_line(error)}).") from error
    if not isinstance(content, dict) or not content:
        raise PromptError(f"--learned {path}: write a task's name, then a list of {ENTRY}.")
    for kind in content:
        if kind not in KINDS:
            raise PromptError(
                f"--learned {path}: {kind!r} is none of the described tasks"
                f"{did_you_mean(str(kind), KINDS)}"
            )
    found = [
        _learned(path, kind, entry)
        for kind, entries in content.items()
        for entry in (entries if isinstance(entries, list) else [entries])
    ]
    if not found:
        raise PromptError(f"--learned {path}: has no text; write a list of {ENTRY}.")
    return found


def _learned(path: Path, kind: TaskKind, entry: Any) -> Learned:
    known = isinstance(entry, dict) and {"text", "from"} <= entry.keys() <= {
        *("text", "from", "accuracy")
    }
    accuracy = entry.get("accuracy") if known else None
    texts = known and all(isinstance(entry[key], str) and entry[key] for key in ("text", "from"))
    number = isinstance(accuracy, int | float) and 0 <= accuracy <= 1
    if not texts or not (accuracy is None or number):
        raise PromptError(
            f"--learned {path}: {kind} has {entry!r}; write {ENTRY} as a share from 0 to 1."
        )
    return Learned(kind, entry["text"], entry["from"], accuracy)


def ask(lm: FrozenLM, learned: Sequence[Learned] = ()) -> list[Asked]:
    """All texts in one model's tokens, each with the task that it is asked about.

    What is drawn is drawn by a fixed seed. In which order tokens stand is all that tells a shuffle
    from its text: it is read by its tokens and not tokenized anew.

    Raises:
        PromptError: If the model has no row for a token of a text.
    """
    tasks, nothing = shipped_texts()
    generator = torch.Generator().manual_seed(SEED)
    found: list[Asked] = []

    def add(group: str, kind: TaskKind, source: int, ids: Sequence[int], *about: Any) -> None:
        found.append(Asked(group, kind, source, tuple(ids), lm.decode(ids), *about))

    def draw(ids: Sequence[int], count: int) -> list[int]:
        return [ids[i] for i in torch.randint(len(ids), (count,), generator=generator).tolist()]

    texts = [(kind, lm.encode(text)) for kind, task in tasks.items() for text in task.texts]
    special = set(lm.special_ids)
    every = [i for i in range(lm.vocab_size) if i not in special]
    common = [i for i in every if i < FIRST_IDS]
    for source, (kind, ids) in enumerate(texts):
        add(WRITTEN, kind, source, ids)
        for _ in range(SHUFFLES):
            add(SHUFFLED, kind, source, _shuffled(ids, generator))
        for other in KINDS:
            if other != kind:
                add(OTHER, other, source, ids)
        add(COMMON, kind, source, draw(common, len(ids)))
        add(RANDOM, kind, source, draw(every, len(ids)))
        words = "".join(f" {word}" for word in tasks[kind].answers) * len(ids)
        add(ANSWERS, kind, source, lm.encode(words)[: len(ids)])
        add(REPEATED, kind, source, draw(ids, 1) * len(ids))
    for source, text in enumerate(nothing):
        add(NOTHING, KINDS[source % len(KINDS)], source, lm.encode(text))
    for source, each in enumerate(learned):
        ids = lm.encode(each.text, f"The text {each.text!r}")
        add(LEARNED + each.maker, each.kind, source, ids, each.accuracy)
    return found


def answer_words() -> dict[TaskKind, list[str]]:
    """Of each task."""
    return {kind: task.answers for kind, task in shipped_texts()[0].items()}


def _shuffled(ids: list[int], generator: torch.Generator) -> list[int]:
    """The tokens in another order, where they have one."""
    while True:
        order = torch.randperm(len(ids), generator=generator).tolist()
        found = [ids[i] for i in order]
        if found != ids or len(set(ids)) == 1:
            return found
