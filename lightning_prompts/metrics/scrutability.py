"""Scrutability: can a person read the prompt? Perplexity and round trip of its tokens.

After "Towards Interpretable Soft Prompts" (Patel et al. 2025, https://arxiv.org/abs/2504.02144).
"""

from collections.abc import Sequence

from torch import Tensor

from lightning_prompts.files.numbers import wide


def log_perplexity(nats: Tensor) -> Tensor:
    """Mean over all tokens of their negative log-likelihood, in nats per token.

    Args:
        nats: [...] Negative log-likelihood of each token, in nats.

    Returns:
        Scalar, nats per token.
    """
    return wide(nats).mean()


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
