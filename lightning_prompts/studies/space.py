"""What a study varies: lists of values and ranges, by the names of options."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lightning_prompts.files.errors import PromptError
from lightning_prompts.files.text import did_you_mean

if TYPE_CHECKING:
    from optuna import Trial

Scalar = str | int | float | bool | None


@dataclass(frozen=True)
class Choice:
    """A list of values."""

    values: tuple[Scalar, ...]


@dataclass(frozen=True)
class Range:
    """All numbers from `low` to `high`, whole ones where both are, by magnitude where `log`."""

    low: float
    high: float
    log: bool = False


Domain = Choice | Range
Space = dict[str, Domain]


def parse_space(where: str, content: Any) -> Space:
    """Read the `space` of a study's file.

    Args:
        where: Names the block, for messages.
        content: Option to a list of values or to `{low, high, log}`.

    Raises:
        PromptError: If it is no space.

    >>> parse_space("space", {"model.alpha": [0, 0.5], "model.optimizer.lr": {"low": 1, "high": 2}})
    {'model.alpha': Choice(values=(0, 0.5)), 'model.optimizer.lr': Range(low=1, high=2, log=False)}
    """
    if not isinstance(content, Mapping):
        raise PromptError(f"{where}: give options with their values, for example model.alpha: [0].")
    return {str(name): _domain(f"{where}.{name}", value) for name, value in content.items()}


def refuse_unknown(where: str, content: Mapping[str, Any], known: Sequence[str]) -> None:
    """Stop at a key that means nothing.

    Raises:
        PromptError: With the nearest known one.
    """
    for key in content:
        if key not in known:
            raise PromptError(f"{where}.{key}: no such key{did_you_mean(str(key), known)}")


def points(space: Space) -> Iterator[dict[str, Scalar]]:
    """Every combination of a space of lists, the last option's values first."""
    lists = [domain.values for domain in space.values() if isinstance(domain, Choice)]
    for values in itertools.product(*lists):
        yield dict(zip(space, values, strict=True))


def samples(space: Space) -> Iterator[dict[str, Scalar]]:
    """Points among which every listed value and every end of a range occurs."""
    ends = {
        name: domain.values if isinstance(domain, Choice) else (domain.low, domain.high)
        for name, domain in space.items()
    }
    for i in range(max(map(len, ends.values()), default=1)):
        yield {name: values[min(i, len(values) - 1)] for name, values in ends.items()}


def thinned(space: Space, levels: int | None) -> Space:
    """The space with at most so many values in each list, evenly from the first to the last.

    >>> thinned({"model.alpha": Choice((0, 0.1, 0.3, 0.5))}, 2)
    {'model.alpha': Choice(values=(0, 0.5))}
    """
    return {
        name: Choice(_evenly(domain.values, levels)) if isinstance(domain, Choice) else domain
        for name, domain in space.items()
    }


def suggest(trial: "Trial", name: str, domain: Domain) -> Scalar:
    """Ask Optuna for a value under a name."""
    if isinstance(domain, Choice):
        chosen: Scalar = trial.suggest_categorical(name, domain.values)
        return chosen
    if isinstance(domain.low, int) and isinstance(domain.high, int):
        return trial.suggest_int(name, domain.low, domain.high, log=domain.log)
    return trial.suggest_float(name, domain.low, domain.high, log=domain.log)


def _evenly(values: Sequence[Scalar], count: int | None) -> tuple[Scalar, ...]:
    last = len(values) - 1
    if count is None or count > last:
        return tuple(values)
    if count == 1:
        return (values[0],)
    return tuple(values[round(i * last / (count - 1))] for i in range(count))


def _domain(where: str, value: Any) -> Domain:
    if isinstance(value, list):
        if not value:
            raise PromptError(f"{where} is an empty list; give values, or take it out.")
        if bad := [v for v in value if not isinstance(v, Scalar)]:
            raise PromptError(
                f"{where}: {bad[0]!r} is no single value; give what needs several options as "
                "variants."
            )
        if len({repr(v) for v in value}) < len(value):
            raise PromptError(f"{where} names a value twice; each is run once with each seed.")
        return Choice(tuple(value))
    if isinstance(value, Mapping):
        refuse_unknown(where, value, ("low", "high", "log"))
        low, high, log = (value.get(key, False) for key in ("low", "high", "log"))
        if not _number(low) or not _number(high) or not isinstance(log, bool) or low >= high:
            raise PromptError(
                f"{where}: a range needs two numbers, low below high, and log true or false (a "
                "number with an exponent needs a point: 1.0e-3)."
            )
        if log and low <= 0:
            raise PromptError(f"{where}: with log, low must be above 0; it is {low}.")
        return Range(low, high, log)
    raise PromptError(
        f"{where} is {value!r}; give a list of values or a range {{low: ..., high: ...}}, or set "
        "it once for all under `set`."
    )


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
