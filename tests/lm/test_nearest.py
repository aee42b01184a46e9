"""Nearest tokens against a loop in float64, and the straight-through estimator."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_prompts.lm.nearest import (
    Distance,
    EmbeddingIndex,
    distance,
    nearest_few,
    nearest_tokens,
    straight_through,
)

METRICS: list[Distance] = ["cosine", "euclidean"]


def brute_force(
    prompt: Tensor, table: Tensor, metric: str, excluded: set[int]
) -> tuple[list, list]:
    """One distance at a time, in Python floats."""
    ids, distances = [], []
    for p in prompt.double().tolist():
        best = None
        for y, row in enumerate(table.double().tolist()):
            if y in excluded:
                continue
            if metric == "cosine":
                dot = sum(a * b for a, b in zip(p, row, strict=True))
                norms = sum(a * a for a in p) ** 0.5 * sum(b * b for b in row) ** 0.5
                d = 1 - dot / norms
            else:
                d = sum((a - b) ** 2 for a, b in zip(p, row, strict=True)) ** 0.5
            if best is None or d < best[0]:
                best = (d, y)
        distances.append(best[0])
        ids.append(best[1])
    return ids, distances


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("excluded", [None, [0, 3, 17]])
def test_nearest_tokens_is_the_argmin(metric: Distance, excluded: list[int] | None):
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(40, 6, generator=generator) * torch.rand(40, 1, generator=generator) * 3
    prompt = torch.randn(25, 6, generator=generator)
    banned = None if excluded is None else torch.tensor(excluded)
    got = nearest_tokens(prompt, table, metric, banned)
    ids, distances = brute_force(prompt, table, metric, set(excluded or ()))
    assert got.ids.tolist() == ids
    torch.testing.assert_close(got.distances.tolist(), distances, rtol=1e-5, atol=1e-6)
    # The two distances must be able to disagree, or this test could not tell them apart.
    other = brute_force(prompt, table, "euclidean" if metric == "cosine" else "cosine", set())
    assert other[0] != ids


@pytest.mark.parametrize("metric", METRICS)
def test_the_nearest_few_are_those_that_are_left_one_by_one(metric: Distance):
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(40, 6, generator=generator)
    table[30] = table[7]  # equally far: the lower id first
    prompt = torch.randn(9, 6, generator=generator)
    got = nearest_few(prompt, EmbeddingIndex(table), 5, metric, torch.tensor([0, 3]))
    for p, ids, distances in zip(prompt, got.ids.tolist(), got.distances.tolist(), strict=True):
        banned = {0, 3}
        for i, far in zip(ids, distances, strict=True):
            (best,), (exact,) = brute_force(p[None], table, metric, banned)
            assert i == best
            assert far == pytest.approx(exact, rel=1e-5, abs=1e-6)
            banned.add(i)


@pytest.mark.parametrize("metric", METRICS)
def test_rows_find_themselves_at_distance_zero_beside_near_copies(metric: Distance):
    table = torch.randn(30, 8, generator=torch.Generator().manual_seed(0)) * 50
    table[21] = table[4] + 1e-3 * torch.eye(8)[0]  # nearly a copy of row 4, in another direction
    ids = torch.tensor([4, 21, 4, 29, 0])
    got = nearest_tokens(table[ids], table, metric)
    assert got.ids.tolist() == ids.tolist()
    assert got.distances.tolist() == [0.0] * 5


@pytest.mark.parametrize("metric", METRICS)
def test_autocast_does_not_change_the_tokens(metric: Distance):
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(2000, 16, generator=generator)
    prompt = torch.randn(50, 16, generator=generator)
    expected = nearest_tokens(prompt, table, metric)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = nearest_tokens(prompt, table, metric)
    assert torch.equal(got.ids, expected.ids)


def test_fewer_tokens_than_candidates():
    table = torch.eye(4)
    got = nearest_tokens(table[:2], table, "cosine", torch.tensor([0, 1, 3]))
    assert got.ids.tolist() == [2, 2]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("similarities", [1, 40, 130])
def test_few_vectors_at_a_time_find_the_same(
    metric: Distance, similarities: int, monkeypatch: pytest.MonkeyPatch
):
    """For 40 rows: one vector at a time, one, three, and never more similarities than fit."""
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(40, 6, generator=generator)
    table[31] = table[5]  # a tie, for the lower id
    prompt = torch.cat([torch.randn(10, 6, generator=generator), table[[31]]])
    banned = torch.tensor([7, 8])
    expected = nearest_tokens(prompt, table, metric, banned)
    assert expected.ids[-1] == 5

    sizes = []
    nearness = EmbeddingIndex.nearness

    def counted(index: EmbeddingIndex, prompt: Tensor, metric: Distance) -> Tensor:
        sizes.append(nearness(index, prompt, metric).numel())
        return nearness(index, prompt, metric)

    monkeypatch.setattr(EmbeddingIndex, "nearness", counted)
    monkeypatch.setattr("lightning_prompts.lm.nearest._SIMILARITIES_AT_ONCE", similarities)
    got = nearest_tokens(prompt, table, metric, banned)
    assert got.ids.tolist() == expected.ids.tolist()
    assert torch.equal(got.distances, expected.distances)
    assert max(sizes) <= max(40, similarities)
    assert sum(sizes) == 11 * 40


def test_an_index_prepares_its_table_once(monkeypatch: pytest.MonkeyPatch):
    table = torch.randn(40, 6).bfloat16()
    index, made = EmbeddingIndex(table), []

    def count(name: str) -> None:
        run = getattr(Tensor, name)

        def counted(tensor: Tensor, *args: Any) -> Tensor:
            made.append((name, tensor.shape))
            return run(tensor, *args)

        monkeypatch.setattr(Tensor, name, counted)

    count("to")
    count("square")
    for _ in range(3):
        nearest_tokens(table[:7], index, "cosine")
    assert made.count(("to", table.shape)) == 1
    for _ in range(3):
        nearest_tokens(table[:7], index, "euclidean")
    assert made.count(("square", table.shape)) == 1


def test_an_index_searches_as_its_table_does():
    table = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
    index, prompt = EmbeddingIndex(table), table[:7] * 0.7 + 0.1
    for metric in METRICS * 2:  # twice: what was cached must serve again
        assert torch.equal(
            nearest_tokens(prompt, index, metric).ids, nearest_tokens(prompt, table, metric).ids
        )


def test_cosine_distance_is_one_minus_the_cosine():
    a, b = torch.randn(2, 9, 5, generator=torch.Generator().manual_seed(0)).unbind()
    expected = 1 - F.cosine_similarity(a.double(), b.double(), dim=-1)
    torch.testing.assert_close(distance(a, b, "cosine").double(), expected, rtol=1e-5, atol=1e-6)


def test_straight_through_is_bitwise_a_row_with_the_gradient_at_the_projection():
    table = torch.randn(30, 8)
    continuous = torch.randn(4, 8, requires_grad=True)
    rows = table[nearest_tokens(continuous, table).ids]
    out = straight_through(continuous, rows)
    assert torch.equal(out, rows)
    out.pow(3).sum().backward()
    torch.testing.assert_close(continuous.grad, 3 * rows**2)
