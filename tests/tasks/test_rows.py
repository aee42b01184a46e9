"""Samples of rows keep the classes' shares."""

import hashlib
import json
from collections import Counter

import pytest

from lightning_prompts.tasks.rows import Rows, few_shot, stratified_order

LABELS = [0] * 600 + [1] * 300 + [2] * 90 + [3] * 10


def test_a_fingerprint_is_that_of_the_rows_and_labels_as_one_text() -> None:
    rows = [{"text": "é", "n": 1}, {"n": 2.5, "text": None}]
    for some, labels in ((rows, [0, 1]), (rows[:1], [1]), (rows, []), ([], [])):
        text = json.dumps([some, labels], sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()
        assert Rows("x", some, labels=labels).fingerprint == digest[:16]


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("stretch", [(0, 100), (0, 500), (700, 800), (800, 1000)])
def test_every_stretch_has_the_shares(seed: int, stretch: tuple[int, int]) -> None:
    order = stratified_order(LABELS, seed)
    assert sorted(order) == list(range(1000))
    start, end = stretch
    counts = Counter(LABELS[i] for i in order[start:end])
    for label, total in Counter(LABELS).items():
        assert abs(counts[label] - total * (end - start) / 1000) <= 1


def test_order_is_shuffled_by_seed() -> None:
    assert stratified_order(LABELS, 0) == stratified_order(LABELS, 0)
    first, second = (set(stratified_order(LABELS, s)[:100]) for s in (0, 1))
    assert len(first & second) < 30  # 10 of 100 by chance


def test_few_shot_draws_from_each_class() -> None:
    drawn = few_shot(LABELS, 16, seed=0)
    assert {label: len(members) for label, members in drawn.items()} == {0: 16, 1: 16, 2: 16, 3: 10}
    assert all(LABELS[i] == label for label, members in drawn.items() for i in members)
    assert all(len(set(members)) == len(members) for members in drawn.values())
    assert few_shot(LABELS, 16, seed=1) != drawn


def test_taken_rows_know_where_they_came_from() -> None:
    rows = Rows("data.csv", [{"text": t} for t in "abcd"], labels=[0, 1, 0, 1])
    taken = rows.take([3, 1]).take([1])
    assert taken.rows == [{"text": "b"}]
    assert taken.labels == [1]
    assert taken.place(0) == "data.csv, row 2"
    assert rows.take([]).columns == ("text",)
