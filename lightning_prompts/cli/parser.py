"""The command line before LightningCLI: shipped configurations, linked options, plain errors."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, NoReturn

from lightning.pytorch.cli import LightningArgumentParser

from lightning_prompts.cli.explain import explain
from lightning_prompts.cli.own_defaults import own_defaults
from lightning_prompts.cli.strict_yaml import option_value, read_config
from lightning_prompts.cli.unions import narrowest_first
from lightning_prompts.cli.unusable import refuse_unusable
from lightning_prompts.files.errors import PromptError
from lightning_prompts.files.public_names import public_names
from lightning_prompts.files.shipped import CONFIGS
from lightning_prompts.files.text import did_you_mean

# What is said once elsewhere. jsonargparse would accept these and silently ignore them.
LINKED = {
    "model.lm": "--lm.name and the other --lm options",
    "data.lm": "--lm.name and the other --lm options",
    "model.template": "--data.template",
    "model.verbalizer": "--data.verbalizer",
    "trainer.logger.name": "--experiment",
}
BLOCKS = ("model", "data", "trainer")  # may be given as the path of a file
OPTIONS = "options; see configs/"  # what a file of them holds, for a message
# A value that names a class; the others could not stand before their own options.
_CLASS = re.compile(r"(?!(?:null|true|false|none)$)[a-z_][\w.]*", re.IGNORECASE)
UNNAMED = ("name", "lightning_logs")  # the loggers' own default, which --print_config writes


class PromptParser(LightningArgumentParser):
    """Reports a mistake as one sentence instead of a usage dump."""

    makers: Sequence[tuple[Callable[..., Any], type, bool]] = ()
    """Who makes instances of a class: (maker, class, whether of its subclasses too)."""

    def add_argument(self, *args: Any, **kwargs: Any) -> Any:
        """Add an option whose value does not depend on what was imported before.

        jsonargparse does the same in groups of options and in the classes that options name.
        """
        if "type" in kwargs:
            kwargs["type"] = narrowest_first(kwargs["type"])
        if isinstance(default := kwargs.get("default"), Enum) and isinstance(default, str):
            kwargs["default"] = str(default.value)  # YAML knows a text, and the option is one
        action: Any = kwargs.get("action")
        if hasattr(action, "_typehint"):  # where the option is one of a class
            action._typehint = narrowest_first(action._typehint)
        return super().add_argument(*args, **kwargs)

    def add_class_arguments(self, theclass: Any, *args: Any, **kwargs: Any) -> Any:
        """Add a class's options, without those that only Python can give."""
        kwargs["skip"] = {*(kwargs.get("skip") or ()), *getattr(theclass, "python_only", ())}
        return super().add_class_arguments(theclass, *args, **kwargs)

    def parse_args(self, *args: Any, **kwargs: Any) -> Any:
        """Parse a command line; a class that takes another one's place has its own defaults."""
        with own_defaults():
            return super().parse_args(*args, **kwargs)

    def parse_object(self, *args: Any, **kwargs: Any) -> Any:
        """Parse a mapping, likewise."""
        with own_defaults():
            return super().parse_object(*args, **kwargs)

    def instantiate(self, *args: Any, **kwargs: Any) -> Any:
        """Build what was parsed, by `makers` where they say so."""
        if self.makers:
            kwargs.setdefault("instantiators", list(self.makers))
        return super().instantiate(*args, **kwargs)

    def format_help(self, *args: Any, **kwargs: Any) -> str:
        """Help, with `int (at least 1)` for a number that has a range."""
        text = super().format_help(*args, **kwargs)
        return re.sub(r"Annotated\[(\w+),(\s+)([^][]+)\]", r"\1\2(\3)", text)

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
    others = _classes_first(others)
    # What comes before the first option is the command.
    start = next((i for i, arg in enumerate(others) if arg.startswith("-")), len(others))
    configs = [part for path in files for part in ("--config", _readable(path))]
    named = (public_names(arg) for arg in (*classes, *others[start:]))
    return [*others[:start], *configs, *named], files


def _readable(path: Path) -> str:
    """A configuration's path; where it names classes by modules that are no more, its new text."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return str(path)  # refused where it is parsed
    named = public_names(text)
    return str(path) if named == text else named


def _classes_first(args: Sequence[str]) -> list[str]:
    """The arguments with each class before the options of its own.

    A class begins with its own defaults, and `--model.optimizer.lr 0.1 --model.optimizer SGD` means
    the rate of SGD.
    """
    options: list[list[str]] = [[]]
    for arg in args:
        if arg.startswith("--"):
            options.append([])
        options[-1].append(arg)
    for option in options[1:]:
        flag, _, value = option[0].partition("=")
        block = flag.removesuffix(".class_path") + "."
        if _CLASS.fullmatch(value or " ".join(option[1:])):
            place = options.index(option)
            own = (i for i in range(1, place) if options[i][0].startswith(block))
            options.insert(next(own, place), options.pop(place))
    return [arg for option in options for arg in option]


def given_options(args: Sequence[str], configs: Sequence[Path], command: str) -> set[str]:
    """Dotted names of all options given, in files or flags, without `init_args`.

    Raises:
        PromptError: If a file cannot be read, or names what no configuration can make.
    """
    names: list[str] = []
    for path in configs:
        content = read_config(path, OPTIONS)
        refuse_unusable("", content)
        names += flat_names(content)
        names += flat_names(content.get(command) or {})
    for i, arg in enumerate(args):
        if arg.startswith("--"):
            name, _, value = arg[2:].partition("=")
            follows = args[i + 1] if not value and i + 1 < len(args) else value
            # A whole block can be given as one value: --model '{class_path: ..., init_args: ...}'.
            names += flat_names(option_value(follows), name.rstrip("+"))
            refuse_unusable(name.rstrip("+"), option_value(follows))
    return set(names)


def given_value(arg: str, rest: list[str], example: str) -> str:
    """The value of an option, behind its equals sign or the next word, which is taken from `rest`.

    Raises:
        PromptError: If there is none.
    """
    flag, equals, value = arg.partition("=")
    if not equals and rest and not rest[0].startswith("--"):
        value = rest.pop(0)
    if not value:
        raise PromptError(f"{flag} needs a value, for example: {example}.")
    return value


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
        value = read_config(Path(value), OPTIONS)
    if prefix:
        yield ".".join(
            part for part in prefix.split(".") if part not in ("init_args", "dict_kwargs")
        )
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if (key, inner) == UNNAMED:
                continue
            yield from flat_names(inner, f"{prefix}.{key}" if prefix else str(key))


def find_config(given: str) -> Path:
    """A configuration's path, or that of the shipped one of this name.

    Raises:
        PromptError: If it is neither there nor shipped.
    """
    if not given:
        raise PromptError("--config: give a file, for example configs/tuner/soft.yaml.")
    if Path(given).is_dir():
        raise PromptError(f"--config {given}: a folder; give a YAML file, such as its config.yaml.")
    if Path(given).is_file() or CONFIGS is None:
        return Path(given)
    shipped = CONFIGS / given.removeprefix("configs/")
    if shipped.is_file():
        return shipped
    names = [f"configs/{path.relative_to(CONFIGS)}" for path in CONFIGS.rglob("*.yaml")]
    raise PromptError(f"--config {given}: no such file{did_you_mean(given, names)}")


def _options(parser: LightningArgumentParser) -> list[str]:
    """Names of all options, also of the parsers of the subcommands."""
    found = []
    for action in parser._actions:
        found += [option.lstrip("-") for option in action.option_strings]
        if isinstance(action.choices, Mapping):
            for inner in action.choices.values():
                found += _options(inner)
    return [*found, *(name.partition(".")[0] for name in found)]
