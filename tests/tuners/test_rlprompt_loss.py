"""RLPrompt's steps against their losses, written out on whole sequences."""

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.tuners import RLPrompt
from lightning_prompts.tuners.rewards.base import standardise
from lightning_prompts.tuners.rl.policy import Sampled

P, K = 3, 6
FIRST, LAST = "{prompt} {text} It was", "{text}{prompt}"


def reference_loss(
    rl, tuner: RLPrompt, mlp: nn.Module, target: nn.Module, prompts: Tensor
) -> Tensor:
    """The loss of one step, written out, with another copy of the networks."""
    lm = tuner.lm
    ids = torch.cat([torch.full((len(prompts), 1), lm.bos_id), prompts], dim=1)
    hidden = lm.model(ids, output_hidden_states=True).hidden_states[-1][:, :-1].detach()

    def q_values(network: nn.Module | None) -> Tensor:
        states = hidden if network is None else hidden + network(hidden)
        values = states @ lm.embedding_table.T
        values[..., lm.special_ids] = -torch.inf
        return values

    def log_p_of(values: Tensor) -> Tensor:
        return values.log_softmax(-1).gather(-1, prompts[..., None])[..., 0]

    values = q_values(mlp)
    log_p, prior = log_p_of(values), log_p_of(q_values(None)).detach()
    terms = (
        standardise(rl.reference_rewards(tuner, prompts)),
        -rl.reference_nats(lm, prompts).detach(),
    )
    reward = (1 - tuner.alpha) * terms[0] + tuner.alpha * standardise(terms[1])
    shaped, w = 5 * reward, 5 * tuner.kl_weight  # rewards of 0 to 1 become 0 to 5
    if tuner.loss == "soft_q":
        v = q_values(target).logsumexp(-1).detach()
        if w:
            log_p, v = log_p - prior, v - q_values(None).logsumexp(-1).detach()
            shaped = shaped / w
        loss = torch.zeros(())
        for k in range(len(prompts)):
            for t in range(P):
                following = shaped[k] if t == P - 1 else v[k, t + 1]
                loss = loss + (log_p[k, t] - following + v[k, t]) ** 2 / 2
                loss = loss + (log_p[k, t:].sum() - shaped[k] + v[k, t]) ** 2 / 2
        loss = loss / len(prompts)
    else:
        shaped = shaped - w * (log_p.detach() - prior).sum(1)
        if tuner.loss == "grpo":
            above = (shaped - shaped.mean()) / (shaped.std(correction=0) + 1e-4)
        else:
            above = shaped - (shaped.sum() - shaped) / (len(prompts) - 1)
        loss = -(above * log_p.sum(1)).mean()
    if tuner.entropy_weight:
        shares = values.softmax(-1)
        nats = -(shares * shares.clamp(min=1e-30).log()).sum(-1).mean()
        loss = loss - tuner.entropy_weight * nats
    return loss


def first_step(rl, tuner: RLPrompt, folder: Path) -> tuple[Tensor, dict[str, Tensor], Any]:
    """The prompts of one step, its gradients, and what was logged."""
    drawn: list[Sampled] = []
    sample, watch = tuner.policy.sample, rl.Watch()

    def keep(*args: Any) -> Sampled:
        drawn.append(sample(*args))
        return drawn[-1]

    tuner.policy.sample = keep
    rl.fit(tuner, folder, steps=1, callbacks=[watch])
    return drawn[0].token_ids, watch.gradients[0], watch


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(
    "loss",
    [
        {"loss": "soft_q"},
        {"loss": "soft_q", "kl_weight": 1.0},
        {"loss": "soft_q", "kl_weight": 0.5, "entropy_weight": 2.0},
        {"loss": "reinforce"},
        {"loss": "reinforce", "kl_weight": 0.3},
        {"loss": "grpo", "entropy_weight": 0.1},
        {"loss": "grpo", "kl_weight": 1.0},
    ],
    ids=str,
)
@pytest.mark.parametrize("text", [FIRST, LAST])
def test_a_step_s_gradient_is_that_of_the_written_out_loss(
    rl, lm: FrozenLM, tmp_path: Path, text: str, loss: dict[str, Any], alpha: float
):
    tuner = rl.build(lm, text, alpha=alpha, target_rate=0.5, **loss)
    rl.move(tuner.policy.mlp, 0)
    rl.move(tuner.policy.target, 1)
    mlp, target = copy.deepcopy(tuner.policy.mlp), copy.deepcopy(tuner.policy.target)
    with torch.no_grad():
        for own, other in zip(mlp.parameters(), target.parameters(), strict=True):
            other.copy_(0.5 * own + 0.5 * other)
    prompts, gradients, watch = first_step(rl, tuner, tmp_path)
    assert prompts.shape == (K, P)
    expected = reference_loss(rl, tuner, mlp, target, prompts)
    expected.backward()
    assert watch.train[0]["train/loss"] == pytest.approx(expected.item(), rel=1e-3, abs=1e-3)
    for name, parameter in mlp.named_parameters():
        size = parameter.grad.abs().max().item()
        assert size > 1e-4
        got = gradients[f"policy.mlp.{name}"]
        torch.testing.assert_close(got, parameter.grad, rtol=1e-3, atol=2e-3 * size)


@pytest.mark.parametrize("loss", ["soft_q", "reinforce", "grpo"])
@pytest.mark.parametrize("change", [{"alpha": 0.5}, {"alpha": 1.0}, {"kl_weight": 1.0}], ids=str)
def test_each_weight_changes_the_gradient(
    rl, lm: FrozenLM, tmp_path: Path, loss: str, change: dict[str, float]
):
    found = []
    for options in ({}, change):
        tuner = rl.build(lm, loss=loss, **options)
        rl.move(tuner.policy.mlp, 0)
        found.append(first_step(rl, tuner, tmp_path))
    assert torch.equal(found[0][0], found[1][0])
    plain, changed = (gradients["policy.mlp.2.weight"] for _, gradients, _ in found)
    assert (changed - plain).norm() > 0.1 * plain.norm()


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_mix_raw_takes_both_as_measured(rl, lm: FrozenLM, tmp_path: Path, scale: float):
    tuner = rl.build(lm, alpha=0.9, mix="raw", scrutability_scale=scale, loss="reinforce")
    prompts, _, watch = first_step(rl, tuner, tmp_path)
    nats = rl.reference_nats(lm, prompts).detach()
    shaped = 5 * (0.1 * rl.reference_rewards(tuner, prompts) - 0.9 * scale * nats)
    above = (shaped - shaped.mean()) * K / (K - 1)
    # The policy begins as the language model, which may not say its special tokens.
    ids = torch.cat([torch.full((K, 1), lm.bos_id), prompts], dim=1)
    log_p = lm.model(ids).logits[:, :-1].index_fill(-1, torch.tensor(lm.special_ids), -torch.inf)
    log_p = log_p.log_softmax(-1).gather(-1, prompts[..., None])[..., 0].sum(1)
    expected = -(above * log_p).mean().item()
    assert watch.train[0]["train/loss"] == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("loss", ["soft_q", "reinforce", "grpo"])
def test_equal_prompts_do_no_harm(rl, lm: FrozenLM, tmp_path: Path, loss: str):
    """With one token to choose from, all prompts of a step and their rewards are equal."""
    tuner, watch = rl.build(lm, loss=loss, policy={"top_k": 1}), rl.Watch()
    rl.fit(tuner, tmp_path, steps=4, callbacks=[watch])
    assert all(math.isfinite(v) for logged in watch.train for v in logged.values())
    assert all(p.isfinite().all() for p in tuner.policy.parameters())
    if loss != "soft_q":  # whose values are learned even so
        assert all(g.abs().max() < 1e-3 for grads in watch.gradients for g in grads.values())


@pytest.mark.parametrize(
    "loss",
    [{"loss": "soft_q", "kl_weight": 0.2}, {"loss": "reinforce"}, {"loss": "grpo"}],
    ids=str,
)
def test_rewards_rise(rl, lm: FrozenLM, tmp_path: Path, loss: dict[str, Any]):
    tuner, watch = rl.build(lm, prompts_per_step=16, **loss), rl.Watch()
    rl.fit(tuner, tmp_path, 60, 60, callbacks=[watch])
    rewards = [logged["train/reward"] for logged in watch.train]
    spread = torch.tensor(rewards[:10]).std().item()
    assert sum(rewards[-10:]) / 10 > sum(rewards[:10]) / 10 + spread


def test_alpha_makes_prompts_readable(rl, lm: FrozenLM, tmp_path: Path):
    found = []
    for alpha in (0.0, 1.0):
        tuner, watch = rl.build(lm, alpha=alpha, prompts_per_step=16, loss="reinforce"), rl.Watch()
        rl.fit(tuner, tmp_path, 60, 60, callbacks=[watch])
        found.append(watch.train[-1]["train/log_perplexity"])
    assert found[1] < found[0] - 0.3


def test_bfloat16_leaves_the_policy_in_float32(rl, lm: FrozenLM, tmp_path: Path):
    tuner, watch = rl.build(lm), rl.Watch()
    rl.fit(tuner, tmp_path, callbacks=[watch], precision="bf16-mixed")
    assert all(p.dtype == torch.float32 for p in tuner.policy.parameters())
    assert all(math.isfinite(v) for logged in watch.train for v in logged.values())
