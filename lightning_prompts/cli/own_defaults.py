"""A class that is chosen in another one's place begins with its own defaults.

jsonargparse hands on whatever the new class knows by the same name: SGD had AdamW's weight decay,
and Adafactor its `eps`, which is another thing. What was written for one class says nothing of
another. Only what the new class has no value for of its own stays as it was given: what it needs, a
logger's `save_dir` for example, and between two tuners, or two tasks, what is null by default, such
as the prompt's length. Everything else is given with the new class, or after it.
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
        kept = set(iter_required_keys(parser))
        if _akin(before["class_path"], now["class_path"]):
            kept |= {action.dest for action in parser._actions if action.default is None}
        for option in [option for option in vars(before["init_args"]) if option not in kept]:
            before["init_args"].pop(option)

    setattr(parsing, name, begin_anew)
    try:
        yield
    finally:
        setattr(parsing, name, unknown)


def _akin(*class_paths: str) -> bool:
    """Whether classes share a base of this package, in which null says that nothing was said."""
    bases = [set(getattr(parsing.import_object(path), "__mro__", ())) for path in class_paths]
    return any(
        kind.__module__.startswith("lightning_prompts.") for kind in set.intersection(*bases)
    )
