"""The race against scoring everything, one prompt and one row at a time."""

import math

import pytest
import torch

from lightning_prompts.lm.batch import take, unpadded
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.lm.template import Template
from lightning_prompts.tuners.rewards import ClassificationGap
from lightning_prompts.tuners.search.race import Race, by_length, deal

FIRST, LAST, BOTH = "{prompt} {text} It was", "{text}{prompt}", "{text}{prompt} It was"
BEAM = [(9, 30, 12), (40, 41)]
CANDIDATES = [(9, 30, 13), (60,), (9, 31, 12), (40, 42), (5, 6, 7, 8), (77, 41), (33, 44, 55)]


def make(lm: FrozenLM, task, weight: float = 0.0, keep: float = 1.0) -> Race:
    reward = ClassificationGap()
    reward.attach(lm, Template(LAST, lm), task.verbalizer)
    return Race(reward, weight, keep, lambda values: values)


def objective(lm: FrozenLM, task, text: str, ids, weight: float, places) -> float:
    losses = task.losses(lm, text, ids)
    loss = sum(losses[i] for i in places) / len(places)
    return (1 - weight) * loss + weight * task.nats(lm, ids)


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("text", [FIRST, LAST, BOTH])
@pytest.mark.parametrize("rounds", [[[0, 1, 2, 3, 4, 5, 6]], [[4, 1], [0, 6, 2], [3, 5]]])
def test_where_all_are_kept_it_scores_them_all(
    lm: FrozenLM, task, text: str, weight: float, rounds: list[list[int]]
):
    race = make(lm, task, weight)
    found = race(BEAM, CANDIDATES, task.make_batch(lm, text), rounds)
    places = range(len(task.rows))
    expected = {ids: objective(lm, task, text, ids, weight, places) for ids in [*BEAM, *CANDIDATES]}
    assert [f.ids for f in found] == sorted(expected, key=expected.__getitem__)
    for f in found:
        assert f.objective == pytest.approx(expected[f.ids], rel=1e-5)
        assert f.loss == pytest.approx(sum(task.losses(lm, text, f.ids)) / 7, rel=1e-5)
        assert f.log_perplexity == pytest.approx(task.nats(lm, f.ids), rel=1e-5)


@pytest.mark.parametrize("text", [FIRST, LAST])
@pytest.mark.parametrize("weight", [0.0, 0.1])
@pytest.mark.parametrize("keep", [0.2, 0.5])
def test_survivors_are_the_best_on_the_rows_so_far(
    lm: FrozenLM, task, text: str, weight: float, keep: float
):
    rounds = [[4, 1], [0, 6, 2], [3, 5]]
    found = make(lm, task, weight, keep)(BEAM, CANDIDATES, task.make_batch(lm, text), rounds)
    left, seen = CANDIDATES, []
    for places in rounds[:-1]:
        seen += places
        values = {ids: objective(lm, task, text, ids, weight, seen) for ids in left}
        count = max(len(BEAM), math.ceil(keep * len(left)))
        left = sorted(left, key=values.__getitem__)[:count]
    assert {f.ids for f in found} == {*left, *BEAM}
    for f in found:  # those that stayed were scored on all rows
        expected = objective(lm, task, text, f.ids, weight, range(7))
        assert f.objective == pytest.approx(expected, rel=1e-5)


def test_the_beam_wins_ties_and_numbers_win_over_no_numbers(lm: FrozenLM, task):
    race, batch = make(lm, task), task.make_batch(lm, LAST)
    race._losses = lambda prompts, batch, places: torch.zeros(len(prompts)).double()
    found = race(BEAM, CANDIDATES, batch, [[0, 1]])
    assert [f.ids for f in found] == [*BEAM, *CANDIDATES]
    values = [math.nan if ids in (BEAM[0], CANDIDATES[0]) else 1.0 for ids in [*BEAM, *CANDIDATES]]
    race._losses = lambda prompts, batch, places: torch.tensor(values).double()
    found = race(BEAM, CANDIDATES, batch, [[0, 1]])
    assert {f.ids for f in found[-2:]} == {BEAM[0], CANDIDATES[0]}


def test_no_candidates_are_no_trouble(lm: FrozenLM, task):
    found = make(lm, task, 0.1, 0.25)(BEAM, [], task.make_batch(lm, FIRST), [[0, 1], [2]])
    assert {f.ids for f in found} == set(BEAM)


@pytest.mark.parametrize("weight", [0.0, 0.1])
def test_perplexities_in_parts_are_the_same(lm: FrozenLM, task, weight: float, monkeypatch):
    batch = task.make_batch(lm, LAST)
    whole = make(lm, task, weight)(BEAM, CANDIDATES, batch, [[0, 1, 2]])
    monkeypatch.setattr("lightning_prompts.tuners.search.race.LOGITS_AT_ONCE", lm.vocab_size * 3)
    parts = make(lm, task, weight)(BEAM, CANDIDATES, batch, [[0, 1, 2]])
    assert [f.ids for f in parts] == [f.ids for f in whole]
    for a, b in zip(parts, whole, strict=True):
        assert a[1:] == pytest.approx(b[1:], rel=1e-6)


@pytest.mark.parametrize("text", [FIRST, LAST])
def test_tokens_are_counted_as_whole_sequences(lm: FrozenLM, task, text: str):
    race, batch = make(lm, task, 0.1, 0.25), task.make_batch(lm, text)
    found = race(BEAM, CANDIDATES, batch, [[4, 1], [0, 3]])
    rows = [len(lm.encode(text.format(prompt="", text=row))) for row, _ in task.rows]
    expected = sum(len(ids) + rows[i] for ids in [*BEAM, *CANDIDATES] for i in (4, 1))
    expected += sum(len(f.ids) + rows[i] for f in found for i in (0, 3))
    assert race.row_tokens == expected
    # Those of the last round a second time, exactly.
    assert race.prompt_tokens == sum(map(len, [*BEAM, *CANDIDATES, *(f.ids for f in found)]))


# ---- which rows


def test_rows_are_dealt_alike_over_any_number_of_processes():
    numbers = torch.tensor([50, 3, 17, 9, 28, 41, 5, 33, 12, 60])
    labels = torch.tensor([0, 0, 1, 0, 1, 1, 0, 0, 1, 1])

    def dealt(parts: list[list[int]]) -> list[set[int]]:
        """Numbers of the rows of each round, for a division of the batch."""
        joined, classes = (torch.cat([x[part] for part in parts]) for x in (numbers, labels))
        rounds, start = None, 0
        for part in parts:
            own = range(start, start + len(part))
            mine = deal(joined, classes, own, [3, 6], torch.Generator().manual_seed(4))
            found = [{int(numbers[part[place]]) for place in places} for places in mine]
            assert all(
                len(set(places)) == len(places) and set(places) <= set(range(len(part)))
                for places in mine
            )
            rounds = (
                found if rounds is None else [a | b for a, b in zip(rounds, found, strict=True)]
            )
            start += len(part)
        return rounds

    alone = dealt([list(range(10))])
    assert [len(places) for places in alone] == [3, 3, 4]
    assert set().union(*alone) == set(numbers.tolist())
    assert dealt([list(range(0, 10, 2)), list(range(1, 10, 2))]) == alone
    assert dealt([[9, 1, 2], [0], [3, 4, 5, 6, 7, 8]]) == alone


def test_rows_are_drawn_and_not_the_first_ones():
    numbers, labels, own = torch.arange(32), torch.arange(32) % 2, range(32)
    firsts = [
        deal(numbers, labels, own, [8], torch.Generator().manual_seed(i))[0] for i in range(20)
    ]
    assert len({frozenset(first) for first in firsts}) == 20
    assert len(set().union(*firsts)) == 32


@pytest.mark.parametrize(
    ("sizes", "expected"), [([], [6]), ([2, 4], [2, 2, 2]), ([2, 6], [2, 4]), ([9], [6])]
)
def test_rounds_without_new_rows_are_left_out(sizes: list[int], expected: list[int]):
    rounds = deal(torch.arange(6), torch.zeros(6), range(6), sizes, torch.Generator())
    assert list(map(len, rounds)) == expected


@pytest.mark.parametrize("seed", range(5))
def test_each_round_has_the_classes_in_their_shares(seed: int):
    labels = torch.tensor([0] * 24 + [1] * 12 + [2] * 4)[torch.randperm(40)]
    rounds = deal(
        torch.arange(40), labels, range(40), [10, 20], torch.Generator().manual_seed(seed)
    )
    for places in ([*rounds[0]], [*rounds[0], *rounds[1]]):
        for label, share in enumerate((0.6, 0.3, 0.1)):
            found = int((labels[places] == label).sum())
            assert abs(found - share * len(places)) <= 1


@pytest.mark.parametrize("text", [FIRST, LAST, BOTH])
@pytest.mark.parametrize("places", [[1], [3, 1], [6, 0, 2, 5]])
def test_some_rows_are_the_batch_of_these_rows(lm: FrozenLM, task, text: str, places: list[int]):
    taken = take(task.make_batch(lm, text), places)
    expected = task.make_batch(lm, text, [task.rows[i] for i in places])
    assert taken.keys() == expected.keys()
    assert taken["rows"].tolist() == places
    for side in ("before", "after"):
        own, other = (unpadded(b[f"{side}_ids"], b[f"{side}_lengths"]) for b in (taken, expected))
        assert own == other
        assert taken[f"{side}_ids"].shape == expected[f"{side}_ids"].shape
    for name in ("texts", "before_sizes", "num_tokens", "min_after", "num_real_tokens"):
        assert taken[name] == expected[name]
    assert taken["labels"].tolist() == expected["labels"].tolist()
    if len(places) > 1:
        assert taken["shared_before"] == expected["shared_before"]


def test_by_length():
    assert by_length([(1, 2), (3,), (4, 5), (6,)]) == [[0, 2], [1, 3]]
