"""KL and kappa of two prompts' answers, against sums over rows in float64."""

import math
from statistics import median

import pytest
import torch
from torch import Tensor

from lightning_prompts.metrics.agreement import AnswerAgreement, kappa, row_kl


def log_shares(rows: int, classes: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, classes, generator=generator).double().log_softmax(-1)


def kl_by_sum(wanted: Tensor, found: Tensor) -> float:
    rows = zip(wanted.tolist(), found.tolist(), strict=True)
    return sum(sum(math.exp(p) * (p - q) for p, q in zip(*row, strict=True)) for row in rows) / len(
        wanted
    )


def kappa_by_counts(one: list[int], other: list[int]) -> float:
    n = len(one)
    agreed = sum(a == b for a, b in zip(one, other, strict=True)) / n
    chance = sum(one.count(c) / n * other.count(c) / n for c in {*one, *other})
    return 0.0 if chance == 1 else (agreed - chance) / (1 - chance)


def recalibrated(scores: Tensor) -> list[int]:
    rows = scores.tolist()
    if len(rows[0]) == 2:
        middle = median(b - a for a, b in rows)
        return [int(b - a > middle) for a, b in rows]
    means = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
    found = [[x - m for x, m in zip(row, means, strict=True)] for row in rows]
    return [row.index(max(row)) for row in found]


@pytest.mark.parametrize("classes", [2, 3])
def test_over_batches_as_over_all_rows(classes: int):
    # One side leans to a class: as they are they agree less than recalibrated.
    wanted, noise = log_shares(30, classes, 0), log_shares(30, classes, 1)
    lean = torch.tensor([2.5] + [0.0] * (classes - 1))
    found = (wanted + 0.1 * noise + lean).log_softmax(-1)
    metric = AnswerAgreement()
    for places in torch.arange(30).split(7):
        metric.update(wanted[places], found[places])
    values = {name: float(value) for name, value in metric.compute().items()}
    assert values["match_kl"] == pytest.approx(kl_by_sum(wanted, found), abs=1e-12)
    sides = [each.argmax(-1).tolist() for each in (wanted, found)]
    assert values["match_kappa"] == pytest.approx(kappa_by_counts(*sides))
    again = kappa_by_counts(*map(recalibrated, (wanted, found)))
    assert values["match_kappa_recalibrated"] == pytest.approx(again)
    assert again > values["match_kappa"] + 0.2
    metric.reset()
    metric.update(wanted, wanted)
    assert [float(value) for value in metric.compute().values()] == [0, 1, 1]


def test_kl_has_a_direction_and_a_gradient():
    wanted, found = log_shares(5, 3, 2), log_shares(5, 3, 3).requires_grad_()
    assert row_kl(wanted, found).shape == (5,)
    assert (row_kl(wanted, found) > 0).all()
    assert not torch.allclose(row_kl(wanted, found), row_kl(found, wanted))
    row_kl(wanted, found).sum().backward()
    torch.testing.assert_close(found.grad, -wanted.exp())
    assert kappa(torch.tensor([0, 0]), torch.tensor([0, 0])) == 0.0
