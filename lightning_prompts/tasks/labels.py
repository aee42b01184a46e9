"""Labels as data has them, matched to the labels of a verbalizer."""

from collections.abc import Iterator, Sequence


def class_index(
    value: object, labels: Sequence[str], class_names: Sequence[str] = ()
) -> int | None:
    """Class of a label, None where the verbalizer has no word for it.

    Args:
        value: A number, text, or truth value. True is also found as "true" and "1".
        labels: The verbalizer's labels, in the order of the classes.
        class_names: Where `value` is a class number of a `datasets.ClassLabel`, its names. The
            verbalizer may have all the numbers, or else the names.

    >>> class_index(True, ["0", "1"]), class_index(1.0, ["0", "1"]), class_index("x", ["0", "1"])
    (1, 1, None)
    >>> class_index(0, ["Sports", "World"], class_names=["World", "Sports"])
    1
    """
    numbered = all(str(i) in labels for i in range(len(class_names)))
    if class_names and not numbered and isinstance(value, int) and 0 <= value < len(class_names):
        value = class_names[value]
    return next((labels.index(name) for name in _spellings(value) if name in labels), None)


def label_text(value: object, class_names: Sequence[str] = ()) -> tuple[str, float]:
    """A label as a text that `class_index` finds, and the number to sort it by: 0 for a text.

    Args:
        value: A number, text, or truth value.
        class_names: As for `class_index`.

    >>> label_text(True), label_text(2.0), label_text(" late "), label_text(1, ["bad", "good"])
    (('true', 0.0), ('2', 2.0), ('late', 0.0), ('good', 1.0))
    """
    if isinstance(value, bool):
        return str(value).lower(), 0.0
    if class_names and isinstance(value, int) and 0 <= value < len(class_names):
        return class_names[value], float(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str(value).strip()
    return text, float(text) if text.isdecimal() else 0.0


def is_missing(value: object) -> bool:
    """Whether a cell stands for "no label": nothing, NaN, or the -1 of unlabelled test splits."""
    return value is None or value != value or str(value).strip() in ("", "-1", "-1.0")


def _spellings(value: object) -> Iterator[str]:
    """Texts that a label may be written as, the most literal first."""
    yield str(value)
    if isinstance(value, str):
        yield value.strip()
    elif isinstance(value, float) and value.is_integer():
        yield str(int(value))
    if (word := str(value).strip().lower()) in ("true", "false"):
        yield word
        yield "1" if word == "true" else "0"
