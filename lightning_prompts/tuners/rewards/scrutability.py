"""The scrutability term of a reward, and how it is mixed with the task's (arXiv:2504.02144)."""

from typing import Literal

import torch
from torch import Tensor

from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.tuners.rewards.base import Scores, standardise

Mix = Literal["zscore", "raw"]


@torch.no_grad()
def log_perplexities(lm: FrozenLM, prompts: Tensor, rough: bool = False) -> Tensor:
    """[K, P] token ids to [K] nats per token under the task's language model.

    `rough` leaves autocast as it is, where one is on; logits are float32 all the same.
    """
    return lm.token_nll(prompts, autocast=rough).mean(1)


def mix_rewards(
    task: Scores, log_perplexity: Tensor, alpha: float, mix: Mix = "zscore", scale: float = 1.0
) -> Tensor:
    """R = (1 - alpha) * R_task + alpha * R_scrutability, R_scrutability = -log PPL.

    Args:
        task: Of K prompts.
        log_perplexity: [K] Nats per token.
        alpha: In [0, 1].
        mix: `zscore` standardises both terms over the step's prompts before mixing (ours); `raw`
            takes the rewards as measured.
        scale: With `raw`, a factor that brings -log PPL to the size of the task's reward.

    Returns:
        [K]
    """
    if mix == "raw":
        return (1 - alpha) * task.raw - alpha * scale * log_perplexity
    return (1 - alpha) * task.z + alpha * standardise(-log_perplexity)
