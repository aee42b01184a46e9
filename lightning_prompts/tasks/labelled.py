"""From rows as their source has them to rows of text with a class each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lightning_prompts.tasks.columns import EmptyText, id_of, label_of, text_of
from lightning_prompts.tasks.left_out import leave_out
from lightning_prompts.tasks.rows import BadRow, Row, Rows


@dataclass(frozen=True)
class Columns:
    """Under which names the data may have what a task needs.

    Attributes:
        texts: For each column of the template.
        label: For the label.
        id: For what tells rows apart, which only predictions have a use for; None for nothing.
        others: For what the task reads beside them.
    """

    texts: Mapping[str, tuple[str, ...]]
    label: tuple[str, ...]
    id: str | None = None
    others: tuple[str, ...] = ()

    @property
    def wanted(self) -> tuple[tuple[str, ...], ...]:
        """All that a row need not have."""
        return (self.label, *((name,) for name in (self.id, *self.others) if name))


def labelled(
    raw: Rows,
    columns: Columns,
    labels: Sequence[str],
    skip_bad_rows: bool,
    to_predict: bool,
    is_part: bool = False,
) -> Rows:
    """The template's columns as text, and each row's class, -1 where it has none.

    Args:
        raw: Rows as they are in their source.
        columns: That are read.
        labels: The verbalizer's.
        skip_bad_rows: Whether bad rows are left out rather than refused.
        to_predict: Whether no label is needed; then a row without a text is left out in any case.
        is_part: Whether more rows follow: then it is not said which are left out, and all may be.

    Raises:
        PromptError: At the first bad row, or where none is good.
    """
    rows: list[Row] = []
    classes: list[int] = []
    ids: dict[int, Any] = {}
    bad: dict[int, BadRow] = {}
    for i in range(len(raw)):
        try:
            if i in raw.faults:
                raise raw.faults[i]
            if columns.id:
                ids[raw.numbers[i]] = id_of(raw, i, columns.id, needed=to_predict)
            row = {name: text_of(raw, i, name, names) for name, names in columns.texts.items()}
            label = label_of(raw, i, columns.label, labels, strict=not to_predict)
            if label < 0 and skip_bad_rows and not to_predict:
                raise unlabelled(raw, i, columns.label[0])
            rows.append(row)
            classes.append(label)
        except BadRow as error:
            if not skip_bad_rows and not (to_predict and isinstance(error, EmptyText)):
                raise
            bad[i] = error
    if bad and not rows and not is_part:
        raise bad[min(bad)]
    kept = leave_out(raw, {i: error.reason for i, error in bad.items()}, say=not is_part)
    return replace(kept, rows=rows, labels=classes, ids=ids, class_names={})


def unlabelled(rows: Rows, index: int, column: str, split: str = "") -> BadRow:
    """What is wrong with a row that has no label where one is needed.

    Args:
        rows: As they are in their source, or of one split.
        index: Of the row.
        column: That should have the label.
        split: That needs it, if that is known.
    """
    these = f"{split} rows".strip()
    return BadRow(
        f"{rows.place(index)} has no label (column {column!r} is absent, empty or -1; columns "
        f"found: {', '.join(rows.columns)}), so these {these} cannot be used; name the column with "
        "--data.label_column, leave such rows out with --data.skip_bad_rows true, or use "
        "`predict`, which needs no labels.",
        "no label",
    )
