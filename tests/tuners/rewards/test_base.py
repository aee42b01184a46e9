"""Z-scores of rewards."""

import statistics

import pytest
import torch

from lightning_prompts.tuners.rewards.base import standardise


def test_standardise_by_its_formula():
    rewards = [3.0, -1.0, 7.5, 2.0]
    mean, spread = statistics.mean(rewards), statistics.pstdev(rewards)
    got = standardise(torch.tensor(rewards, dtype=torch.float64))
    assert got.tolist() == pytest.approx([(r - mean) / (spread + 1e-4) for r in rewards])


def test_the_last_dimension_is_standardised():
    rewards = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(standardise(rewards), torch.stack([standardise(r) for r in rewards]))


@pytest.mark.parametrize("value", [0.0, 3.0, -171.3, 1e6])
@pytest.mark.parametrize("count", [1, 2, 16])
def test_equal_rewards_give_zeros(value: float, count: int):
    got = standardise(torch.full((count,), value))
    assert got.isfinite().all()
    assert got.abs().max() < 1e-3


def test_rewards_that_differ_by_rounding_alone_stay_small():
    rewards = torch.tensor([50.0, 50.000004, 50.0, 50.0])
    assert standardise(rewards).abs().max() < 0.1
