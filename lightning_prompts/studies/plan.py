"""Which runs a study consists of, and the command line of each."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_prompts.runs.record import VARIANT
from lightning_prompts.studies.config import StudyConfig
from lightning_prompts.studies.space import Scalar, Space, points, samples


@dataclass(frozen=True)
class Planned:
    """One run of a study.

    Attributes:
        group: Runs that differ only in their seed are of one group.
        seed: Of the run.
        params: Values under their names in Optuna; None where its sampler draws them.
    """

    group: int
    seed: int
    params: Mapping[str, Scalar] | None

    @property
    def key(self) -> str:
        """Names the run, so that it is planned once."""
        return json.dumps([self.seed, self.group if self.params is None else self.params])


def planned_runs(config: StudyConfig) -> list[Planned]:
    """All runs, in the order in which they are taken.

    A grid runs all its settings with the first seed before any with the second, so that a stopped
    study can be compared as far as it got; a sampler learns from all seeds of a setting.
    """
    seeds, trials = config.settings.seeds, config.settings.trials
    if config.settings.sampler != "grid":
        return [Planned(group, seed, None) for group in range(trials or 0) for seed in seeds]
    settings = [
        {name_of(config, variant, key): value for key, value in {VARIANT: variant, **point}.items()}
        for variant in config.variants
        for point in points(config.space_of(variant))
    ]
    if len(config.variants) == 1:
        settings = [{k: v for k, v in setting.items() if k != VARIANT} for setting in settings]
    return [Planned(i, seed, setting) for seed in seeds for i, setting in enumerate(settings)]


def name_of(config: StudyConfig, variant: str, key: str) -> str:
    """An option's name in Optuna, where one name has one list of values in the whole study."""
    own = key in config.variants[variant].space
    return f"{key} ({variant})" if own and variant else key


def trial_args(
    config: StudyConfig, variant: str, point: Mapping[str, Scalar], seed: int
) -> list[str]:
    """The command line of a run, as a person would write it.

    Args:
        config: The study's.
        variant: Name of the variant.
        point: A value for everything that varies in it, by the names of options.
        seed: Of the run.
    """
    own = config.variants[variant]
    options = {**config.set, **own.set, **point, **config.override, **own.limits}
    options["seed_everything"] = seed
    files = [part for name in (*config.base, *own.configs) for part in ("--config", name)]
    return ["fit", *files, *(f"--{name}={written(value)}" for name, value in options.items())]


def example_args(config: StudyConfig) -> Iterator[tuple[str, list[str]]]:
    """Variants with command lines in which every value that is varied occurs."""
    for variant in config.variants:
        for point in samples(config.space_of(variant)):
            yield variant, trial_args(config, variant, point, config.settings.seeds[0])


def written(value: Any) -> str:
    """A value as it is given on the command line.

    >>> written(None), written(True), written([1.0, 0.1]), written("{text}{prompt}")
    ('null', 'true', '[1.0, 0.1]', '{text}{prompt}')
    """
    return value if isinstance(value, str) else json.dumps(value)


def label(variant: str, point: Mapping[str, Any], space: Space) -> str:
    """A setting for people: the variant's name and what varies, by the last parts of the names."""
    parts = [f"{key.rpartition('.')[2]} {written(point[key])}" for key in space if key in point]
    return ", ".join([*([variant] if variant else []), *parts]) or "one setting"


def trial_folder(folder: Path, number: int) -> Path:
    """Where a trial's run lies."""
    return folder / "trials" / f"{number:04d}"
