"""A tuner's tuned values in Python: those of its shipped configuration, each with its reason."""

import re
from collections.abc import Collection, Mapping
from typing import Any

from jsonargparse import ArgumentParser

from lightning_prompts.files.shipped import shipped

GIVEN_BY_TASK = {"lm", "template", "verbalizer"}


def configuration_of(tuner: type) -> Mapping[str, Any]:
    """The shipped configuration of a tuner, or of the class that it extends; empty without one.

    That of `SoftPrompt` is configs/tuner/soft.yaml, by its `slug`, and that of `GuidedSearch`
    configs/tuner/guided_search.yaml, by its name.
    """
    for kind in tuner.__mro__:
        own = vars(kind).get("slug"), re.sub(r"(?<=[a-z])(?=[A-Z])", "_", kind.__name__).lower()
        for name in filter(None, own):
            if found := shipped(f"tuner/{name}.yaml"):
                return found
    return {}


def tuned(
    tuner: type, given: Collection[str], configuration: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Arguments of a tuner's constructor as its configuration has them.

    Args:
        tuner: The class.
        given: Names of arguments that are given otherwise.
        configuration: In place of the tuner's own, e.g. that of gcg.yaml.

    Returns:
        By name, as the command line makes them: an optimizer as a function of parameters, an
        initialiser as an object.
    """
    configuration = configuration_of(tuner) if configuration is None else configuration
    options = configuration.get("model", {}).get("init_args", {})
    options = {name: value for name, value in options.items() if name not in given}
    parser = ArgumentParser(exit_on_error=False)
    known = parser.add_class_arguments(tuner, as_group=False, skip={*GIVEN_BY_TASK, *given})
    names = {name.partition(".")[0] for name in known}
    parsed = parser.parse_object({name: v for name, v in options.items() if name in names})
    made = parser.instantiate(parsed)
    return {name: made[name] for name in options}
