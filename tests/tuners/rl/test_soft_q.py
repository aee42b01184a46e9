"""Losses of the policy against their formulas, written as loops over prompts and tokens."""

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lightning_prompts.tuners.rl.soft_q import (
    action_values,
    entropy,
    leave_one_out,
    policy_gradient,
    soft_q_loss,
    soft_q_v2,
    soft_q_v3,
)

K, P, V = 4, 3, 7


@pytest.fixture
def draw() -> Callable[..., Tensor]:
    generator = torch.Generator().manual_seed(0)
    return lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64) * 2


@pytest.fixture
def ids() -> Tensor:
    return torch.randint(V, (K, P), generator=torch.Generator().manual_seed(1))


def log_sum(row: Tensor) -> float:
    return math.log(sum(math.exp(q) for q in row.tolist()))


def reference_advantages(logits: Tensor, ids: Tensor) -> list[list[float]]:
    return [
        [float(logits[k, t, ids[k, t]]) - log_sum(logits[k, t]) for t in range(ids.shape[1])]
        for k in range(len(ids))
    ]


def reference_values(logits: Tensor) -> list[list[float]]:
    return [[log_sum(row) for row in rows] for rows in logits]


def reference_losses(
    advantages: list[list[float]], values: list[list[float]], rewards: list[float]
) -> tuple[float, float]:
    """v2 and v3, summed over tokens, mean over prompts."""
    v2 = v3 = 0.0
    for a, v, r in zip(advantages, values, rewards, strict=True):
        last = len(a) - 1
        for t in range(len(a)):
            following = r if t == last else v[t + 1]
            v2 += (a[t] - (following - v[t])) ** 2 / len(advantages)
            v3 += (sum(a[t:]) - (r - v[t])) ** 2 / len(advantages)
    return v2, v3


def test_advantages_are_log_probabilities(draw, ids: Tensor):
    logits = draw(K, P, V)
    advantages, values = action_values(logits, ids)
    expected = torch.tensor(reference_advantages(logits, ids), dtype=torch.float64)
    torch.testing.assert_close(advantages, expected)
    torch.testing.assert_close(values, torch.tensor(reference_values(logits)).to(values))
    torch.testing.assert_close(
        advantages, logits.log_softmax(-1).gather(-1, ids[..., None])[..., 0]
    )


def test_losses_equal_the_loops(draw, ids: Tensor):
    logits, target, rewards = draw(K, P, V), draw(K, P, V), draw(K)
    own = reference_advantages(logits, ids), reference_values(target), rewards.tolist()
    v2, v3 = reference_losses(*own)
    assert abs(v2 - v3) > 1  # two losses, not one
    advantages, _ = action_values(logits, ids)
    values = target.logsumexp(-1)
    assert soft_q_v2(advantages, values, rewards).item() == pytest.approx(v2, rel=1e-12)
    assert soft_q_v3(advantages, values, rewards).item() == pytest.approx(v3, rel=1e-12)
    got = soft_q_loss(logits, target, ids, rewards)
    assert got.item() == pytest.approx((v2 + v3) / 2, rel=1e-12)


@pytest.mark.parametrize("weight", [1.0, 0.25, 4.0])
def test_a_prior_shifts_advantages_and_values_and_scales_rewards(draw, ids: Tensor, weight: float):
    logits, target, prior, rewards = draw(K, P, V), draw(K, P, V), draw(K, P, V), draw(K)
    own, other = reference_advantages(logits, ids), reference_advantages(prior, ids)
    values, other_values = reference_values(target), reference_values(prior)
    advantages = [
        [a - b for a, b in zip(x, y, strict=True)] for x, y in zip(own, other, strict=True)
    ]
    shifted = [
        [a - b for a, b in zip(x, y, strict=True)]
        for x, y in zip(values, other_values, strict=True)
    ]
    v2, v3 = reference_losses(advantages, shifted, [r / weight for r in rewards.tolist()])
    got = soft_q_loss(logits, target, ids, rewards, prior, weight)
    assert got.item() == pytest.approx((v2 + v3) / 2, rel=1e-12)


def all_sequences() -> Tensor:
    return torch.tensor(list(itertools.product(range(3), repeat=2)))


@pytest.mark.parametrize("weight", [None, 0.5, 2.0])
def test_the_loss_is_zero_at_the_soft_optimal_policy(draw, weight: float | None):
    """exp(r) without a prior, p exp(r / w) with one; Q-values by backward induction."""
    ids, rewards, w = all_sequences(), draw(9), weight or 1.0
    prior_first, prior_second = draw(3).log_softmax(-1), draw(3, 3).log_softmax(-1)
    if weight is None:
        prior_first, prior_second = torch.zeros_like(prior_first), torch.zeros_like(prior_second)
    second = rewards.view(3, 3) / w + prior_second
    first = second.logsumexp(-1) + prior_first

    def rows(of_first: Tensor, of_second: Tensor) -> Tensor:
        return torch.stack([of_first.expand(9, 3), of_second[ids[:, 0]]], dim=1)  # (9, 2, 3)

    logits = rows(first, second)
    prior = None if weight is None else rows(prior_first, prior_second)
    assert soft_q_loss(logits, logits, ids, rewards, prior, w).item() == pytest.approx(0, abs=1e-20)
    log_p = logits.log_softmax(-1).gather(-1, ids[..., None])[..., 0].sum(1)
    optimal = rewards / w + prior_first[ids[:, 0]] + prior_second[ids[:, 0], ids[:, 1]]
    torch.testing.assert_close(log_p, optimal.log_softmax(0))
    assert soft_q_loss(logits + draw(9, 2, 3), logits, ids, rewards, prior, w) > 0.1


@pytest.mark.parametrize("with_prior", [False, True])
def test_targets_carry_no_gradient(draw, ids: Tensor, with_prior: bool):
    logits, target, rewards = draw(K, P, V), draw(K, P, V), draw(K)
    prior = draw(K, P, V) if with_prior else None
    tensors = [x.requires_grad_() for x in (logits, target, rewards, prior) if x is not None]
    soft_q_loss(logits, target, ids, rewards, prior).backward()
    assert logits.grad.abs().max() > 0.1
    assert all(x.grad is None for x in tensors[1:])


def test_a_gradient_step_lowers_the_loss_by_its_analytic_gradient(draw, ids: Tensor):
    """Against central differences of the loop."""
    logits, target, rewards = draw(K, P, V).requires_grad_(), draw(K, P, V), draw(K)
    soft_q_loss(logits, target, ids, rewards).backward()
    values, step = reference_values(target), 1e-5
    for k, t, v in ((0, 0, 0), (1, 2, 3), (3, 1, int(ids[3, 1]))):
        sides = []
        for sign in (1, -1):
            moved = logits.detach().clone()
            moved[k, t, v] += sign * step
            losses = reference_losses(reference_advantages(moved, ids), values, rewards.tolist())
            sides.append(sum(losses) / 2)
        slope = (sides[0] - sides[1]) / (2 * step)
        assert logits.grad[k, t, v].item() == pytest.approx(slope, rel=1e-6, abs=1e-8)


def test_leave_one_out_is_the_reward_above_the_others_mean(draw):
    rewards = draw(5)
    others = [torch.cat([rewards[:k], rewards[k + 1 :]]).mean() for k in range(5)]
    torch.testing.assert_close(leave_one_out(rewards), rewards - torch.stack(others))
    torch.testing.assert_close(leave_one_out(rewards[:2]), rewards[:2] - rewards[:2].flip(0))


def test_policy_gradient_is_reinforce(draw):
    """Its expectation over all prompts is the gradient of the expected reward."""
    ids, rewards = all_sequences(), draw(9)
    logits = draw(2, 3).requires_grad_()

    def log_probabilities() -> Tensor:
        return logits.log_softmax(-1)[torch.arange(2), ids]  # (9, 2)

    expected_reward = (log_probabilities().sum(1).exp() * rewards).sum()
    (analytic,) = torch.autograd.grad(expected_reward, logits)
    shares = log_probabilities().sum(1).exp().detach()
    for baseline in (0.0, 1.7):  # a baseline changes no expectation
        total = torch.zeros_like(logits)
        for k in range(9):
            loss = policy_gradient(rewards[k : k + 1] - baseline, log_probabilities()[k : k + 1])
            total += shares[k] * torch.autograd.grad(loss, logits)[0]
        torch.testing.assert_close(-total, analytic)
    assert analytic.abs().max() > 0.05


def test_policy_gradient_is_a_mean_and_its_rewards_are_constants(draw):
    advantages, log_p = draw(K).requires_grad_(), draw(K, P).requires_grad_()
    loss = policy_gradient(advantages, log_p)
    pairs = zip(advantages.tolist(), log_p.tolist(), strict=True)
    expected = -sum(a * sum(row) for a, row in pairs) / K
    assert loss.item() == pytest.approx(expected)
    loss.backward()
    assert advantages.grad is None
    torch.testing.assert_close(log_p.grad, (-advantages / K)[:, None].expand(K, P).detach())


def test_leave_one_out_gradient_is_unbiased(draw):
    """Two prompts a step, over all 81 pairs that a policy can write."""
    ids, rewards = all_sequences(), draw(9)
    logits = draw(2, 3).requires_grad_()
    log_p = logits.log_softmax(-1)[torch.arange(2), ids]
    shares = log_p.sum(1).exp()
    (analytic,) = torch.autograd.grad((shares * rewards).sum(), logits, retain_graph=True)
    loss = torch.zeros((), dtype=torch.float64)
    for i, j in itertools.product(range(9), repeat=2):
        above = leave_one_out(rewards[[i, j]])
        loss = loss + (shares[i] * shares[j]).detach() * policy_gradient(above, log_p[[i, j]])
    (got,) = torch.autograd.grad(-loss, logits)
    torch.testing.assert_close(got, analytic)


def test_entropy_is_in_nats_and_a_mean(draw):
    logits = draw(K, P, V)
    expected = [
        -sum(p * math.log(p) for p in row.softmax(-1).tolist()) for row in logits.view(-1, V)
    ]
    assert entropy(logits).item() == pytest.approx(sum(expected) / (K * P))
    assert entropy(torch.zeros(2, 5)).item() == pytest.approx(math.log(5))


def test_entropy_leaves_out_what_is_forbidden(draw):
    allowed = draw(K, P, V - 2).requires_grad_()
    logits = torch.cat([allowed, torch.full((K, P, 2), -torch.inf, dtype=torch.float64)], dim=-1)
    got = entropy(logits)
    torch.testing.assert_close(got, entropy(allowed))
    (grad,) = torch.autograd.grad(got, allowed)
    (expected,) = torch.autograd.grad(entropy(allowed), allowed)
    assert grad.isfinite().all()
    torch.testing.assert_close(grad, expected)


def test_losses_stay_finite_where_tokens_are_forbidden(draw):
    ids = torch.tensor([[0, 1], [2, 0]])
    logits = draw(2, 2, 4).index_fill(-1, torch.tensor([3]), -torch.inf).requires_grad_()
    target, prior = (draw(2, 2, 4).index_fill(-1, torch.tensor([3]), -torch.inf) for _ in range(2))
    for given in (None, prior):
        loss = soft_q_loss(logits, target, ids, draw(2), given)
        (grad,) = torch.autograd.grad(loss, logits)
        assert loss.isfinite()
        assert grad.isfinite().all()
        assert (grad[..., 3] == 0).all()
