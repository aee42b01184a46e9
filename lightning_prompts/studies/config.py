"""A study's configuration, checked as a whole before anything is run."""

import re
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from jsonargparse import ArgumentError, ArgumentParser
from jsonargparse.typing import NonNegativeInt, PositiveInt

from lightning_prompts.files.errors import PromptError
from lightning_prompts.files.text import did_you_mean
from lightning_prompts.studies.space import Range, Space, parse_space, refuse_unknown, thinned

Direction = Literal["maximize", "minimize"]
BLOCKS = ("study", "base", "set", "variants", "space", "override", "limits")
# What a trial's place in the study decides.
RESERVED = {
    "seed_everything": "study.seeds",
    "experiment": "study.name",
    "ckpt_path": "nothing, a trial goes on by itself",
    "trainer.logger": "nothing, trials lie in the study's folder",
}
OBJECTIVES: dict[str, Direction] = {"val/accuracy": "maximize", "val/log_perplexity": "minimize"}
# What to give where a value is of another kind, by a type that its parser names.
KINDS = (
    ("list[", "a list, [0, 1, 2], or how many"),
    ("PositiveInt", "a whole number, at least 1"),
    ("NonNegativeInt", "a whole number, at least 0"),
    ("dict", "names with their values"),
    ("bool", "true or false"),
    ("str", "a text"),
)


@dataclass(frozen=True)
class Settings:
    """The `study` block.

    Attributes:
        name: Of its folder, and in the storage.
        description: What it asks, for people.
        suffix: Added to the name, by a file that changes any study.
        sampler: `grid` runs every combination of the lists; `random`, `tpe` and `nsga2` draw.
        trials: Settings to draw; null for a grid.
        seeds: Each setting is run with each of them: a list, or how many.
        objectives: Metric of the best validation to `maximize` or `minimize`.
        test: Whether each run's best prompt is tested on the held-out test rows.
        pruner: `median` or `hyperband` stop hopeless runs, where there is one objective.
        storage: Optuna's URL for several machines; null is a journal in the study's folder.
        folder: Where studies lie.
        levels: At most this many values of each list, evenly from the first to the last.
        sampler_seed: Of what the sampler draws.
    """

    name: str = ""
    description: str = ""
    suffix: str = ""
    sampler: Literal["grid", "random", "tpe", "nsga2"] = "grid"
    trials: PositiveInt | None = None
    seeds: NonNegativeInt | list[NonNegativeInt] = 1
    objectives: dict[str, Direction] = field(default_factory=lambda: dict(OBJECTIVES))
    test: bool = True
    pruner: Literal["median", "hyperband"] | None = None
    storage: str | None = None
    folder: str = "logs/studies"
    levels: PositiveInt | None = None
    sampler_seed: NonNegativeInt = 0


@dataclass(frozen=True)
class Variant:
    """A named setting of many options: configurations, options, and what it alone varies.

    Attributes:
        configs: Files.
        set: Options.
        space: What is varied.
        limits: Options that the study's limits have lowered.
    """

    configs: tuple[str, ...] = ()
    set: Mapping[str, Any] = field(default_factory=dict)
    space: Space = field(default_factory=dict)
    limits: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class StudyConfig:
    """A whole study.

    Attributes:
        settings: The `study` block.
        base: Configurations that every run begins with.
        set: Options of every run, which count more than configurations.
        variants: By name; where none is given, one without a name.
        space: What is varied in every variant.
        override: Options that count more than a variant's own.
        limits: Options that are lowered where they are above a number.
        content: All of it as it is written to study.yaml.
    """

    settings: Settings
    base: tuple[str, ...]
    set: Mapping[str, Any]
    variants: Mapping[str, Variant]
    space: Space
    override: Mapping[str, Any]
    limits: Mapping[str, float]
    content: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The study's name, with its suffix."""
        return self.settings.name + self.settings.suffix

    @property
    def folder(self) -> Path:
        """The study's folder."""
        return Path(self.settings.folder) / self.name

    def space_of(self, variant: str) -> Space:
        """What is varied in a variant, under the names of options."""
        return {**self.space, **self.variants[variant].space}


def parse_config(content: Mapping[str, Any]) -> StudyConfig:
    """Check a study's merged content.

    Raises:
        PromptError: At the first mistake, with its place.
    """
    for key in content:
        if key not in BLOCKS:
            raise PromptError(f"{key}: no such block of a study{did_you_mean(str(key), BLOCKS)}")
    settings = _settings(content.get("study"))
    variants = {
        str(name): _variant(f"variants.{name}", value)
        for name, value in _mapping("variants", content.get("variants")).items()
    } or {"": Variant()}
    config = StudyConfig(
        settings,
        _names("base", content.get("base")),
        _options("set", content.get("set")),
        variants,
        parse_space("space", content.get("space") or {}),
        _options("override", content.get("override")),
        _limits(content.get("limits")),
        content,
    )
    return _checked(config)


def study_parser(**kwargs: Any) -> ArgumentParser:
    """A parser that knows the keys of the `study` block, as `--study.KEY`."""
    parser = ArgumentParser(**kwargs)
    parser.add_class_arguments(Settings, "study")
    return parser


def _settings(given: Any) -> Settings:
    values = dict(_mapping("study", given))
    refuse_unknown("study", values, tuple(Settings.__dataclass_fields__))
    try:
        parsed = study_parser(exit_on_error=False).parse_object({"study": deepcopy(values)})
    except ArgumentError as error:
        raise PromptError(_refused(str(error), values)) from error
    settings = Settings(**{key: _plain(value) for key, value in vars(parsed.study).items()})
    name = settings.name + settings.suffix
    if not settings.name or any(c in '/\\:*?"<>|' or ord(c) < 32 for c in name):
        raise PromptError(
            f"study.name is {name!r}; give a name that a folder can have. Give the study's own "
            "file first: --config configs/study/demo.yaml."
        )
    if not settings.objectives:
        raise PromptError("study.objectives is empty; give at least one, val/accuracy: maximize.")
    if settings.pruner and len(settings.objectives) > 1:
        raise PromptError(
            f"study.pruner {settings.pruner} needs one objective, and there are "
            f"{len(settings.objectives)}; keep one, or take the pruner out."
        )
    return replace(settings, seeds=_seeds(settings.seeds))


def _plain(value: Any) -> Any:
    """Numbers of the parser's own types as Python's, which YAML and Optuna know."""
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return int(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _refused(report: str, values: Mapping[str, Any]) -> str:
    """One sentence out of the parser's report on a value."""
    found = re.search(r'Parser key "study\.(\w+)"', report)
    key = found[1] if found else ""
    value = values.get(key)
    if names := re.findall(r"Literal\[(.+)\]", report):
        got = re.findall(r"(?:Got|Given) value: (.+)", report)[-1]
        known = re.findall(r"'(.+?)'", names[-1])
        return f"study.{key} is {got!r}{did_you_mean(got, known)}"
    kind = next((words for name, words in KINDS if name in report), "another value")
    return f"study.{key} is {value!r}; give {kind}."


def _checked(config: StudyConfig) -> StudyConfig:
    """What concerns several blocks at once."""
    grid = config.settings.sampler == "grid"
    if grid and config.settings.trials is not None:
        raise PromptError("study.trials is for samplers that draw; a grid has as many as it has.")
    if not grid and config.settings.trials is None:
        raise PromptError(f"study.trials: say how many settings {config.settings.sampler} draws.")
    for name in config.variants:
        for key, domain in config.space_of(name).items():
            if grid and isinstance(domain, Range):
                raise PromptError(
                    f"space.{key} is a range, which a grid cannot run; give a list of values, or "
                    "--study.sampler random, tpe or nsga2."
                )
            if key in config.override:
                raise PromptError(
                    f"--{key} is what the study varies, so it cannot be set for all runs; change "
                    "the lists in the study's file, or give --study.levels 1."
                )
    places = [config.set, config.override, config.space, config.limits]
    places += [part for v in config.variants.values() for part in (v.set, v.space)]
    for key in (key for place in places for key in place):
        for reserved, instead in RESERVED.items():
            if key == reserved or key.startswith(reserved + "."):
                raise PromptError(f"{key} cannot be set in a study: it follows from {instead}.")
    levels = config.settings.levels
    variants = {
        name: replace(variant, space=thinned(variant.space, levels))
        for name, variant in config.variants.items()
    }
    return replace(config, variants=variants, space=thinned(config.space, levels))


def _variant(where: str, given: Any) -> Variant:
    content = _mapping(where, given)
    refuse_unknown(where, content, ("configs", "set", "space"))
    return Variant(
        _names(f"{where}.configs", content.get("configs")),
        _options(f"{where}.set", content.get("set")),
        parse_space(f"{where}.space", content.get("space") or {}),
    )


def _seeds(given: int | list[int]) -> list[int]:
    seeds = list(range(given)) if isinstance(given, int) else given
    if not seeds:
        raise PromptError(f"study.seeds is {given!r}; give a list, [0, 1, 2], or how many.")
    if len(set(seeds)) < len(seeds):
        raise PromptError(f"study.seeds {given} names a seed twice; each gives one run.")
    return seeds


def _options(where: str, given: Any) -> dict[str, Any]:
    """Options by their dotted names; nested blocks are not meant here."""
    options = {str(key): value for key, value in _mapping(where, given).items()}
    for key in options:
        if key in ("model", "data", "trainer", "lm") and isinstance(options[key], Mapping):
            raise PromptError(f"{where}.{key}: write options by their dotted names, {key}.NAME.")
    return options


def _limits(given: Any) -> dict[str, float]:
    limits = _options("limits", given)
    for key, value in limits.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
            raise PromptError(f"limits.{key} is {value!r}; give a number above 0.")
    return limits


def _names(where: str, given: Any) -> tuple[str, ...]:
    names = [given] if isinstance(given, str) else (given or [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise PromptError(f"{where}: give a list of configuration files.")
    return tuple(names)


def _mapping(where: str, given: Any) -> Mapping[str, Any]:
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise PromptError(f"{where} is {given!r}; give names with their values.")
    return given
