"""Options that must have a value: the parser itself lets `null` stand for any of them."""

import inspect
import types
import typing
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from importlib import import_module
from typing import Any

from lightning_prompts.files.errors import PromptError


def refuse_nulls(
    config: Mapping[str, Any], owners: Mapping[str, type], decided: Collection[str] = ()
) -> None:
    """Refuse a null where a class has no use for one.

    Args:
        config: Nested, as parsed.
        owners: Class of each block that does not name its own.
        decided: Options that get their value from others, later.

    Raises:
        PromptError: At the first such option.
    """
    for block, content in config.items():
        if isinstance(content, Mapping):
            unwanted = _unwanted(content, block, owners.get(block))
            if option := next((name for name in unwanted if name not in decided), None):
                raise PromptError(f"--{option} is null; give a value, or leave the option out.")


def _unwanted(content: Mapping[str, Any], name: str, owner: type | None) -> Iterator[str]:
    """Names of the options under `name` whose null no class can take."""
    if "class_path" in content:
        owner = _found(content["class_path"])
        content = content.get("init_args") or {}
    takes = _takes_null(owner) if owner is not None else {}
    for key, value in content.items():
        if value is None and takes.get(key) is False:
            yield f"{name}.{key}"
        elif isinstance(value, Mapping):
            yield from _unwanted(value, f"{name}.{key}", None)


def _found(class_path: object) -> type | None:
    module, _, name = str(class_path).rpartition(".")
    try:
        found = getattr(import_module(module), name, None)
    except (ImportError, ValueError):
        return None
    return found if isinstance(found, type) else None


@cache
def _takes_null(owner: type) -> Mapping[str, bool]:
    """Constructor arguments of a class and its ancestors, to whether null is a value of theirs."""
    found: dict[str, bool] = {}
    for kind in owner.__mro__[:-1]:
        constructor = kind.__dict__.get("__init__")
        if constructor is None:
            continue
        try:
            hints = typing.get_type_hints(constructor)
        except (NameError, TypeError):  # names that only a type checker knows
            continue
        for name, parameter in inspect.signature(constructor).parameters.items():
            if name in hints:
                takes = parameter.default is None or _optional(hints[name])
                found.setdefault(name, takes)
    return found


def _optional(hint: Any) -> bool:
    if hint is Any or hint is None or hint is type(None):
        return True
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return any(_optional(part) for part in typing.get_args(hint))
    return typing.get_origin(hint) is typing.Annotated and _optional(typing.get_args(hint)[0])
