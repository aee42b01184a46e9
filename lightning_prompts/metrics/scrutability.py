"""Scrutability: can a person read the prompt? Perplexity and round trip of its tokens.

What the text says and does is measured in `panel/`.

After "Towards Interpretable Soft Prompts" (Patel et al. 2025, https://arxiv.org/abs/2504.02144).
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from lightning_prompts.files.numbers import wide
from lightning_prompts.lm.answers import LOGITS_AT_ONCE
from lightning_prompts.lm.backbone import Backbone

# Tokens of one pass over many short texts, padding included.
TOKENS_AT_ONCE = 1024


def log_perplexity(nats: Tensor) -> Tensor:
    """Mean over all tokens of their negative log-likelihood, in nats per token.

    Args:
        nats: [...] Negative log-likelihood of each token, in nats.

    Returns:
        Scalar, nats per token.
    """
    return wide(nats).mean()


def row_nats(lm: Backbone, rows: Sequence[Sequence[int]]) -> Tensor:
    """Negative log-likelihood of many short texts after BOS, each summed over its tokens, in nats.

    Args:
        lm: The frozen language model that reads them.
        rows: Token ids of N texts, none longer than the model's positions.

    Returns:
        [N] float64, on the CPU; 0 for an empty text, and the same for equal texts.
    """
    found = [nats.sum() for nats in token_nats(lm, rows)]
    return torch.stack(found) if found else torch.zeros(0).double()


@torch.no_grad()
def token_nats(lm: Backbone, rows: Sequence[Sequence[int]]) -> list[Tensor]:
    """Negative log-likelihood of each token of many short texts after BOS, in nats.

    Args:
        lm: The frozen language model that reads them.
        rows: Token ids of N texts, none longer than the model's positions.

    Returns:
        N times [T] float64, on the CPU; the same for equal texts.
    """
    found: dict[tuple[int, ...], Tensor] = {(): torch.zeros(0).double()}
    wanted = sorted({tuple(row) for row in rows} - {()}, key=lambda row: (len(row), row))
    device = lm.embedding_table.device
    most = max(1, min(TOKENS_AT_ONCE, LOGITS_AT_ONCE // lm.vocab_size))
    while wanted:
        count = max(1, most // len(wanted[-1]))
        part, wanted = wanted[-count:], wanted[:-count]
        # Padded on the right, where a causal model does not look.
        padded = pad_sequence([torch.tensor(row) for row in part], batch_first=True).to(device)
        nats = lm.token_nll(padded).cpu().double()
        found |= {row: own[: len(row)] for row, own in zip(part, nats, strict=True)}
    return [found[tuple(row)] for row in rows]


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
