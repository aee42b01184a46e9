"""Scrutability: can a person read the prompt? Perplexity and round trip of its tokens.

After "Towards Interpretable Soft Prompts" (Patel et al. 2025, https://arxiv.org/abs/2504.02144).
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from lightning_prompts.files.numbers import wide
from lightning_prompts.metrics.mean import MeanOfAll


def token_nll(logits: Tensor, token_ids: Tensor) -> Tensor:
    """Mean negative log-likelihood of K hard prompts, in nats per token.

    -1/P sum_i log p(z_i | bos, z_<i)   (the paper's scrutability proxy)

    Args:
        logits: [K, P, V] Next-token logits; position i predicts token i (already shifted). Upcast
            to float32: softmax-then-log gives inf on the gibberish that lives here.
        token_ids: [K, P] The hard prompts.

    Returns:
        [K] Nats per token, >= 0. `exp` of it is the perplexity (unitless).

    Raises:
        ValueError: If the leading two dimensions of `logits` and `token_ids` differ.

    >>> import torch
    >>> token_nll(torch.zeros(1, 3, 8), torch.tensor([[0, 5, 2]])).exp()
    tensor([8.])
    """
    if logits.shape[:2] != token_ids.shape:
        raise ValueError(
            f"logits lead with {tuple(logits.shape[:2])} but token_ids have "
            f"{tuple(token_ids.shape)}; pass one row of logits a token."
        )
    nats = F.cross_entropy(wide(logits).transpose(1, 2), token_ids, reduction="none")
    return nats.mean(dim=1)


def log_perplexity(nats: Tensor) -> Tensor:
    """Mean over all tokens of their negative log-likelihood, in nats per token.

    Args:
        nats: [...] Negative log-likelihood of each token, in nats.

    Returns:
        Scalar, nats per token.
    """
    return wide(nats).mean()


def perplexity(nats: Tensor) -> Tensor:
    """Perplexity (unitless, >= 1): exp of the mean nats over all tokens.

    The mean comes first; a mean of perplexities would be ruled by the single worst prompt.

    Args:
        nats: [...] Negative log-likelihood of each token, in nats.

    Returns:
        Scalar.
    """
    return log_perplexity(nats).exp()


def round_trip(token_ids: Sequence[int], re_encoded: Sequence[int]) -> float:
    """How much of a prompt survives its text: 1 - Levenshtein / longer length, a share.

    Below 1, whoever copies the text gets other tokens than those that were learned.

    Args:
        token_ids: The hard prompt.
        re_encoded: The ids of its decoded text.

    Returns:
        Share in [0, 1]; 1 for two empty prompts.

    >>> round_trip([1, 2, 3, 4], [1, 3, 4])
    0.75
    """
    longer = max(len(token_ids), len(re_encoded))
    return 1.0 - levenshtein(token_ids, re_encoded) / longer if longer else 1.0


def levenshtein(source: Sequence[int], target: Sequence[int]) -> int:
    """Fewest insertions, deletions and substitutions that turn one sequence into the other."""
    costs = list(range(len(target) + 1))
    for i, left in enumerate(source, start=1):
        diagonal, costs[0] = costs[0], i
        for j, right in enumerate(target, start=1):
            substitute = diagonal + (left != right)
            diagonal = costs[j]
            costs[j] = min(substitute, costs[j] + 1, costs[j - 1] + 1)
    return costs[-1]


class LogPerplexity(MeanOfAll):
    """Nats per token over all batches and ranks: sums nats and tokens, then divides."""

    higher_is_better = False

    def update(self, nats: Tensor) -> None:
        """Add tokens.

        Args:
            nats: [...] Negative log-likelihood of each token, in nats.
        """
        self.add(nats)
