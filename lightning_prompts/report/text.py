"""What stands in a page, a table or a figure: texts that are data, numbers to the digits meant."""

import re
from collections.abc import Callable

from lightning_prompts.files.amounts import NONE, rounded
from lightning_prompts.files.escaping import visible
from lightning_prompts.report.statistics import Estimate

MINUS = "\N{MINUS SIGN}"


def quoted(text: str) -> str:
    """The same between quotes, so that spaces at its ends are seen."""
    return f'"{visible(text)}"'


def markdown(text: str) -> str:
    r"""For a cell of a Markdown table.

    >>> markdown("a|b *c*")
    'a\\|b \\*c\\*'
    """
    return re.sub(r"([\\`*_{}\[\]<>#|~$!&])", r"\\\1", visible(text))


def cell(text: str) -> str:
    """For a cell of a CSV file: what a spreadsheet would take for a formula is made a text."""
    shown = visible(text)
    return f"'{shown}" if shown.lstrip()[:1] in ("=", "+", "-", "@") else shown


def interval(found: Estimate | None, shown: Callable[[float], str]) -> str:
    """A mean with its interval in brackets."""
    if found is None:
        return NONE
    if found.low is None or found.high is None:
        return shown(found.mean)
    return f"{shown(found.mean)} [{shown(found.low)}, {shown(found.high)}]"


def large(value: float | None) -> str:
    """A perplexity, a ratio or seconds: three digits are all that is meant.

    >>> [large(v) for v in (0.034, 12.34, 215.2, 123456.0, 5.3e6)]
    ['0.034', '12.3', '215', '123,000', '5.3e6']
    """
    if value is None:
        return NONE
    if value >= 1e6:
        return f"{value:.1e}".replace("e+0", "e").replace("e+", "e")
    rounded = float(f"{value:.3g}")
    return f"{rounded:,.0f}" if rounded >= 100 else f"{rounded:g}"


def signed(value: float, top: float = 1.0) -> str:
    """A difference of shares, or of values up to 100, with its sign."""
    digits = 3 if top == 1 else 1
    # What rounds to nothing has no sign.
    shown = f"{value:+.{digits}f}" if rounded(value, digits) else f"{0:.{digits}f}"
    return shown.replace("-", MINUS)


def coefficient(value: float | None) -> str:
    """A correlation or an agreement, to two digits.

    >>> coefficient(0.5), coefficient(None) == NONE
    ('0.50', True)
    """
    return NONE if value is None else f"{value:.2f}".replace("-", MINUS)


def probability(p: float | None) -> str:
    """A p value."""
    if p is None:
        return NONE
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
