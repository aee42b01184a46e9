"""Perplexity against a float64 loop, round trips against a recursive edit distance."""

import random
from functools import cache

import pytest
import torch

from lightning_prompts.metrics.scrutability import (
    levenshtein,
    log_perplexity,
    round_trip,
)


def test_log_perplexity_is_the_mean_over_all_tokens() -> None:
    nats = torch.tensor([[1.0, 2.0], [3.0, 6.0]])
    assert log_perplexity(nats).item() == 3.0
    assert log_perplexity(nats.half()).dtype == torch.float32


def test_levenshtein_equals_its_recursive_definition() -> None:
    @cache
    def definition(left: tuple[int, ...], right: tuple[int, ...]) -> int:
        if not left or not right:
            return len(left) + len(right)
        return min(
            definition(left[1:], right) + 1,
            definition(left, right[1:]) + 1,
            definition(left[1:], right[1:]) + (left[0] != right[0]),
        )

    draw = random.Random(0)
    for _ in range(200):
        left = tuple(draw.randrange(4) for _ in range(draw.randrange(7)))
        right = tuple(draw.randrange(4) for _ in range(draw.randrange(7)))
        assert levenshtein(left, right) == definition(left, right)


@pytest.mark.parametrize(
    ("ids", "re_encoded", "share"),
    [
        ([], [], 1.0),
        ([5], [], 0.0),
        ([5, 6, 7], [5, 6, 7], 1.0),
        ([5, 6], [9], 0.0),
        ([1, 2, 3, 4], [1, 9, 4], 0.5),
        ([1], [1, 2, 3, 4, 5], 0.2),
    ],
)
def test_round_trip(ids: list[int], re_encoded: list[int], share: float) -> None:
    assert round_trip(ids, re_encoded) == pytest.approx(share)
    assert round_trip(re_encoded, ids) == pytest.approx(share)
