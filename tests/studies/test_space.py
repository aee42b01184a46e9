"""Lists and ranges: every combination once, mistakes with their place."""

import optuna
import pytest

from lightning_prompts.files.errors import PromptError
from lightning_prompts.studies.space import (
    Choice,
    Range,
    parse_space,
    points,
    samples,
    suggest,
    thinned,
)


def test_points_are_every_combination_once():
    space = parse_space("space", {"a": [1, 2, 3], "b": ["x", None], "c": [True]})
    found = list(points(space))
    expected = [{"a": a, "b": b, "c": True} for a in (1, 2, 3) for b in ("x", None)]
    assert found == expected
    assert list(points({})) == [{}]


def test_samples_meet_every_value_and_every_end():
    space = parse_space("space", {"a": [1, 2, 3], "b": {"low": 0.1, "high": 0.9}})
    found = list(samples(space))
    assert {point["a"] for point in found} == {1, 2, 3}
    assert {point["b"] for point in found} == {0.1, 0.9}


@pytest.mark.parametrize(
    ("levels", "expected"),
    [(None, (0, 1, 2, 3, 4)), (9, (0, 1, 2, 3, 4)), (3, (0, 2, 4)), (2, (0, 4)), (1, (0,))],
)
def test_levels_keep_the_ends(levels, expected):
    assert thinned({"a": Choice((0, 1, 2, 3, 4))}, levels)["a"].values == expected


def test_optuna_is_asked_for_values_of_the_same_kind():
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(20):
        trial = study.ask()
        assert suggest(trial, "a", Choice(("x", None))) in ("x", None)
        whole = suggest(trial, "b", Range(2, 4))
        assert isinstance(whole, int)
        assert 2 <= whole <= 4
        assert 1e-4 <= suggest(trial, "c", Range(1e-4, 1.0, log=True)) <= 1.0


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([1], "give options with their values"),
        ({"a": []}, "space.a is an empty list"),
        ({"a": [[1, 2]]}, "is no single value; give what needs several options as variants"),
        ({"a": [1, 1]}, "names a value twice"),
        ({"a": 0.1}, "space.a is 0.1; give a list of values or a range"),
        ({"a": {"low": 2, "high": 1}}, "low below high"),
        ({"a": {"low": "1e-3", "high": 1}}, "needs a point: 1.0e-3"),
        ({"a": {"low": 0, "high": 1, "log": True}}, "low must be above 0"),
        ({"a": {"low": 0, "hihg": 1}}, "space.a.hihg: no such key; did you mean high?"),
    ],
)
def test_mistakes_are_said_with_their_place(content, said):
    with pytest.raises(PromptError, match=said.replace("?", r"\?")):
        parse_space("space", content)
