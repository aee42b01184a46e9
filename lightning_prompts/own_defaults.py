"""A class that is chosen in another one's place begins with its own defaults.

jsonargparse hands on whatever the new class knows by the same name: SGD had AdamW's weight decay,
and Adafactor its `eps`, which is another thing. What was written for one class says nothing of
another. Only what the new class has no default for, a logger's `save_dir` for example, stays as it
was given; everything else is given with the new class, or after it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from jsonargparse import _typehints as parsing
from jsonargparse._required import iter_required_keys


@contextmanager
def own_defaults() -> Iterator[None]:
    """Parse by this rule."""
    # The one place where jsonargparse meets a change of class.
    name = "discard_init_args_on_class_path_change"
    unknown = getattr(parsing, name)

    def begin_anew(parser_or_action: Any, before: Any, now: Any) -> None:
        if not before or "init_args" not in before or before["class_path"] == now["class_path"]:
            return
        unknown(parser_or_action, before, now)
        parser = parser_or_action
        if isinstance(parser_or_action, parsing.ActionTypeHint):
            options = getattr(parser_or_action, "sub_add_kwargs", {})
            parser = parsing.ActionTypeHint.get_class_parser(now["class_path"], options)
        needed = set(iter_required_keys(parser))
        for option in [option for option in vars(before["init_args"]) if option not in needed]:
            before["init_args"].pop(option)

    setattr(parsing, name, begin_anew)
    try:
        yield
    finally:
        setattr(parsing, name, unknown)
