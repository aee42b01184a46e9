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
