"""Classes that no configuration can make as they are, refused by name with what to give instead."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from lightning_prompts.files.errors import PromptError

_OURS = "lightning_prompts"
# By the end of their path.
UNUSABLE = (
    (
        r"(?:^|\.)SequentialLR$",
        "takes schedules that are already made; give "
        f"{_OURS}.SequentialSchedule, with the same schedulers and milestones",
    ),
    (
        r"(?:^|\.)ChainedScheduler$",
        "takes schedules that are already made; give "
        f"{_OURS}.ChainedSchedule, with the same schedulers",
    ),
    (
        r"(?:^|\.)get_\w*schedule\w*$",
        "is a function, and a configuration names classes; give "
        f"{_OURS}.TransformersSchedule, with its name, such as linear or cosine",
    ),
    (
        r"(?:^|\.)GreedyLR$",
        "is no torch scheduler, as Lightning wants one; give torch.optim.lr_scheduler."
        "ReduceLROnPlateau",
    ),
)


def refuse_unusable(option: str, value: Any) -> None:
    """Refuse a class that an option cannot have, wherever it stands in the value.

    Args:
        option: Dotted, without `init_args`.
        value: As given: a class's name, a mapping, a list of them, or anything else.

    Raises:
        PromptError: At the first one.
    """
    for name, class_path in _classes(option, value):
        for pattern, reason in UNUSABLE:
            if name.endswith(("lr_scheduler", ".schedulers")) and re.search(pattern, class_path):
                raise PromptError(f"--{name} {class_path.rpartition('.')[2]} {reason}.")


def _classes(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """Options with the texts that may name their class."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            same = key in ("class_path", "init_args")
            yield from _classes(name if same else f"{name}.{key}".lstrip("."), inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _classes(name, inner)
    elif isinstance(value, str):
        yield name.removesuffix(".class_path"), value
