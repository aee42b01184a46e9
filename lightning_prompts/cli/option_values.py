"""Every option of a parsed configuration with its type, and the values that it may not have."""

import dataclasses
import typing
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from lightning_prompts.files.errors import PromptError
from lightning_prompts.files.option_types import (
    Count,
    CountOrZero,
    NotNegative,
    Parameter,
    Positive,
    Range,
    Seed,
    Share,
    parameters,
    require,
)
from lightning_prompts.files.public_names import find_class

# Numbers that only a library reads, where it takes them in silence or fails far from the option.
# Ours have their ranges in the signatures. Steps and epochs of -1 are unlimited.
LIBRARIES: dict[str, Any] = {
    "seed_everything": Seed,
    "model.optimizer.lr": NotNegative,
    "model.optimizer.weight_decay": NotNegative,
    "model.optimizer.momentum": NotNegative,
    "model.optimizer.eps": NotNegative,
    "model.optimizer.betas": Share,
    "model.lr_scheduler.total_steps": Count,
    "trainer.max_steps": Range(0, also=-1),
    "trainer.min_steps": CountOrZero,
    "trainer.max_epochs": Range(0, also=-1),
    "trainer.min_epochs": CountOrZero,
    "trainer.limit_train_batches": NotNegative,
    "trainer.limit_val_batches": NotNegative,
    "trainer.limit_test_batches": NotNegative,
    "trainer.limit_predict_batches": NotNegative,
    "trainer.val_check_interval": Positive,
    "trainer.check_val_every_n_epoch": Count,
    "trainer.num_sanity_val_steps": Range(0, also=-1),
    "trainer.log_every_n_steps": CountOrZero,
    "trainer.accumulate_grad_batches": Count,
    "trainer.gradient_clip_val": NotNegative,
    "trainer.num_nodes": Count,
}
# The parser takes a list for a tensor, which some of torch's numbers may be; these have several.
_SEVERAL = ("model.optimizer.betas", "model.optimizer.eps")


class Option(NamedTuple):
    """One option of a configuration.

    Attributes:
        name: With dots, without `init_args`.
        value: As parsed.
        parameter: What its class says of it; None where it is not known.
        block: What stands beside it, by name.
    """

    name: str
    value: Any
    parameter: Parameter | None
    block: Mapping[str, Any]


def options_of(config: Mapping[str, Any], owners: Mapping[str, type]) -> Iterator[Option]:
    """All options, from the outermost to the innermost.

    Args:
        config: Nested, as parsed.
        owners: Class of each block that does not name its own.
    """
    for block, content in config.items():
        yield Option(block, content, None, config)
        if isinstance(content, Mapping):
            yield from _inside(content, block, owners.get(block))


def refuse_nulls(options: Sequence[Option], decided: Collection[str] = ()) -> None:
    """Refuse a null where a class has no use for one: the parser itself lets it stand for any.

    Args:
        options: Of a configuration.
        decided: Options that get their value from others, later.

    Raises:
        PromptError: At the first such option.
    """
    for name, value, parameter, _ in options:
        if value is None and parameter and not parameter.takes_null and name not in decided:
            raise PromptError(f"--{name} is null; give a value, or leave the option out.")


def refuse_numbers(options: Sequence[Option]) -> None:
    """Refuse the first number that is out of its type's range, or out of a library's.

    Args:
        options: Of a configuration.

    Raises:
        PromptError: If there is one.
    """
    for name, value, parameter, _ in options:
        if parameter is not None:
            require(f"--{name}", value, parameter.hint)
        if name in LIBRARIES and not isinstance(value, bool | str):
            if name not in _SEVERAL and not isinstance(value, int | float | None):
                raise PromptError(f"--{name} is {value}; give one number.")
            require(f"--{name}", value, LIBRARIES[name])


def _inside(content: Mapping[str, Any], name: str, owner: type | None) -> Iterator[Option]:
    """Options of a block, each with those of its own."""
    if "class_path" in content:
        owner = find_class(content["class_path"])
        content = {**(content.get("init_args") or {}), **(content.get("dict_kwargs") or {})}
    known = parameters(owner) if owner is not None else {}
    for key, value in content.items():
        parameter = known.get(key)
        yield Option(f"{name}.{key}", value, parameter, content)
        for part in value if isinstance(value, list) else (value,):
            if isinstance(part, Mapping):
                yield from _inside(
                    part, f"{name}.{key}", _settings_in(parameter and parameter.hint)
                )


def _settings_in(hint: Any) -> type | None:
    """The dataclass that a type asks for, whose options name no class."""
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return hint
    return next(filter(None, map(_settings_in, typing.get_args(hint))), None)
