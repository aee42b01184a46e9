"""Cells of rows by the names of their columns, and the text or the label that they hold."""

import re
from collections.abc import Sequence
from typing import Any

from lightning_prompts.files.text import shorten
from lightning_prompts.tasks.labels import class_index, is_missing, label_text
from lightning_prompts.tasks.rows import ABSENT, TWICE, BadRow, Rows, find

SEVERAL = re.compile(r"[;,|/\n]")  # what stands between labels that share a cell


def first_of(raw: Rows, index: int, names: Sequence[str]) -> tuple[str | None, Any]:
    """The first of some names that a row has, with what stands there; None where it has none.

    Raises:
        BadRow: If the source names that column twice.
    """
    for name in names:
        if (value := find(raw.rows[index], name)) is TWICE:
            raise BadRow(
                f"{raw.place(index)} has {name!r} twice, and which is meant cannot be known; "
                "rename or remove one.",
                f"{name!r} twice",
            )
        if value is not ABSENT:
            return name, value
    return None, ABSENT


def text_of(raw: Rows, index: int, column: str, names: Sequence[str]) -> str:
    """The text that a row has for a column of the template.

    Args:
        raw: Rows as they are in their source.
        index: Of the row.
        column: As the template names it.
        names: As the data may name it.

    Raises:
        BadRow: If there is none.
    """
    found, value = first_of(raw, index, names)
    if found is None:
        fix = "name it with --data.text_column" if column == "text" else "change --data.template"
        known = ", ".join(map(repr, raw.columns if raw.table else raw.rows[index]))
        raise BadRow(
            f"{raw.place(index)} has no column {' or '.join(map(repr, names))} (columns found: "
            f"{known}) for {{{column}}} of the template; {fix}{raw.advice}.",
            f"no column {names[0]!r}",
        )
    if isinstance(value, list | dict | bytes):
        inner = next(iter(value), "") if isinstance(value, dict) else 0
        fix = "give one text a row"
        if value and not isinstance(value, bytes):
            fix += f", or name the part that is meant, such as {{{found}.{inner}}} in the template"
        raise BadRow(
            f"{raw.place(index)} has {type(value).__name__} {shorten(repr(value), 40)} in the "
            f"column {found!r}, not a text; {fix}.",
            f"no text but a {type(value).__name__} in {found!r}",
        )
    text = "" if value is None or value != value else str(value)
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise BadRow(
            f"{raw.place(index)} has half a character (a lone surrogate) in {found!r}; repair the "
            "text or remove the row.",
            f"half a character in {found!r}",
        )
    if not text.strip():
        raise EmptyText(
            f"{raw.place(index)} has an empty {found!r}; fill it in, remove the row, or leave such "
            "rows out with --data.skip_bad_rows true.",
            f"an empty {found!r}",
        )
    return text


class EmptyText(BadRow):
    """A row has no text, for which there is nothing to predict."""


def id_of(raw: Rows, index: int, name: str, needed: bool) -> str | int | float | bool | None:
    """What a row is called in the data; None where it has no name and need not have one.

    Args:
        raw: Rows as they are in their source.
        index: Of the row.
        name: Of the column.
        needed: Whether the row must have it.

    Raises:
        BadRow: If it must and does not.
    """
    found, value = first_of(raw, index, (name,))
    if found is None and not needed:
        return None
    if found is None:
        known = ", ".join(map(repr, raw.columns if raw.table else raw.rows[index]))
        raise BadRow(
            f"{raw.place(index)} has no column {name!r} (columns found: {known}); change "
            "--data.id_column.",
            f"no column {name!r}",
        )
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def label_of(
    raw: Rows, index: int, names: Sequence[str], labels: Sequence[str], strict: bool
) -> int:
    """The class of a row.

    Args:
        raw: Rows as they are in their source.
        index: Of the row.
        names: That the data may have for the column of the label.
        labels: The verbalizer's.
        strict: Whether what the verbalizer has no word for is refused.

    Returns:
        -1 where the row has no label (or, not strict, one that is not known).

    Raises:
        BadRow: If the label is not known, or there are several.
    """
    column, value, class_names = _label(raw, index, names)
    if column is None:
        return -1
    several = isinstance(value, list | tuple)
    found = class_index(value, labels, class_names)
    if found is not None or not strict:
        return -1 if found is None else found
    parts = value if several else SEVERAL.split(str(value))
    shown = shorten(repr(value), 80)
    if len(parts) > 1 and all(class_index(p, labels, class_names) is not None for p in parts):
        one = f", such as {column}.0 for the first of them" if several else ""
        joint = "" if several else f", give {shown} a word of its own in --data.verbalizer"
        raise BadRow(
            f"{raw.place(index)} has several labels, {shown}, and a prompt gives one answer: name "
            f"a column with one label by --data.label_column{one}{joint}, write a row for each "
            "label, or leave such rows out with --data.skip_bad_rows true.",
            "several labels",
        )
    known = ", ".join(shorten(repr(label), 80) for label in labels)
    raise BadRow(
        f"{raw.place(index)}: the verbalizer has no word for the label {shown}, only for {known}; "
        "add it to --data.verbalizer, remove the row, or leave such rows out with "
        "--data.skip_bad_rows true.",
        f"the unknown label {shorten(repr(value), 40)}",
    )


def labels_of(raw: Rows, names: Sequence[str]) -> list[str]:
    """The texts of all labels of some rows, in the order of their numbers, or else sorted.

    Args:
        raw: Rows as they are in their source; bad ones are passed over.
        names: That the data may have for the column of the label.
    """
    found: dict[str, tuple[float, str]] = {}
    for index in range(len(raw)):
        try:
            column, value, class_names = _label(raw, index, names)
        except BadRow:
            continue
        if column is not None and index not in raw.faults and not isinstance(value, list | tuple):
            text, number = label_text(value, class_names)
            found[text] = number, text
    return sorted(found, key=found.__getitem__)


def _label(raw: Rows, index: int, names: Sequence[str]) -> tuple[str | None, Any, Sequence[str]]:
    """The column and the label of a row, and its classes' names; no column where it has none."""
    column, value = first_of(raw, index, names)
    several = isinstance(value, list | tuple)
    if column is None or (not value if several else is_missing(value)):
        return None, value, ()
    # `labels.0` is of the class that `labels` is a list of.
    class_names = raw.class_names.get(re.sub(r"\.\d+(?=\.|$)", "", column), ())
    return column, value[0] if several and len(value) == 1 else value, class_names
