"""Writes docs/options.md from the parser of `fit`: `python docs/options.py`."""

import collections.abc
import dataclasses
import json
import re
import sys
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import yaml
from lightning.pytorch import Trainer

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent))

import lightning_prompts as lp  # noqa: E402 - from the folder above
from lightning_prompts.cli.app import SECTIONS  # noqa: E402
from lightning_prompts.cli.parser import PromptParser  # noqa: E402
from lightning_prompts.files.option_types import Range  # noqa: E402
from lightning_prompts.tuners.tuned import configuration_of  # noqa: E402

PAGE = DOCS / "options.md"
CONFIGS = DOCS.parent / "configs"
TUNERS = (
    *(lp.SoftPrompt, lp.BoundedPrompt, lp.PEZ, lp.RLPrompt, lp.GuidedSearch),
    *(lp.ManualPrompt, lp.ImportedPrompt),
)
TASKS = (lp.TextClassification, lp.SST2, lp.BoolQ, lp.Yelp, lp.Demo, lp.YelpTransfer)
STARTS = (lp.FromVocabulary, lp.FromText, lp.FromModel, lp.FromVerbalizer, lp.FromCheckpoint)
REWARDS = (lp.ClassificationGap, lp.StyleTransfer)
SCHEDULES = (lp.WarmupLinear, lp.SequentialSchedule, lp.ChainedSchedule, lp.TransformersSchedule)
LINKED = {"lm", "template", "verbalizer"}  # of a tuner: said once, under --lm and --data
BEGIN = """\
# Options

Every option of `fit`, by tuner, task and callback. `python docs/options.py` writes this page from
the parser itself, and a test compares the two. `--help` shows the same, `--model.help PEZ` that of
one class.

Options of a tuner begin with `--model.`, of a task with `--data.`; in a file they stand in
`init_args`. Files are merged in their order, later ones win, and flags win over files.
*Default* is the class's own, and empty where a value must be given; *shipped* is what the
configuration named above the table sets, which has the reason beside it. What is a class itself
(`--model.init`, `--model.optimizer`) has options of its own.
"""


class Row(NamedTuple):
    """One option, in words."""

    name: str
    kind: str
    default: str
    text: str


def kind_of(hint: Any) -> str:
    """A type as a reader would say it.

    >>> kind_of(lp.Count | None), kind_of(lp.Share), kind_of(Literal["a", "b"] | bool)
    ('int, at least 1; or null', 'float, from 0 to 1', '`a`, `b`, `true`, `false`')
    >>> kind_of(list[int] | int), kind_of(lp.PromptInit)
    ('int or several', 'PromptInit')
    """
    kinds = list(dict.fromkeys(_kinds(hint)))
    values = [kind for kind in kinds if kind.startswith("`")]
    others = [kind for kind in kinds if not kind.startswith("`") and kind != "null"]
    lists = [kind for kind in others if kind[:8] == "list of " and kind[8:] in others]
    several = ["several"] if lists else []
    found = " or ".join([*(kind for kind in others if kind not in lists), *several])
    found = ", ".join(filter(None, [found, *values]))
    return f"{found}; or null" if "null" in kinds and "null" not in found else found


def rows(owner: type, prefix: str, skip: Iterable[str] = ()) -> list[Row]:
    """The options of a class, each with those of its settings."""
    parser = PromptParser(exit_on_error=False)
    parser.add_class_arguments(owner, prefix, skip=set(skip))
    found = []
    for action in parser._actions:
        hint, name = getattr(action, "_typehint", None), action.dest
        if hint is None or not name.startswith(f"{prefix}.") or action.default == "==SUPPRESS==":
            continue
        default = "" if action.required else f"`{value_of(action.default)}`"
        found.append(Row(f"--{name}", kind_of(hint), default, sentence(str(action.help))))
        for part in (hint, *typing.get_args(hint)):
            if isinstance(part, type) and part.__name__.endswith("Settings"):
                assert dataclasses.is_dataclass(part)
                found += rows(part, name)
    return found


def value_of(value: Any) -> str:
    """A default as it would be written in YAML, a class by its name alone."""
    if isinstance(value, Mapping) and "class_path" in value:
        return str(value["class_path"]).rpartition(".")[2]
    if hasattr(value, "class_path"):
        return str(value.class_path).rpartition(".")[2]
    if isinstance(value, str):
        return json.dumps(value) if value != value.strip() or "\n" in value or not value else value
    text = yaml.safe_dump(_plain(value), default_flow_style=True, width=1000)
    return text.removesuffix("\n").removesuffix("\n...")


def sentence(text: str) -> str:
    r"""The first sentence of a description, for a cell of a table.

    >>> sentence("Where it sits, e.g. last.\n  More of it. Default: ``None``.")
    'Where it sits, e.g. last'
    """
    text = re.sub(r"\s+", " ", re.sub(r":\w+:`", "`", text).replace("``", "`")).strip()
    text = re.split(r"(?<!e\.g)(?<!i\.e)(?<!et al)\. ", text, maxsplit=1)[0]
    return text.rstrip(".").replace("|", "\\|")


def shipped(config: Mapping[str, Any], prefix: str) -> dict[str, str]:
    """Values of a configuration's block, by their dotted names."""
    return {
        name: f"`{value}`" for name, value in _flat(config.get(prefix, {}), f"--{prefix}") if name
    }


def table(found: Iterable[Row], values: Mapping[str, str] | None = None) -> str:
    """Rows as Markdown."""
    heads = ["option", "type", "default", *(["shipped"] if values else []), "what it is"]
    lines = [f"| {' | '.join(heads)} |", f"| {' | '.join('---' for _ in heads)} |"]
    for row in found:
        kind = row.kind.replace("|", "\\|")
        given = [values.get(row.name, "")] if values else []
        cells = [f"`{row.name}`", kind, row.default.replace("|", "\\|"), *given, row.text]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def page() -> str:
    """The whole page."""
    parts = [BEGIN, "## Tuners\n"]
    for tuner in TUNERS:
        config, said = configuration_of(tuner), "No configuration of its own.\n"
        for path in sorted((CONFIGS / "tuner").glob("*.yaml")):
            if yaml.safe_load(path.read_text(encoding="utf-8")) == config:
                said = f"Shipped: `configs/tuner/{path.name}`.\n"
        values = shipped(config, "model")
        parts += [f"### {tuner.__name__}\n", said, table(rows(tuner, "model", LINKED), values)]
    parts += ["## Tasks\n"]
    base: list[Row] = []
    for task in TASKS:
        found = rows(task, "data", {"lm"})
        own = [row for row in found if row not in base] if task is not lp.YelpTransfer else found
        said = "As `TextClassification`, but for these:\n" if base and own != found else ""
        parts += [f"### {task.__name__}\n", said, table(own)]
        base = base or found
    parts += ["## Language model\n", table(rows(lp.FrozenLM, "lm"))]
    for title, classes, prefix in (
        ("Starts", STARTS, "model.init"),
        ("Rewards", REWARDS, "model.reward"),
        ("Schedules", SCHEDULES, "model.lr_scheduler"),
    ):
        parts += [f"## {title}\n"]
        for kind in classes:
            found = rows(kind, prefix, {"optimizer"} if title == "Schedules" else ())
            parts += [f"### {kind.__name__}\n", table(found) if found else "No options.\n"]
    parts += ["## Callbacks\n", "They measure at every validation, and keep the best prompt.\n"]
    for section, callback in SECTIONS.items():
        parts += [f"### {callback.__name__}\n", table(rows(callback, section))]
    default = yaml.safe_load((CONFIGS / "default.yaml").read_text(encoding="utf-8"))
    parts += [
        "## Trainer\n",
        "Lightning's own; shipped: `configs/default.yaml`. [trainer.md](trainer.md) says of each\n"
        "callback, logger and plugin whether it works.\n",
        table(rows(Trainer, "trainer"), shipped(default, "trainer")),
        "## The run\n",
        table(
            [
                Row("--config", "path", "", "A file of options; several are merged"),
                Row(
                    "--experiment",
                    "text",
                    "`null`",
                    "Folder under `logs/`; by default `<tuner>-<task>`",
                ),
                Row("--seed_everything", "int", "`0`", "What is drawn follows from it"),
                Row(
                    "--ckpt_path",
                    "text",
                    "`null`",
                    "`best`, `last`, `previous` or a file: go on from there",
                ),
                Row("--weights_only", kind_of(bool | None), "`null`", "How torch reads that file"),
                Row("--print_config", "", "", "Show the merged configuration and stop"),
            ]
        ),
    ]
    return "\n".join(part for part in parts if part)


def _kinds(hint: Any) -> Iterator[str]:
    """What a type may be, each in words; a value in backticks."""
    parts, origin = typing.get_args(hint), typing.get_origin(hint)
    if origin is Annotated:
        ranges = [str(part).removeprefix("a number ") for part in parts[1:] if _is_range(part)]
        yield ", ".join([kind_of(parts[0]), *ranges])
    elif origin is Literal:
        yield from (f"`{part}`" for part in parts)
    elif origin in (typing.Union, types.UnionType):
        for part in parts:
            yield from _kinds(part)
    elif origin is collections.abc.Callable:
        yield from _kinds(parts[-1])
    elif origin in (list, tuple, collections.abc.Sequence, collections.abc.Iterable):
        of = [part for part in parts if part is not Ellipsis]
        yield f"list of {kind_of(typing.Union[tuple(of)])}"  # noqa: UP007 - of as many as there are
    elif origin is not None:
        yield "mapping"
    elif hint is bool:
        yield from ("`true`", "`false`")
    else:
        names = {str: "text", type(None): "null", dict: "mapping"}
        yield names.get(hint) or getattr(hint, "__name__", str(hint))


def _is_range(thing: object) -> bool:
    return isinstance(thing, Range)


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(part) for part in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def _flat(block: Mapping[str, Any], name: str) -> Iterator[tuple[str, str]]:
    """Dotted names and values; of a class its own name, and then its options."""
    if "class_path" in block:
        yield name, str(block["class_path"]).rpartition(".")[2]
        block = block.get("init_args") or {}
    for key, value in block.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}.{key}")
        else:
            yield f"{name}.{key}", value_of(value)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
