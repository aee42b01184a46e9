"""The readability term of a reward, and its mix with the task's."""

import math
import statistics

import pytest
import torch

from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.tuners.rewards.base import Scores
from lightning_prompts.tuners.rewards.scrutability import log_perplexities, mix_rewards

TASK, NATS = [12.0, -40.0, 55.0, 12.0], [3.0, 9.5, 6.0, 4.25]


@pytest.fixture
def task() -> Scores:
    raw = torch.tensor(TASK, dtype=torch.float64)
    return Scores.of_same_rows(raw, {})


@pytest.fixture
def nats() -> torch.Tensor:
    return torch.tensor(NATS, dtype=torch.float64)


def z_scores(values: list[float]) -> list[float]:
    mean, spread = statistics.mean(values), statistics.pstdev(values)
    return [(value - mean) / (spread + 1e-4) for value in values]


def test_log_perplexities_are_the_chain_rule(lm: FrozenLM):
    prompts = torch.tensor([[7, 9, 30], [12, 50, 3], [7, 7, 7]])
    got = log_perplexities(lm, prompts)
    for value, tokens in zip(got.tolist(), prompts.tolist(), strict=True):
        nats = 0.0
        for i, token in enumerate(tokens):
            logits = lm.model(torch.tensor([[lm.bos_id, *tokens[:i]]])).logits[0, -1].double()
            nats -= logits.log_softmax(-1)[token].item() / len(tokens)
        assert value == pytest.approx(nats, rel=1e-5)
    assert not got.requires_grad


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 1.0])
def test_zscore_standardises_both_terms(task: Scores, nats: torch.Tensor, alpha: float):
    got = mix_rewards(task, nats, alpha, "zscore")
    terms = zip(z_scores(TASK), z_scores([-n for n in NATS]), strict=True)
    expected = [(1 - alpha) * r + alpha * s for r, s in terms]
    assert got.tolist() == pytest.approx(expected)


@pytest.mark.parametrize("scale", [1.0, 10.0])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 1.0])
def test_raw_takes_both_as_measured(task: Scores, nats: torch.Tensor, alpha: float, scale: float):
    got = mix_rewards(task, nats, alpha, "raw", scale)
    expected = [(1 - alpha) * r - alpha * scale * n for r, n in zip(TASK, NATS, strict=True)]
    assert got.tolist() == pytest.approx(expected)


def test_zscore_is_the_default(task: Scores, nats: torch.Tensor):
    assert torch.equal(mix_rewards(task, nats, 0.4), mix_rewards(task, nats, 0.4, "zscore"))


def test_the_task_s_own_z_scores_count(nats: torch.Tensor):
    """They may be standardised within groups of the step's prompts."""
    z = torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=torch.float64)
    assert torch.equal(mix_rewards(Scores(torch.tensor(TASK), z, z, {}), nats, 0.0), z)


@pytest.mark.parametrize("mix", ["zscore", "raw"])
def test_alpha_changes_which_prompt_is_best(task: Scores, nats: torch.Tensor, mix: str):
    best = [mix_rewards(task, nats, a, mix, 50.0).argmax().item() for a in (0.0, 1.0)]
    assert best == [2, 0]


def test_equal_prompts_mix_to_zero():
    raw, nats = torch.full((4,), 33.3), torch.full((4,), math.pi)
    mixed = mix_rewards(Scores.of_same_rows(raw, {}), nats, 0.5)
    assert mixed.isfinite().all()
    assert mixed.abs().max() < 1e-2
