"""Perplexity against a float64 loop, round trips against a recursive edit distance."""

import math
import random
from functools import cache

import pytest
import torch
from torch import Tensor

from lightning_prompts.metrics.scrutability import (
    LogPerplexity,
    levenshtein,
    log_perplexity,
    perplexity,
    round_trip,
    token_nll,
)


def brute_force_nats(logits: Tensor, token_ids: Tensor) -> list[list[float]]:
    """-log softmax at each label, one number at a time in Python floats."""
    rows = []
    for prompt, ids in zip(logits.tolist(), token_ids.tolist(), strict=True):
        nats = []
        for scores, label in zip(prompt, ids, strict=True):
            top = max(scores)
            normalizer = top + math.log(sum(math.exp(score - top) for score in scores))
            nats.append(normalizer - scores[label])
        rows.append(nats)
    return rows


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_token_nll_is_the_mean_of_a_loop(dtype: torch.dtype) -> None:
    logits = (torch.randn(3, 5, 11, generator=torch.manual_seed(0)) * 4).to(dtype)
    token_ids = torch.randint(11, (3, 5), generator=torch.manual_seed(1))
    expected = [sum(nats) / len(nats) for nats in brute_force_nats(logits, token_ids)]
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    assert token_nll(logits, token_ids).dtype == wide
    assert token_nll(logits, token_ids).tolist() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_token_nll_is_finite_where_softmax_then_log_is_not(dtype: torch.dtype) -> None:
    logits = torch.zeros(1, 1, 3, dtype=dtype)
    logits[..., 0] = 200.0
    label = torch.tensor([[2]])
    assert logits.softmax(-1).log()[0, 0, 2].isinf()
    assert token_nll(logits, label).item() == 200.0


def test_token_nll_names_both_shapes() -> None:
    with pytest.raises(ValueError, match=r"\(2, 4\).*\(2, 3\)"):
        token_nll(torch.zeros(2, 4, 7), torch.zeros(2, 3, dtype=torch.long))


def test_perplexity_averages_nats_before_exp() -> None:
    nats = torch.tensor([[1.0, 2.0], [3.0, 6.0]])
    assert log_perplexity(nats).item() == 3.0
    assert perplexity(nats).item() == pytest.approx(math.exp(3.0))
    mean_of_perplexities = (math.exp(1.5) + math.exp(4.5)) / 2
    assert abs(perplexity(nats).item() - mean_of_perplexities) > 20


def test_log_perplexity_aggregates_uneven_batches_by_token() -> None:
    generator = torch.manual_seed(2)
    batches = [torch.rand(k, p, generator=generator) * 9 for k, p in ((1, 7), (3, 2), (2, 5))]
    metric = LogPerplexity()
    for batch in batches:
        metric.update(batch)
    every = [value for batch in batches for value in batch.double().flatten().tolist()]
    assert metric.compute().item() == pytest.approx(sum(every) / len(every), rel=1e-6)
    mean_of_means = sum(batch.mean().item() for batch in batches) / len(batches)
    assert abs(metric.compute().item() - mean_of_means) > 1e-3


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_log_perplexity_of_nothing_is_nan() -> None:
    assert LogPerplexity().compute().isnan()


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
