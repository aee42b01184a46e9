"""Mistakes that nobody thought of: drawn at random, refused in a sentence or done as asked."""

from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from soak.case import Case, run_case
from soak.generated import drawn_anew, faults, same
from soak.mutations import CONFIG, configurations, data_files, of_configuration, of_data
from soak.world import World, damaged, make_world

NUMBERS = count()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A model and data; its run loads what the forked commands would each have to load."""
    return make_world(tmp_path_factory.mktemp("world"))


def check(case: Case, world: World, asked: dict[str, Any] | None) -> None:
    before = world.digests()
    here = world.folder / "cases" / str(next(NUMBERS))
    outcome = run_case(case, world, here, fresh=False)
    assert not faults(outcome, here, asked, world), outcome.output
    assert not damaged(before, world.digests())


@settings(drawn_anew, max_examples=30)
@given(config=configurations())
def test_a_changed_configuration_is_refused_or_done_as_asked(config: dict, world: World):
    check(of_configuration(config), world, config)


@settings(drawn_anew, max_examples=30)
@given(file=data_files())
def test_a_damaged_data_file_is_refused_or_read(file: tuple[str, bytes], world: World):
    check(of_data(*file), world, None)


def test_the_configuration_is_good_before_it_is_changed(world: World, tmp_path: Path):
    case = of_configuration(CONFIG)
    outcome = run_case(case, world, tmp_path / "good", fresh=False)
    assert outcome.status == 0, outcome.output
    assert not faults(outcome, tmp_path / "good", CONFIG, world)
    # The comparison would see an option that was ignored.
    trainer = {**CONFIG["trainer"], "max_steps": 3}
    found = faults(outcome, tmp_path / "good", {"trainer": trainer}, world)
    assert found == ["trainer.max_steps was asked as 3 and is 2"]


@pytest.mark.parametrize(
    ("asked", "have", "equal"),
    [
        (1, 1.0, True),
        ("1e3", 1000.0, True),
        ("SoftPrompt", "lightning_prompts.SoftPrompt", True),
        ({}, {"top": 5000}, True),
        (True, 1.0, True),
        (None, 3, False),
        ("a", "b", False),
        (2, 3, False),
        ("", "x", False),
    ],
)
def test_what_counts_as_done_as_asked(asked, have, equal: bool):
    assert same(asked, have) is equal
