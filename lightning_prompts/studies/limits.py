"""Limits of a study: options that are lowered to a number wherever they are above it."""

from dataclasses import replace
from typing import Any

from lightning_prompts.studies.config import StudyConfig
from lightning_prompts.studies.needs import ABSENT, inner, parsed_examples


def limited(config: StudyConfig) -> StudyConfig:
    """The study with every option that is above its limit, or without bound, set to the limit.

    What is below already, what a variant's classes do not have, what is varied, and what the
    command line or the block `override` asks for stays.

    Raises:
        PromptError: If a run's command line has a mistake.
    """
    if not config.limits:
        return config
    variants = dict(config.variants)
    limits = {key: limit for key, limit in config.limits.items() if key not in config.override}
    for name, parsed in parsed_examples(config):
        lowered = {
            key: limit
            for key, limit in limits.items()
            if key not in config.space_of(name) and _is_above(inner(parsed, *key.split(".")), limit)
        }
        variants[name] = replace(variants[name], limits={**variants[name].limits, **lowered})
    return replace(config, variants=variants)


def _is_above(value: Any, limit: float) -> bool:
    """Whether a value is above, or none, which stands for all there is."""
    if value is ABSENT:
        return False
    return value is None or (isinstance(value, int | float) and not 0 <= value <= limit)
