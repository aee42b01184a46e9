"""Every number that a part takes from the command line has a range, and the range holds."""

import inspect
import math
import types
import typing
from collections.abc import Iterator

import pytest

import lightning_prompts.tasks
import lightning_prompts.tuners
from lightning_prompts.cli.app import SECTIONS, import_all
from lightning_prompts.cli.nulls import refuse_nulls
from lightning_prompts.files.errors import PromptError
from lightning_prompts.files.option_types import OPTIONS, Range, require, require_numbers
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.tasks.base import PromptTask
from lightning_prompts.tuners.base import PromptTuner
from lightning_prompts.tuners.prompt_init import PromptInit
from lightning_prompts.tuners.rewards import Reward
from lightning_prompts.tuners.rl.policy import PolicySettings
from lightning_prompts.tuners.schedule import WarmupLinear
from lightning_prompts.tuners.search.allowed import FilterSettings
from lightning_prompts.tuners.search.candidates import EditSettings

for package in (lightning_prompts.tuners, lightning_prompts.tasks):
    import_all(package)


def below(base: type) -> Iterator[type]:
    yield base
    for kind in base.__subclasses__():
        if kind.__module__.startswith("lightning_prompts"):
            yield from below(kind)


OWNERS = [
    *(("model", kind) for kind in below(PromptTuner)),
    *(("data", kind) for kind in below(PromptTask) if kind.__name__ != "StyleSentences"),
    *(("model.init", kind) for kind in below(PromptInit)),
    *(("model.reward", kind) for kind in below(Reward)),
    *SECTIONS.items(),
    ("lm", FrozenLM),
    ("model.policy", PolicySettings),
    ("model.edits", EditSettings),
    ("model.filters", FilterSettings),
    ("model.lr_scheduler", WarmupLinear),
]


def is_number(hint: object) -> bool:
    parts = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    return any(part in (int, float) for part in parts)


@pytest.mark.parametrize(
    ("block", "owner"), OWNERS, ids=lambda value: getattr(value, "__name__", value)
)
def test_every_number_has_a_range(block: str, owner: type):
    hints = typing.get_type_hints(owner.__init__)
    for name in inspect.signature(owner.__init__).parameters:
        if is_number(hints.get(name)):
            assert f"{block}.{name}" in OPTIONS


def test_the_walk_finds_numbers():
    found = {
        f"{block}.{n}" for block, o in OWNERS for n in inspect.signature(o.__init__).parameters
    }
    assert {"model.perplexity_weight", "model.edits.insert", "data.shots", "lm.text_cache"} <= found


@pytest.mark.parametrize("option", OPTIONS)
def test_no_option_takes_nan_or_infinity(option: str):
    for value in (math.nan, math.inf, -math.inf):
        with pytest.raises(PromptError, match=f"--{option} is .*; give "):
            require(option, value)


def test_ends_of_a_range():
    assert [Range(0, 1).has(x) for x in (0, 1, -0.1, 1.1)] == [True, True, False, False]
    assert [Range(0, above=True).has(x) for x in (0, 1e-9)] == [False, True]
    assert [Range(0, also=-1).has(x) for x in (-1, -2, 0)] == [True, False, True]


def test_numbers_are_found_wherever_they_stand():
    require_numbers({"model": {"init_args": {"optimizer": {"init_args": {"betas": (0.9, 0.99)}}}}})
    for config, named in (
        ({"model": {"init_args": {"race": [8, 0]}}}, "--model.race is [8, 0]; give at least 1"),
        ({"model": {"init_args": {"optimizer": {"init_args": {"lr": [1, 2]}}}}}, "give one number"),
        ({"trainer": {"val_check_interval": 0}}, "--trainer.val_check_interval is 0"),
    ):
        with pytest.raises(PromptError) as refused:
            require_numbers(config)
        assert named in str(refused.value)
    # What is no number is not a range's business, and true is none.
    require_numbers({"seed_everything": True, "trainer": {"val_check_interval": "00:01:00:00"}})


def test_nulls_are_refused_where_nothing_takes_them():
    soft = "lightning_prompts.SoftPrompt"
    fine = {"model": {"class_path": soft, "init_args": {"prompt_length": None, "lm": None}}}
    refuse_nulls(fine, {}, ("model.lm",))
    for name in ("projection", "perplexity_weight", "seed"):
        bad = {"model": {"class_path": soft, "init_args": {name: None}}}
        with pytest.raises(PromptError, match=f"--model.{name} is null"):
            refuse_nulls(bad, {})
    with pytest.raises(PromptError, match=r"--lm\.name is null"):
        refuse_nulls({"lm": {"name": None, "revision": None}}, {"lm": FrozenLM})
