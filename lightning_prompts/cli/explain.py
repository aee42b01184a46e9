"""The parser's nested reports in one sentence, with the name that was meant."""

import inspect
import re
from collections.abc import Sequence
from functools import cache
from importlib import import_module

from lightning_prompts.cli.commands import NO_COMMAND
from lightning_prompts.cli.trainer_parts import refused_by_name
from lightning_prompts.files.public_names import find_class
from lightning_prompts.files.text import did_you_mean
from lightning_prompts.lm.chat import CONVERSATION, TEXT


def explain(message: str, options: Sequence[str]) -> str:
    """One sentence out of jsonargparse's nested report.

    Args:
        message: The report, over several lines.
        options: Names of the parser's options, for a suggestion.
    """
    where = ".".join(dict.fromkeys(re.findall(r'Parser key "([^"]+)"', message)))
    if where.startswith("trainer.") and (refused := refused_by_name(message)):
        return f"--{where} {refused}"
    if name := _last(r"Option '([^']+)' is not accepted", message):
        before, _, after = message.partition(" is not accepted")
        # The nearest class: on the same line, else the last one before.
        pattern = r"class_path[ =]'([^']+)'"
        class_path = _last(pattern, after.partition("\n")[0]) or _last(pattern, before) or ""
        kind = class_path.rpartition(".")[2]
        first = name.partition(".")[0]
        if where.endswith("model") and (owner := _tuner_with(first)):
            return f"--{where}.{first}: {kind} has no such option, {owner} has; give its config."
        known = _parameters(class_path)
        if name in known:  # an ancestor's option, which the class decides by its own
            own = ", ".join(_parameters(class_path, inherited=False))
            return f"--{where}.{name}: not an option of {kind}, whose own are {own}."
        tail = did_you_mean(name, known, f"--{where}.")
        return f"--{where}.{name}: {kind} has no such option{tail}"
    pattern = r"given class_path '([^']+)':\s+the following arguments are required: (\w+)"
    if missing := re.search(pattern, message):
        return f"--{where} {missing[1].rpartition('.')[2]} needs --{where}.{missing[2]}; give it."
    pattern = r"callable class: the following arguments are required: ([\w, ]+)"
    if missing := re.search(pattern, message):
        made = re.search(r"class_path='([^']+)'", message[missing.end() :])
        kind = made[1].rpartition(".")[2] if made else "it"
        flags = " and ".join(f"--{where}.{name}" for name in missing[1].split(", "))
        return f"--{where} {kind} needs {flags}; give {'them' if ' and ' in flags else 'it'}."
    if several := re.search(r"Multiple subclasses with name (\w+)\..+?ambiguity: (.+)\.", message):
        return f"--{where} {several[1]}: several classes have this name; give one of {several[2]}."
    if names := _last(r"arguments are required: (.+)", message):
        flags = " and ".join("--" + name.strip().partition(".")[2] for name in names.split(","))
        return (
            f"Missing {flags}: give a run's config.yaml, or a tuner and a task, for example "
            "--config configs/tuner/soft.yaml --config configs/task/demo.yaml."
        )
    if name := _last(r"unrecognized arguments: (.+)", message):
        flag = name.split()[0].partition("=")[0].lstrip("-")
        first = flag.partition(".")[0]
        if first not in options and _tuner_with(first):  # LightningCLI has --optimizer, for one
            return f"{name}: no such option; did you mean --model.{flag}?"
        return f"{name}: no such option{did_you_mean(flag, options, '--')}"
    if name := _last(r"does not accept option '([^']+)'", message):
        near = did_you_mean(name, options, "--")
        if near == ".":  # a misspelt block: only its first word is near to anything
            near = did_you_mean(name.partition(".")[0], ["model", "data", *options])
        return f"{name}: no such option{near}"
    if name := _last(r"Expected a dot import path string: (.+)", message):
        inner = message[message.rfind('Parser key "') :]
        if number := _last(r"Expected an? <class '(float|int)'>", inner):  # or a class of one
            return f"--{where}: expected {number}, got {name!r}."
        classes = _subclasses(re.findall(r"<class '(lightning_prompts[\w.]+)'>", inner))
        return f"--{where} {name}: no such class{did_you_mean(name, classes, f'--{where} ')}"
    if found := re.search(r"module '([\w.]+)' has no attribute '(\w+)'", message):
        module, absent = found.groups()
        near = did_you_mean(absent, dir(import_module(module)), f"--{where} {module}.")
        return f"--{where} {module}.{absent}: no such class{near if 'mean' in near else '.'}"
    if base := _last(r"Import path does not correspond to a subclass of (\w+)", message):
        value = _last(r"Given value: (.+)", message)
        return f"--{where} {value}: this is no {base}; give one."
    if "'list' object has no attribute 'keys'" in message:
        return f"--{where}: init_args is a list; give options by their names."
    if problem := re.search(r"given class_path '([^']+)':\s+(?=\S)(?!Parser key)(.+)", message):
        return f"--{where} {problem[1]}: {problem[2].rstrip('.')}."
    if 'expected "subcommand"' in message or "argument subcommand" in message:
        return NO_COMMAND
    if kinds := re.findall(r"Expected an? (.+?)(?:\. Got value.*)?$", message, re.MULTILINE):
        expected = " or ".join(dict.fromkeys(_kind(kind) for kind in kinds if "None" not in kind))
        pattern = r"(?:Got|Given) value: (?!NestedArg)(.+?)(?:\. Got value: .*)?$"
        values = re.findall(pattern, message, re.MULTILINE)
        got = f", got {values[0].strip()!r}" if values else ""
        if where.rpartition(".")[2] == "template":
            got += f"; write a text such as {TEXT}, or a conversation such as {CONVERSATION}"
        return f"--{where}: expected {expected or 'null'}{got}."
    return " ".join(line.strip(" -") for line in message.splitlines() if line.strip())


@cache
def _parameters(class_path: str, inherited: bool = True) -> tuple[str, ...]:
    """Constructor arguments of a class, and of those that it extends."""
    module, _, name = class_path.rpartition(".")
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError):
        return ()
    kinds = found.__mro__[:-1] if inherited and isinstance(found, type) else (found,)
    names = [n for kind in kinds for n in inspect.signature(kind).parameters]
    return tuple(n for n in dict.fromkeys(names) if n not in ("kwargs", "args", "lm"))


def _subclasses(class_paths: Sequence[str]) -> list[str]:
    """Short names of the classes, imported so far, that could stand for `class_paths`."""
    found: list[str] = []
    for path in class_paths:
        if (base := find_class(path)) is not None:
            found += [kind.__name__ for kind in _below(base) if not inspect.isabstract(kind)]
    return found


def _tuner_with(option: str) -> str | None:
    """The first tuner whose constructor names an option, e.g. the reward of style transfer."""
    from lightning_prompts.tuners.base import PromptTuner

    known = (kind for kind in _below(PromptTuner) if not inspect.isabstract(kind))
    return next((k.__name__ for k in known if option in inspect.signature(k).parameters), None)


def _below(base: type) -> list[type]:
    direct: list[type] = base.__subclasses__()
    return direct + [kind for one in direct for kind in _below(one)]


def _kind(described: str) -> str:
    """A type as a person would name it."""
    described = re.sub(r"<class '(?:[\w.]+\.)?(\w+)'>", r"\1", described)
    return re.sub(r"typing\.Literal\[(.+)\]", r"\1", described)


def _last(pattern: str, message: str) -> str | None:
    found = re.findall(pattern, message)
    return found[-1].strip() if found else None
