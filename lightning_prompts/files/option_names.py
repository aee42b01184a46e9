"""How a message names an option: `--data.max_tokens` on the command line, `max_tokens` in Python.

Every text in the package names options in one form, that of the command line, which is the only one
that says whose option it is. Errors and notices pass it through `for_reader` when they are made: it
stays as it is while the command line runs, and becomes the argument's name for whoever calls the
classes. So no text is written twice, and no layer has to know who will read what it raises.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager

# Blocks whose class is always the same; a tuner and a task are the caller's own.
CLASSES = {
    "lm": "FrozenLM",
    "trainer": "Trainer",
    "scrutability": "Scrutability",
    "faithfulness": "Faithfulness",
    "prompt_text": "PromptText",
    "baselines": "Baselines",
    "checkpoint": "BestPrompt",
    "predictions": "Predictions",
}
OBJECTS = {"model": "the tuner", "data": "the task"}
_NUMBER = r"-?\d+(?:\.\d+)?(?:e-?\d+)?(?![\w-])"
_NAME = r"(?=[\w-]*\d)\w+(?:-\w+)*"  # such as gpt2 or 32-true: words alone may be the sentence's
_AS_IT_STANDS = rf"{_NUMBER}|'[^']*'|\"[^\"]*\"|[A-Z_]{{2,}}\b"
_VALUE = rf"[\w.-]+(?=:)|true\b|false\b|null\b|{_AS_IT_STANDS}|{_NAME}"
_FORMS = re.compile(
    # A command is to be run as it stands.
    r"(?P<command>lightning-prompts \w+(?: --[\w.]+ [^\s;,)]*[^\s;,).])*)"
    r"|--config (?=\S)"
    r"|--ckpt_path(?: (?P<which>best|last|previous)\b)?"
    rf"|--(?P<block>{'|'.join([*CLASSES, *OBJECTS])})\b(?P<path>(?:\.\w+)*)"
    rf"(?: (?P<value>{_VALUE}))?"
    r"|--(?P<plain>seed_everything|experiment)\b"
    r"|(?<=or )null(?= for\b)|(?<=\()null(?=\))"
)
_PYTHON = {"true": "True", "false": "False", "null": "None"}
_flags = False  # of the process and not of a thread: rows are read ahead in one


@contextmanager
def speaking_flags() -> Iterator[None]:
    """Whoever reads messages typed a command: options are named as they stand there."""
    global _flags
    before, _flags = _flags, True
    try:
        yield
    finally:
        _flags = before


def for_reader(text: str) -> str:
    """A text as who reads it names the options in it.

    >>> for_reader("Lower --data.max_tokens, or compute in --trainer.precision 32-true.")
    "Lower max_tokens, or compute in Trainer(precision='32-true')."
    """
    return text if _flags else _FORMS.sub(_in_python, text)


def _in_python(found: re.Match[str]) -> str:
    """One option, with its value where one follows, as an argument."""
    if found["command"]:
        return found["command"]
    if found["plain"]:
        return found["plain"]
    if found["block"] is None:
        which = f"={found['which']!r}" if found["which"] else ""
        return {"null": "None", "--config ": ""}.get(found[0], f"ckpt_path{which}")
    block, path = found["block"], found["path"][1:]
    value = found["value"]
    if value is not None and not re.fullmatch(_AS_IT_STANDS, value):
        value = _PYTHON.get(value, repr(value))
    if block in OBJECTS:
        name = path or OBJECTS[block]
        return name if value is None else f"{name}={value}"
    name = path.partition(".")[0]
    return f"{CLASSES[block]}({name}={value or '...'})" if name else CLASSES[block]
