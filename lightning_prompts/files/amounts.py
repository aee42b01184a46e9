"""Numbers in sentences: counts with their nouns, and values that differ in print where they differ.

A sentence that says that one value is above another shows both by `apart`, or decides by `rounded`
values, so that it never prints two equal numbers as different.
"""

import math

NONE = "\N{EN DASH}"  # where a value is not defined, or was not measured
SHARE_DIGITS = 3
ENOUGH_ROWS = 25  # from which on the standard error of a share is 0.1 at most
MOST_DIGITS = 17  # tell any two floats apart


def count(number: int, noun: str, plural: str | None = None) -> str:
    """A number with its noun.

    >>> count(1, "row"), count(1200, "row"), count(0, "match", "matches")
    ('1 row', '1,200 rows', '0 matches')
    """
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def rounded(value: float, digits: int = SHARE_DIGITS) -> float:
    """The value that is printed: a share, or a loss, to three digits behind the point."""
    return float(f"{value:.{digits}f}")


def share(value: float | None) -> str:
    """A value between 0 and 1, or a loss, to three digits."""
    return NONE if value is None else f"{value:.{SHARE_DIGITS}f}"


def apart(first: float, second: float, digits: int = SHARE_DIGITS) -> tuple[str, str]:
    """Both values to so many significant digits, or to as many as tell them apart.

    >>> apart(0.5, 0.49999), apart(0.5, 0.4), apart(2.0, 2.0)
    (('0.5', '0.49999'), ('0.5', '0.4'), ('2', '2'))
    """
    shown = f"{first:.{digits}g}", f"{second:.{digits}g}"
    while shown[0] == shown[1] and first != second and digits < MOST_DIGITS:
        digits += 1
        shown = f"{first:.{digits}g}", f"{second:.{digits}g}"
    return shown


def standard_error(share: float, rows: int | None) -> float:
    """Standard error of a share of n rows; 0 where n is not known."""
    return math.sqrt(share * (1 - share) / rows) if rows else 0.0


def above(first: float, second: float, rows: int | None) -> bool:
    """Whether a share is above another one by more than chance, both as they are printed.

    By more than one standard error, the larger of the two: that of a share of 0 or 1 is 0.
    """
    first, second = rounded(first), rounded(second)
    margin = max(standard_error(first, rows), standard_error(second, rows))
    return first - second > margin
