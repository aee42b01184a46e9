"""The command line before LightningCLI: shipped configurations, linked options, plain errors."""

import difflib
import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import yaml
from lightning.pytorch.cli import LightningArgumentParser

from lightning_prompts.commands import NO_COMMAND
from lightning_prompts.errors import PromptError

# In a wheel the configurations lie inside the package, in a checkout beside it.
_PACKAGE = Path(__file__).resolve().parent
CONFIGS = next((c for c in (_PACKAGE / "configs", _PACKAGE.parent / "configs") if c.is_dir()), None)

# What is said once elsewhere. jsonargparse would accept these and silently ignore them.
LINKED = {
    "model.lm": "--lm.name and the other --lm options",
    "data.lm": "--lm.name and the other --lm options",
    "model.template": "--data.template",
    "model.verbalizer": "--data.verbalizer",
    "trainer.logger.name": "--experiment",
}
BLOCKS = ("model", "data", "trainer")  # may be given as the path of a file
UNNAMED = ("name", "lightning_logs")  # the loggers' own default, which --print_config writes
MANY = 30  # names that are too many to list in one sentence


class PromptParser(LightningArgumentParser):
    """Reports a mistake as one sentence instead of a usage dump."""

    makers: Sequence[tuple[Callable[..., Any], type, bool]] = ()
    """Who makes instances of a class: (maker, class, whether of its subclasses too)."""

    def instantiate(self, *args: Any, **kwargs: Any) -> Any:
        """Build what was parsed, by `makers` where they say so."""
        if self.makers:
            kwargs.setdefault("instantiators", list(self.makers))
        return super().instantiate(*args, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise a `PromptError` with what went wrong."""
        if not self.exit_on_error:  # a parser inside a parser: its caller words the message
            super().error(message, ex)
        raise PromptError(explain(message, _options(self))) from ex


def default_config() -> Path:
    """The configuration that every command loads first.

    Raises:
        PromptError: If the installation lost its configurations.
    """
    if CONFIGS is None:
        raise PromptError("configs/default.yaml is not in this installation; install it again.")
    return CONFIGS / "default.yaml"


def find_configs(args: Sequence[str]) -> tuple[list[str], list[Path]]:
    """Find the configurations, shipped ones too, and put them before the options.

    `--config configs/tuner/soft.yaml` names a shipped file where there is no such path. An option
    counts more than a file and needs the class it belongs to, so files and classes go first,
    wherever they stood.

    Returns:
        The arguments in their new order, and the paths of the configurations.

    Raises:
        PromptError: If a configuration is neither there nor shipped.
    """
    files: list[Path] = []
    classes: list[str] = []
    others: list[str] = []
    rest = iter(args)
    for arg in rest:
        flag, equals, value = arg.partition("=")
        if flag in ("--config", "-c"):
            files.append(find_config(value if equals else next(rest, "")))
        elif flag in ("--model", "--data"):
            classes += [flag, value if equals else next(rest, "")]
        else:
            others.append(arg)
    # What comes before the first option is the command.
    start = next((i for i, arg in enumerate(others) if arg.startswith("-")), len(others))
    configs = [part for path in files for part in ("--config", str(path))]
    return [*others[:start], *configs, *classes, *others[start:]], files


def given_options(args: Sequence[str], configs: Sequence[Path], command: str) -> set[str]:
    """Dotted names of all options given, in files or flags, without `init_args`."""
    names: list[str] = []
    for path in configs:
        content = _load(path)
        names += flat_names(content)
        names += flat_names(content.get(command) or {})
    for i, arg in enumerate(args):
        if arg.startswith("--"):
            name, _, value = arg[2:].partition("=")
            follows = args[i + 1] if not value and i + 1 < len(args) else value
            # A whole block can be given as one value: --model '{class_path: ..., init_args: ...}'.
            names += flat_names(_parsed(follows), name.rstrip("+"))
    return set(names)


def refuse_linked(given: set[str]) -> None:
    """Stop at options that another one decides.

    Raises:
        PromptError: With the option to use instead.
    """
    for target, flag in LINKED.items():
        if any(name == target or name.startswith(target + ".") for name in given):
            raise PromptError(f"--{target} is not set by itself: use {flag}.")


def flat_names(value: Any, prefix: str = "") -> Iterator[str]:
    """Dotted names in a nested mapping; a block may also be the path of a file."""
    in_file = prefix in BLOCKS and isinstance(value, str) and value.endswith((".yaml", ".yml"))
    if in_file and Path(value).is_file():
        value = _load(Path(value))
    if prefix:
        yield ".".join(
            part for part in prefix.split(".") if part not in ("init_args", "dict_kwargs")
        )
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if (key, inner) == UNNAMED:
                continue
            yield from flat_names(inner, f"{prefix}.{key}" if prefix else str(key))


def explain(message: str, options: Sequence[str]) -> str:
    """One sentence out of jsonargparse's nested report.

    Args:
        message: The report, over several lines.
        options: Names of the parser's options, for a suggestion.
    """
    where = ".".join(dict.fromkeys(re.findall(r'Parser key "([^"]+)"', message)))
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
        tail = _suggest(name, known, f"--{where}.")
        return f"--{where}.{name}: {kind} has no such option{tail}"
    pattern = r"given class_path '([^']+)':\s+the following arguments are required: (\w+)"
    if missing := re.search(pattern, message):
        return f"--{where} {missing[1].rpartition('.')[2]} needs --{where}.{missing[2]}; give it."
    if names := _last(r"arguments are required: (.+)", message):
        flags = " and ".join("--" + name.strip().partition(".")[2] for name in names.split(","))
        return (
            f"Missing {flags}: give a run's config.yaml, or a tuner and a task, for example "
            "--config configs/tuner/soft.yaml --config configs/task/demo.yaml."
        )
    if name := _last(r"unrecognized arguments: (.+)", message):
        flag = name.split()[0].partition("=")[0].lstrip("-")
        return f"{name}: no such option{_suggest(flag, options, '--')}"
    if name := _last(r"does not accept option '([^']+)'", message):
        near = _suggest(name, options, "--")
        if near == ".":  # a misspelt block: only its first word is near to anything
            near = _suggest(name.partition(".")[0], ["model", "data", *options])
        return f"{name}: no such option{near}"
    if name := _last(r"Expected a dot import path string: (.+)", message):
        inner = message[message.rfind('Parser key "') :]
        classes = _subclasses(re.findall(r"<class '(lightning_prompts[\w.]+)'>", inner))
        return f"--{where} {name}: no such class{_suggest(name, classes, f'--{where} ')}"
    if problem := re.search(r"given class_path '([^']+)':\s+(?=\S)(?!Parser key)(.+)", message):
        return f"--{where} {problem[1]}: {problem[2].rstrip('.')}."
    if 'expected "subcommand"' in message or "argument subcommand" in message:
        return NO_COMMAND
    if kinds := re.findall(r"Expected an? (.+?)(?:\. Got value.*)?$", message, re.MULTILINE):
        expected = " or ".join(dict.fromkeys(_kind(kind) for kind in kinds if "None" not in kind))
        values = re.findall(r"(?:Got|Given) value: (?!NestedArg)(.+)", message)
        got = f", got {values[0].strip()!r}" if values else ""
        return f"--{where}: expected {expected or 'null'}{got}."
    return " ".join(line.strip(" -") for line in message.splitlines() if line.strip())


def find_config(given: str) -> Path:
    """A configuration's path, or that of the shipped one of this name.

    Raises:
        PromptError: If it is neither there nor shipped.
    """
    if Path(given).is_file() or CONFIGS is None:
        return Path(given)
    shipped = CONFIGS / given.removeprefix("configs/")
    if shipped.is_file():
        return shipped
    names = [f"configs/{path.relative_to(CONFIGS)}" for path in CONFIGS.rglob("*.yaml")]
    raise PromptError(f"--config {given}: no such file{_suggest(given, names)}")


def _load(path: Path) -> Mapping[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise PromptError(f"--config {path}: not readable as YAML ({reason}).") from error
    if not isinstance(content, Mapping):
        raise PromptError(f"--config {path}: holds no options; see configs/ for how one looks.")
    return content


def _parsed(value: str) -> Any:
    try:
        return yaml.safe_load(value)
    except yaml.YAMLError:
        return value


def _options(parser: LightningArgumentParser) -> list[str]:
    """Names of all options, also of the parsers of the subcommands."""
    found = []
    for action in parser._actions:
        found += [option.lstrip("-") for option in action.option_strings]
        if isinstance(action.choices, Mapping):
            for inner in action.choices.values():
                found += _options(inner)
    return [*found, *(name.partition(".")[0] for name in found)]


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
        module, _, name = path.rpartition(".")
        base = getattr(import_module(module), name, None) if module else None
        if isinstance(base, type) and path.startswith("lightning_prompts"):
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


def _suggest(name: str, known: Sequence[str], prefix: str = "") -> str:
    """The end of a sentence: the nearest known name, or all of them where they are few."""
    if near := difflib.get_close_matches(name, known, n=1):
        return f"; did you mean {prefix}{near[0]}?"
    if 0 < len(known) < MANY:
        return f"; known: {', '.join(sorted(set(known)))}."
    return "."


def _kind(described: str) -> str:
    """A type as a person would name it."""
    described = re.sub(r"<class '(?:[\w.]+\.)?(\w+)'>", r"\1", described)
    return re.sub(r"typing\.Literal\[(.+)\]", r"\1", described)


def _last(pattern: str, message: str) -> str | None:
    found = re.findall(pattern, message)
    return found[-1].strip() if found else None
