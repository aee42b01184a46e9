"""Prompts beside the one that is looked at: which ones, and how nearly they answer like it."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from lightning_prompts.files.amounts import count
from lightning_prompts.files.console import notice
from lightning_prompts.files.errors import PromptError
from lightning_prompts.files.text import shorten_middle
from lightning_prompts.metrics.agreement import kappa
from lightning_prompts.metrics.panel.answered import AnsweredRows, recalibrated
from lightning_prompts.metrics.panel.token_effects import accuracies, kl
from lightning_prompts.report import alike
from lightning_prompts.report.alike import Alike, Drawn, Kind
from lightning_prompts.runs.prompt import load_prompt, read_record
from lightning_prompts.studies.given import LISTS, is_missing, path_of, run_of, texts_in
from lightning_prompts.studies.inspect_ways import Scored
from lightning_prompts.studies.written import FIRST, LAST
from lightning_prompts.tasks.base import PromptTask


class Comparisons(NamedTuple):
    """What the prompt is to be compared with.

    Attributes:
        texts: In place of the written prompts for sentiment; none leaves those.
        runs: Beside the texts, each as it was given and where its prompt lies.
    """

    texts: Sequence[str]
    runs: Sequence[tuple[str, Path]]


NO_OTHERS = Comparisons((), ())


class Compared(NamedTuple):
    """A prompt to compare: token ids, or [P, H] vectors."""

    text: str
    prompt: Sequence[int] | Tensor
    kind: Kind = "written"
    name: str = ""


def given_comparisons(words: Sequence[str]) -> Comparisons:
    """What words on the command line name: runs, files with a text a line, texts.

    Raises:
        PromptError: If one is a path that is neither, or its prompt cannot be read.
    """
    texts, runs = list[str](), list[tuple[str, Path]]()
    for word in words:
        path, run = path_of(word), run_of(word)
        if run:
            read_record(run)
            runs.append((word, run))
        elif path and path.is_file() and path.suffix in LISTS:
            texts += texts_in(path)
        elif path or not word.strip() or is_missing(word):
            raise PromptError(
                f"--compare {word}: neither a run's folder nor a file with a text a line (.txt, "
                ".jsonl); give one of these, or a text, which may begin with a space."
            )
        else:
            texts.append(word)
    return Comparisons(texts, runs)


def compared(
    task: PromptTask, given: Comparisons, say: Callable[[str], None]
) -> Iterator[Compared]:
    """The prompts; of the package's written ones those that the model can read.

    Args:
        task: Whose model and template they are read in.
        given: What was asked for.
        say: Takes sentences on what is left out, and on what differs.

    Raises:
        PromptError: If one that was given is too long, or not of this model.
    """
    lm = task.lm
    own = task.kind == "sentiment" and not given.texts
    if not own and not given.texts:
        say(
            "No written prompt is compared with it: those of the package are for sentiment; "
            "give some with --compare TEXT."
        )
    for text in given.texts or ((FIRST if task.template.shared_before else LAST) if own else ()):
        what = f"The text {shorten_middle(repr(text), 60)}"
        try:
            ids = lm.encode(text, what)
            refuse_long(task, len(ids), what)
        except PromptError as error:
            if not own:
                raise
            say(f"{what} is left out: {error}")
            continue
        yield Compared(text, ids)
    for name, run in given.runs:
        found = load_prompt(run, lm)
        refuse_long(task, len(found.embeddings), name)
        if found.record.template != task.template.given:
            say(
                f"{name} was learned in the template {found.record.template_text!r}, and is "
                f"compared in {task.template.given!r}."
            )
        vectors = found.embeddings.to(lm.embedding_table)
        soft = found.record.soft_in_use
        yield Compared(found.text, vectors if soft else found.ids, alike.RUN, name)


def refuse_long(task: PromptTask, tokens: int, what: str) -> None:
    """Refuse a prompt that leaves no room for a row.

    Raises:
        PromptError: If it does.
    """
    lm = task.lm
    if tokens >= lm.max_positions - task.verbalizer.depth:
        raise PromptError(
            f"{what} has {count(tokens, 'token')} in {lm.label}, which has "
            f"{lm.max_positions:,} positions; give a shorter one."
        )


def acting_alike(
    rows: AnsweredRows, in_use: Scored, others: Sequence[Compared], nearest: Scored | None
) -> list[Drawn]:
    """Each prompt beside the one in use, those that act most alike first.

    Args:
        rows: That are answered.
        in_use: What the prompt in use scores.
        others: To compare with it.
        nearest: What its nearest tokens score, where its vectors are in use.
    """
    if others:
        notice(f"Comparing with {count(len(others), 'other prompt')}")
    scored = [(other, rows.log_shares(other.prompt)) for other in others]
    if nearest is not None:
        text = rows.lm.decode(rows.prompt)
        scored.append((Compared(text, rows.prompt, alike.NEAREST), nearest))
    found = [_beside(rows, in_use, other, its) for other, its in scored]
    return sorted(found, key=lambda each: (-each.prompt.kappa_recalibrated, each.prompt.kl))


def _beside(rows: AnsweredRows, in_use: Scored, other: Compared, scored: Scored) -> Drawn:
    raw, after = (
        kappa(ours.argmax(-1), theirs.argmax(-1))
        for ours, theirs in (
            (in_use[0], scored[0]),
            (recalibrated(*in_use), recalibrated(*scored)),
        )
    )
    draws, intervals = alike.resampled(in_use, scored)
    found = Alike(
        other.text,
        raw,
        after,
        kl(in_use[0], scored[0]),
        *accuracies(*scored, rows.labels),
        kind=other.kind,
        name=other.name,
        intervals=intervals,
    )
    return Drawn(found, draws)
