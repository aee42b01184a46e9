"""What `check` finds in the rows of a task, and what it warns of."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from lightning_prompts.files.amounts import ENOUGH_ROWS, count, share, standard_error
from lightning_prompts.lm.batch import Example
from lightning_prompts.tasks.base import PromptTask
from lightning_prompts.tasks.comparing import (
    Agreement,
    Repeats,
    agreements,
    keys,
    repeats,
    shared,
    shift,
)
from lightning_prompts.tasks.rows import SPLIT_SEED, Rows, stratified_order

SAMPLE = 512  # rows of a split that are tokenized
FEW = 0.01  # of rows that are repeated, shared or cut: less is not worth a warning
# Of a correlation by the words: chance goes beyond so many standard errors once in 4,000 pairs.
Z, PHI = -3.5, -0.1
SHIFT, SHIFT_Z = 0.1, 4.0  # difference of a class's shares, and the same in standard errors
HELD_OUT = {"validation": "to choose the prompt", "test": "to score it"}


class Split(NamedTuple):
    """What there is to know of a split.

    Attributes:
        rows: How many.
        classes: Of each class.
        keys: What each row says.
        repeats: Rows that say what another one says.
        in_train: Rows that stand in the training split too; None for that one itself.
        examples: Of a sample.
        lengths: Their tokens before they were cut, sorted.
        cut: Of the sample, those that were cut to fit.
        limit: Most tokens that fit.
    """

    rows: int
    classes: list[int]
    keys: list[bytes]
    repeats: Repeats
    in_train: int | None
    examples: list[Example]
    lengths: list[int]
    cut: int
    limit: int

    def quantile(self, share: float) -> int:
        """Tokens that this share of the sample does not exceed, at most those that fit."""
        place = min(len(self.lengths) - 1, int(share * len(self.lengths)))
        return min(self.lengths[place], self.limit)

    @property
    def mean_length(self) -> float:
        """Tokens of a row of the sample, cut to fit."""
        return sum(len(e.before_ids) + len(e.after_ids) for e in self.examples) / len(self.examples)


def look_at(task: PromptTask, name: str) -> Split:
    """Read a split, and tokenize a sample of it with the classes in their shares.

    Raises:
        PromptError: If a row is bad, or cannot be cut to fit.
    """
    rows = task.rows(name)
    columns = task.template.columns
    own = keys(rows, columns)
    num_classes = len(task.verbalizer.labels)
    some = rows.take(stratified_order(rows.labels, SPLIT_SEED)[:SAMPLE])
    examples = task.encoded_examples(some)
    whole = [task.template.encode(row) for row in some.rows]
    in_train = None
    if name != "train" and task.has("train"):
        in_train = shared(own, keys(task.rows("train"), columns))
    return Split(
        len(rows),
        [rows.labels.count(index) for index in range(num_classes)],
        own,
        repeats(own, rows.labels),
        in_train,
        examples,
        sorted(len(e.before_ids) + len(e.after_ids) for e in whole),
        sum(example.cut for example in examples),
        task.report.max_tokens,
    )


def data_warnings(task: PromptTask, splits: Mapping[str, Split]) -> list[str]:
    """All that is suspicious in the rows and the answers, each with what to do."""
    return [
        *_of_splits(task, splits),
        *(warning for name, split in splits.items() for warning in _of_rows(task, name, split)),
        *_of_answers(task),
    ]


def word_lines(task: PromptTask, splits: Mapping[str, Split]) -> Iterator[tuple[str, str | None]]:
    """Whether labels mean the same in all splits: what is said of it, and the warning if not."""
    labels = task.verbalizer.labels
    rows: dict[str, Rows] = {name: task.rows(name) for name in splits}
    found = agreements(rows, task.template.columns, len(labels))
    if found:
        said = ", ".join(f"{a.learned} on {a.scored} {a.phi:+.2f} (z {a.z:+.1f})" for a in found)
        yield (
            (
                f"Labels by their words, clearly negative where they are swapped (naive Bayes; "
                f"correlation, of the two classes that agree least): {said}"
            ),
            _of_words(found, labels),
        )
    for name, split in splits.items():
        if name == "train" or "train" not in splits:
            continue
        index, p, q, z = shift(split.classes, splits["train"].classes)
        if 0 < p < 1 and abs(p - q) >= SHIFT and abs(z) >= SHIFT_Z:
            yield (
                (f"Label {labels[index]!r} is {p:.3f} of {name} and {q:.3f} of train (z {z:+.1f})"),
                (
                    f"Label {labels[index]!r} has a share of {p:.3f} in {name} and of {q:.3f} in "
                    f"train (z {z:+.1f}): labels may be swapped in one of them; correct them, or "
                    "draw both splits alike."
                ),
            )


def _of_words(found: list[Agreement], labels: tuple[str, ...]) -> str | None:
    against = [a for a in found if a.z <= Z and a.phi <= PHI]
    if not against:
        return None
    worst = min(against, key=lambda a: a.z)
    one, other = (labels[index] for index in worst.classes)
    # The split that others speak against; where only two speak, nobody knows which it is.
    suspects = {worst.learned, worst.scored}
    for a in found:
        if a not in against and a.z >= -Z and a.classes == worst.classes:
            suspects -= {a.learned, a.scored}
    for a in against:
        suspects = suspects & {a.learned, a.scored} or suspects
    which = " or ".join(sorted(suspects))
    return (
        f"Labels {one!r} and {other!r} look swapped in {which}: what the words of {worst.learned} "
        f"say of the labels of {worst.scored} is the contrary (correlation {worst.phi:+.2f}, "
        f"z {worst.z:+.1f}, {count(worst.rows, 'row')}); correct the labels of {which}."
    )


def _of_splits(task: PromptTask, splits: Mapping[str, Split]) -> Iterator[str]:
    if not task.has("test"):
        yield "There are no test rows; name a file with --data.test FILE to test the best prompt."
    few = {name: splits[name].rows for name in HELD_OUT if name in splits}
    few = {name: rows for name, rows in few.items() if rows < ENOUGH_ROWS}
    if not few:
        return
    least = min(few.values())
    said = " and ".join(f"{count(n, f'{name} row')} ({HELD_OUT[name]})" for name, n in few.items())
    files = " and ".join(f"--data.{name} FILE" for name in few)
    yield (
        f"Held out are only {said}: one row more or less is {share(1 / least)} of the accuracy, "
        f"whose standard error is up to {share(standard_error(0.5, least))}; label more rows "
        f"({files}), or where one file is divided hold out a larger share of it (--data.split)."
    )


def _of_rows(task: PromptTask, name: str, split: Split) -> Iterator[str]:
    labels, n = task.verbalizer.labels, split.rows
    missing = [repr(label) for label, c in zip(labels, split.classes, strict=True) if not c]
    if missing and task.has(name):
        yield (
            f"No {name} row has the label {' or '.join(missing)}, so its accuracy says nothing of "
            f"that class; take other rows with --data.{name} FILE, or remove the label from "
            "--data.verbalizer."
        )
    if split.repeats.rows > FEW * n:
        yield (
            f"{split.repeats.rows:,} of {count(n, f'{name} row')} repeat another one "
            f"({split.repeats.rows / n:.0%}); remove them, they count more than others."
        )
    if split.repeats.contradicting > FEW * n:
        yield (
            f"{split.repeats.contradicting:,} of {count(n, f'{name} row')} have the text of "
            f"another row and not its label ({split.repeats.contradicting / n:.0%}); decide which "
            "one is right, or remove both."
        )
    if split.in_train and split.in_train > FEW * n:
        yield (
            f"{split.in_train:,} of {count(n, f'{name} row')} stand in train too "
            f"({split.in_train / n:.0%}), so a prompt is measured on what it was trained on; "
            "remove them from train."
        )
    if split.cut > FEW * len(split.lengths):
        limit = task.report.max_tokens
        columns = task.template.columns
        where = f"the column {task.truncate!r}" if task.truncate else "its longest column"
        by_choice = task.max_tokens is not None and limit == task.max_tokens
        fix = (
            f"raise --data.max_tokens (to {split.lengths[-1]} for all)"
            if by_choice
            else "take a model of more positions, shorten --model.prompt_length or the texts"
        )
        whose = "are asked for" if by_choice else f"{task.lm.label} has room for"
        other = ", or cut another column with --data.truncate" if len(columns) > 1 else ""
        yield (
            f"{split.cut / len(split.lengths):.0%} of the {name} rows are longer than the "
            f"{limit} tokens that {whose} (the longest of {len(split.lengths)} has "
            f"{split.lengths[-1]}) and lose the end of {where}; {fix}{other}."
        )


def _of_answers(task: PromptTask) -> Iterator[str]:
    verbalizer = task.verbalizer
    for label, answers, tokens in zip(
        verbalizer.labels, verbalizer.answers, verbalizer.tokens, strict=True
    ):
        for answer, ids in zip(answers, tokens, strict=True):
            if len(ids) > 1:
                pieces = " + ".join(map(repr, task.lm.token_strings(ids)))
                yield (
                    f"The answer {answer!r} of label {label!r} has {len(ids)} tokens ({pieces}): "
                    f"each row is read {count(len(ids) - 1, 'token')} further, and with "
                    "--data.answer_score sum a longer answer scores lower; give a word of one "
                    "token in --data.verbalizer, or score with mean or pmi."
                )
