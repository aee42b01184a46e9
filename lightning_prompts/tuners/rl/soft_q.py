"""Losses that teach a policy which prompts are good: soft Q-learning and policy gradients.

Soft Q-learning as in RLPrompt (Deng et al. 2022, arXiv:2205.12548; Guo et al. 2021,
arXiv:2106.07704). Pure functions. Dimensions: K prompts, P tokens, V vocabulary.
"""

import torch
from torch import Tensor


def action_values(logits: Tensor, token_ids: Tensor) -> tuple[Tensor, Tensor]:
    """Advantage and value of each token: A_t = Q_t(z_t) - V_t, V_t = logsumexp Q_t.

    Args:
        logits: [K, P, V] Q-values.
        token_ids: [K, P] The tokens that were written.

    Returns:
        [K, P] advantages, which are log-probabilities in nats, and [K, P] values.
    """
    values = logits.logsumexp(-1)
    return logits.gather(-1, token_ids[..., None])[..., 0] - values, values


def soft_q_v2(advantages: Tensor, target_values: Tensor, rewards: Tensor) -> Tensor:
    """Path consistency, step by step: A_t -> V'_{t+1} - V'_t, at the last step r - V'_P.

    Args:
        advantages: [K, P] A_t.
        target_values: [K, P] V'_t of the target network; constants.
        rewards: [K] r; constants.

    Returns:
        Scalar: squared errors summed over time, mean over the prompts.
    """
    after = torch.cat([target_values[:, 1:], rewards[:, None]], dim=1).detach()
    return (advantages - (after - target_values.detach())).square().sum(1).mean()


def soft_q_v3(advantages: Tensor, target_values: Tensor, rewards: Tensor) -> Tensor:
    """Path consistency over the rest of the prompt: sum_{s>=t} A_s -> r - V'_t.

    Args:
        advantages: [K, P] A_t.
        target_values: [K, P] V'_t of the target network; constants.
        rewards: [K] r; constants.

    Returns:
        Scalar: squared errors summed over time, mean over the prompts.
    """
    rest = advantages.flip(1).cumsum(1).flip(1)
    return (rest - (rewards[:, None] - target_values).detach()).square().sum(1).mean()


def soft_q_loss(
    logits: Tensor,
    target_logits: Tensor,
    token_ids: Tensor,
    rewards: Tensor,
    prior_logits: Tensor | None = None,
    prior_weight: float = 1.0,
) -> Tensor:
    """The mean of the v2 and v3 losses.

    Without a prior the soft-optimal policy is exp(r(z)), up to normalisation, over all V^P prompts:
    with rewards of some units it is nearly uniform. With a prior p (ours) it is
    p(z) exp(r(z) / w): advantages and values, in units of w, are taken relative to p.

    Args:
        logits: [K, P, V] Q-values of the policy.
        target_logits: [K, P, V] Q-values of the target network; constants.
        token_ids: [K, P] The tokens that were written.
        rewards: [K] r; constants.
        prior_logits: [K, P, V] Logits of the prior policy; constants.
        prior_weight: w > 0.

    Returns:
        Scalar.
    """
    advantages, _ = action_values(logits, token_ids)
    target_values = target_logits.detach().logsumexp(-1)
    if prior_logits is not None:
        prior_advantages, prior_values = action_values(prior_logits.detach(), token_ids)
        advantages, target_values = advantages - prior_advantages, target_values - prior_values
        rewards = rewards / prior_weight
    v2 = soft_q_v2(advantages, target_values, rewards)
    return (v2 + soft_q_v3(advantages, target_values, rewards)) / 2


def policy_gradient(advantages: Tensor, log_probabilities: Tensor) -> Tensor:
    """REINFORCE (Williams 1992): -mean_k a_k sum_t log pi(z_t).

    Args:
        advantages: [K] Reward of each prompt above its baseline; constants.
        log_probabilities: [K, P] In nats.

    Returns:
        Scalar whose gradient is the policy gradient's, with the sign of a loss.
    """
    return -(advantages.detach() * log_probabilities.sum(1)).mean()


def leave_one_out(rewards: Tensor) -> Tensor:
    """Each reward above the mean of the others: the baseline of one prompt sees not the prompt.

    Args:
        rewards: [K], K >= 2.

    Returns:
        [K]
    """
    count = len(rewards)
    return (rewards - rewards.mean()) * count / (count - 1)


def entropy(logits: Tensor) -> Tensor:
    """Mean entropy of the policy's next token, in nats.

    Args:
        logits: [..., V] Q-values; -inf for what is forbidden.

    Returns:
        Scalar in [0, log V].
    """
    log_p = logits.log_softmax(-1)
    return -(log_p.exp() * log_p.masked_fill(log_p == -torch.inf, 0.0)).sum(-1).mean()
