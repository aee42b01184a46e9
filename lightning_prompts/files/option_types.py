"""Types of options: which numbers a parameter takes, and which texts name a model.

A type stands in a constructor's signature, `prompt_length: Count`, and is all that there is to say:
`--help` shows it, the command line checks what it has parsed before anything is built, and a class
that extends `ChecksOptions` checks what it is made with from Python. A type checker sees the plain
number or text.
"""

import inspect
import math
import numbers
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, NamedTuple, Self

from lightning_prompts.files.errors import PromptError

MOST = 2**31 - 1  # of what is counted: more is a slip, and too much for some of the libraries


@dataclass(frozen=True, repr=False)
class Range:
    """Numbers from `low` to `high`; never NaN or infinite, and true and false are none.

    Attributes:
        low: The least number.
        high: The greatest number.
        above: Whether `low` itself is left out.
        also: One more number, which has a meaning of its own.
        null: What no number at all stands for, where that is worth saying.

    >>> str(Range(2)), str(Range(0, above=True)), str(Range(0, 1)), str(Range(1, null="all"))
    ('at least 2', 'more than 0', 'a number from 0 to 1', 'at least 1, or null for all')
    >>> Range(0, 1).has(0.5), Range(0, 1).has(float("nan")), Range(0).has(float("inf"))
    (True, False, False)
    """

    low: float = -math.inf
    high: float = math.inf
    above: bool = False
    also: float | None = None
    null: str = ""

    def has(self, value: Any) -> bool:
        """Whether a value is a number in it."""
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            return False
        number = float(value)
        if self.also is not None and number == self.also:
            return True
        inside = self.low < number if self.above else self.low <= number
        return inside and number <= self.high and abs(number) < math.inf

    def __str__(self) -> str:
        if self.high not in (MOST, math.inf):
            begins = "above" if self.above else "from"
            text = f"a number {begins} {self.low:.10g} to {self.high:.10g}"
        elif self.low > -math.inf:
            text = f"{'more than' if self.above else 'at least'} {self.low:.10g}"
        else:
            text = "a finite number"
        text = text if self.also is None else f"{text}, or {self.also:.10g}"
        return f"{text}, or null for {self.null}" if self.null else text

    def __repr__(self) -> str:
        """As `--help` shows it, beside the kind of number."""
        return str(self).removeprefix("a number ")


@dataclass(frozen=True, repr=False)
class Names:
    """Texts that name a language model: what a study looks for before it starts.

    Attributes:
        missing: Where the model is one that a user makes, how: said where its folder is not there.
    """

    missing: str = ""

    def __repr__(self) -> str:
        return "name or folder of a model"


@dataclass(frozen=True, repr=False)
class Symbol:
    """How a report writes an option, in place of its name.

    Attributes:
        text: A letter or two.
    """

    text: str

    def __repr__(self) -> str:
        return f"{self.text} in reports"


Count = Annotated[int, Range(1, MOST)]
CountOrZero = Annotated[int, Range(0, MOST)]
NumRows = Annotated[int, Range(1, MOST, null="all")]
Share = Annotated[float, Range(0, 1)]
ShareOfSome = Annotated[float, Range(0, 1, above=True)]
Positive = Annotated[float, Range(0, above=True)]
NotNegative = Annotated[float, Range(0)]
Finite = Annotated[float, Range()]
Seed = Annotated[int, Range(0, 2**32 - 1)]  # what numpy's generators take
ModelName = Annotated[str, Names()]
Length = Annotated[Count, Symbol("P")]  # of a prompt, in tokens
Readability = Annotated[Share, Symbol("w")]  # weight of the prompt's log-perplexity


class Parameter(NamedTuple):
    """One argument of a constructor.

    Attributes:
        hint: Its type.
        takes_null: Whether None is a value of its.
    """

    hint: Any
    takes_null: bool


class ChecksOptions:
    """A class whose constructor, and those of its ancestors, take only numbers of their types.

    They are checked before anything is made of them, in every class that extends it.
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Check what it is to be made with.

        Raises:
            PromptError: At the first number that is none of its parameter's.
        """
        if args or kwargs:  # a copy is made without any
            owner: type = cls
            names = inspect.signature(owner).parameters
            given = {**dict(zip(names, args, strict=False)), **kwargs}
            for name, parameter in parameters(owner).items():
                require(name, given.get(name), parameter.hint)
        return super().__new__(cls)


def require(name: str, value: Any, hint: Any) -> None:
    """Refuse a number that a type, or a part of it, does not take.

    Args:
        name: For the message, as the reader writes it.
        value: A number, a sequence of some, or None, which is another check's.
        hint: A type, or a `Range`.

    Raises:
        PromptError: If it is out of range.
    """
    kind, allowed = (float, hint) if isinstance(hint, Range) else _range_in(hint)
    if allowed is None:
        return
    for number in value if isinstance(value, list | tuple) else (value,):
        if number is None:
            continue
        whole = kind is not int or isinstance(number, numbers.Integral)
        if not whole or not allowed.has(number):
            more = allowed.high == MOST and Range(MOST).has(number)
            fix = f"at most {MOST}" if more else str(allowed)
            shown = str(list(value)) if isinstance(value, list | tuple) else str(value)
            raise PromptError(
                f"{name} is {shown}; give {'' if whole else 'a whole number, '}{fix}."
            )


def require_fields(settings: object) -> None:
    """Refuse a dataclass with a number that is none of its field's; for its `__post_init__`.

    jsonargparse takes a class that extends another one for one of several to choose from, so
    settings, which are not chosen, cannot extend `ChecksOptions`.

    Raises:
        PromptError: At the first such number.
    """
    owner: type = settings.__class__
    for name, parameter in parameters(owner).items():
        require(name, getattr(settings, name), parameter.hint)


@cache
def parameters(owner: type) -> Mapping[str, Parameter]:
    """Arguments of a class's constructor, and of its ancestors' that it may hand on to."""
    found: dict[str, Parameter] = {}
    for kind in owner.__mro__[:-1]:
        constructor = kind.__dict__.get("__init__")
        if constructor is None:
            continue
        try:
            hints = typing.get_type_hints(constructor, include_extras=True)
        except (NameError, TypeError):  # names that only a type checker knows
            continue
        for name, parameter in inspect.signature(constructor).parameters.items():
            if name in hints:
                takes_null = parameter.default is None or _optional(hints[name])
                found.setdefault(name, Parameter(hints[name], takes_null))
    return found


def metadata(hint: Any, kind: type) -> Any:
    """What a type says of itself by `Annotated`, at any depth: the first of a kind, else None."""
    own = (found for found in getattr(hint, "__metadata__", ()) if isinstance(found, kind))
    inner = (metadata(part, kind) for part in typing.get_args(hint))
    return next(own, None) or next((found for found in inner if found is not None), None)


def symbols(made: object, prefix: str) -> dict[str, str]:
    """Symbols of an object's options, and of those of the parts that it was made with.

    Args:
        made: Of a class that says them in its constructor's types.
        prefix: What its options begin with, e.g. `model.`.
    """
    owner: type = made.__class__
    found: dict[str, str] = {}
    for name, parameter in parameters(owner).items():
        if symbol := metadata(parameter.hint, Symbol):
            found[prefix + name] = symbol.text
        if isinstance(part := getattr(made, name, None), ChecksOptions):
            found |= symbols(part, f"{prefix}{name}.")
    return found


def _range_in(hint: Any) -> tuple[Any, Range | None]:
    """The numbers that a type takes: their kind and their range; None where it takes any."""
    for part in getattr(hint, "__metadata__", ()):
        if isinstance(part, Range):
            return hint.__origin__, part
    found = (_range_in(part) for part in typing.get_args(hint))
    return next((one for one in found if one[1] is not None), (float, None))


def _optional(hint: Any) -> bool:
    if hint is Any or hint is None or hint is type(None):
        return True
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return any(_optional(part) for part in typing.get_args(hint))
    return typing.get_origin(hint) is Annotated and _optional(typing.get_args(hint)[0])
