"""In which order an option's types are tried: its own, whatever else Python has imported before.

`Union[int, float]` and `Union[float, int]` are equal, so `typing` keeps one object for both:
whoever names the union first decides its order for every library of the process. jsonargparse tries
the types in that order, and a float takes every whole number: `1`, one batch, would be `1.0`, all.
"""

import datetime
import functools
import operator
import os
import types
import typing
from typing import Any

_ORDINARY = 2  # a class, a collection, a literal: what one of them takes, no other takes otherwise
# What takes the values of others too comes after them: a float takes whole numbers, and a text
# takes everything that somebody can type.
_RANKS: dict[Any, int] = {int: 0, float: 1, str: 3}
_READS_TEXTS = 4  # a path, a duration: where a text itself will do, it stays as it was typed


def narrowest_first(hint: Any) -> Any:
    """A type whose unions, at any depth, have the narrowest of their types first.

    >>> narrowest_first(float | int | None)
    int | float | None
    >>> narrowest_first(dict[str, str | list[float | int]])
    dict[str, list[int | float] | str]
    """
    members = getattr(hint, "__args__", None)
    if not isinstance(members, tuple) or typing.get_origin(hint) is typing.Literal:
        return hint
    ordered = [narrowest_first(member) for member in members]
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    if union:
        ordered.sort(key=_rank)
    # By identity: unions are equal in any order.
    if all(new is old for new, old in zip(ordered, members, strict=True)):
        return hint
    if union and not isinstance(hint, types.UnionType):
        # Typing's own constructors would find the equal union of the other order again.
        return type(hint)(typing.Union, tuple(ordered), name=getattr(hint, "_name", None))
    if union:
        return functools.reduce(operator.or_, ordered)
    if isinstance(hint, types.GenericAlias):
        return types.GenericAlias(typing.cast(type, hint.__origin__), tuple(ordered))
    return hint.copy_with(tuple(ordered)) if hasattr(hint, "copy_with") else hint


def _rank(member: Any) -> int:
    if typing.get_origin(member) is typing.Literal:
        # The number 16 and the text "16" may both be values: a number is read as one.
        return 1 if any(not isinstance(value, str) for value in member.__args__) else _ORDINARY
    if isinstance(member, type) and issubclass(member, os.PathLike | datetime.timedelta):
        return _READS_TEXTS
    return _RANKS.get(member, _ORDINARY)
