"""Every number that a part takes has a range in its signature, and the range holds."""

import copy
import inspect
import math
import pickle
import typing
from collections.abc import Iterator

import pytest
import torch

import lightning_prompts.tasks
import lightning_prompts.tuners
from lightning_prompts.callbacks.faithfulness import Faithfulness
from lightning_prompts.cli.app import SECTIONS, import_all
from lightning_prompts.cli.option_values import (
    LIBRARIES,
    options_of,
    refuse_nulls,
    refuse_numbers,
)
from lightning_prompts.cli.style import Recipe
from lightning_prompts.files.errors import PromptError
from lightning_prompts.files.option_names import speaking_flags
from lightning_prompts.files.option_types import (
    ChecksOptions,
    Count,
    Range,
    metadata,
    parameters,
    require,
)
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.tasks.base import PromptTask
from lightning_prompts.tuners.base import PromptTuner
from lightning_prompts.tuners.prompt_init import FromVocabulary, PromptInit
from lightning_prompts.tuners.rewards import ClassificationGap, Reward
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


OWNERS: list[type] = [
    *below(PromptTuner),
    *(kind for kind in below(PromptTask) if kind.__name__ != "StyleSentences"),
    *(*below(PromptInit), *below(Reward), *SECTIONS.values()),
    *(FrozenLM, PolicySettings, EditSettings, FilterSettings, WarmupLinear, Recipe),
]


def is_number(hint: object) -> bool:
    return any(part in (int, float) for part in (hint, *typing.get_args(hint)))


NUMBERS = [
    (owner, name)
    for owner in OWNERS
    for name, hint in typing.get_type_hints(owner.__init__).items()
    if is_number(hint)
]


@pytest.mark.parametrize(("owner", "name"), NUMBERS)
def test_every_number_has_a_range_that_its_class_checks(owner: type, name: str):
    hint = parameters(owner)[name].hint
    assert metadata(hint, Range)
    assert issubclass(owner, ChecksOptions) or hasattr(owner, "__post_init__")
    for value in (math.nan, math.inf, -math.inf, True, "many"):
        with pytest.raises(PromptError, match=f"^{name} is .*; give "):
            require(name, value, hint)


def test_the_walk_finds_numbers():
    found = {(owner.__name__, name) for owner, name in NUMBERS}
    assert {
        ("SoftPrompt", "prompt_length"),
        ("EditSettings", "insert"),
        ("TextClassification", "shots"),
        ("FrozenLM", "text_cache"),
    } <= found


@pytest.mark.parametrize("option", LIBRARIES)
@speaking_flags()
def test_no_number_of_a_library_is_nan_or_infinite(option: str):
    block, *names = option.split(".")
    for value in (math.nan, math.inf, -math.inf):
        config: object = value
        for name in reversed(names):
            config = {name: config}
        with pytest.raises(PromptError, match=f"^--{option} is .*; give "):
            refuse_numbers(list(options_of({block: config}, {})))


def test_ends_of_a_range():
    assert [Range(0, 1).has(x) for x in (0, 1, -0.1, 1.1)] == [True, True, False, False]
    assert [Range(0, above=True).has(x) for x in (0, 1e-9)] == [False, True]
    assert [Range(0, also=-1).has(x) for x in (-1, -2, 0)] == [True, False, True]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: FromVocabulary(top=0), "top is 0; give at least 1."),
        (lambda: FromVocabulary(2.5), "top is 2.5; give a whole number, at least 1."),
        (lambda: EditSettings(swap=math.nan), "swap is nan; give at least 0."),
        (lambda: PolicySettings(top_k=2**40), f"top_k is {2**40}; give at most {2**31 - 1}."),
        (lambda: ClassificationGap(1.0, -1.0), "wrong is -1.0; give at least 0."),
        (lambda: Faithfulness(max_batches=True), "max_batches is True; give at least 1."),
    ],
)
def test_a_class_checks_what_it_is_made_with(make: typing.Callable[[], object], said: str):
    with pytest.raises(PromptError) as refused:
        make()
    assert str(refused.value) == said


def test_options_of_a_subclass_and_of_its_ancestors_are_checked():
    class Own(FromVocabulary):
        def __init__(self, repeats: Count = 1, **kwargs: typing.Any) -> None:
            super().__init__(**kwargs)
            self.repeats = repeats

    assert Own(2, top=None).repeats == 2
    for bad in ({"repeats": 0}, {"top": 0}):
        with pytest.raises(PromptError, match=f"{next(iter(bad))} is 0; give at least 1"):
            Own(**bad)


def test_checked_classes_are_copied_and_described_as_others_are():
    settings = EditSettings(swap=2.0)
    assert copy.deepcopy(settings) == pickle.loads(pickle.dumps(settings)) == settings
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    assert copy.deepcopy(WarmupLinear(optimizer, warmup_steps=3)).warmup_steps == 3
    assert [*inspect.signature(ClassificationGap).parameters] == ["right", "wrong"]


@speaking_flags()
def test_numbers_are_found_wherever_they_stand():
    def refuse(config: dict[str, object]) -> None:
        refuse_numbers(list(options_of(config, SECTIONS)))

    guided = "lightning_prompts.tuners.GuidedSearch"

    def adam(**options: object) -> dict[str, object]:
        optimizer = {"class_path": "torch.optim.Adam", "init_args": options}
        return {"model": {"class_path": guided, "init_args": {"optimizer": optimizer}}}

    refuse(adam(betas=(0.9, 0.99)))
    part = {"class_path": "lightning_prompts.callbacks.faithfulness.Faithfulness", "init_args": {}}
    part["init_args"] = {"max_batches": 0}
    for config, named in (
        (
            {"model": {"class_path": guided, "init_args": {"race": [8, 0]}}},
            "--model.race is [8, 0]; give at least 1",
        ),
        (
            {"model": {"class_path": guided, "init_args": {"edits": {"insert": -1.0}}}},
            "--model.edits.insert is -1.0; give at least 0.",
        ),
        ({"faithfulness": {"max_batches": 0}}, "--faithfulness.max_batches is 0; give at least 1."),
        ({"trainer": {"callbacks": [part]}}, "--trainer.callbacks.max_batches is 0"),
        (adam(lr=[1, 2]), "--model.optimizer.lr is [1, 2]; give one number"),
        ({"trainer": {"val_check_interval": 0}}, "--trainer.val_check_interval is 0"),
    ):
        with pytest.raises(PromptError) as refused:
            refuse(config)
        assert named in str(refused.value)
    # What is no number is not a range's business, and true is none.
    refuse({"seed_everything": True, "trainer": {"val_check_interval": "00:01:00:00"}})


@speaking_flags()
def test_nulls_are_refused_where_nothing_takes_them():
    soft = "lightning_prompts.SoftPrompt"
    fine = {"model": {"class_path": soft, "init_args": {"prompt_length": None, "lm": None}}}
    refuse_nulls(list(options_of(fine, {})), ("model.lm",))
    for name in ("projection", "perplexity_weight", "seed"):
        bad = {"model": {"class_path": soft, "init_args": {name: None}}}
        with pytest.raises(PromptError, match=f"--model.{name} is null"):
            refuse_nulls(list(options_of(bad, {})))
    with pytest.raises(PromptError, match=r"--lm\.name is null"):
        refuse_nulls(list(options_of({"lm": {"name": None, "revision": None}}, {"lm": FrozenLM})))
