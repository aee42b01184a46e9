"""What each token of a prompt does to the answers, and what their order does.

Tokens of machine-made prompts are left out and put in other orders in Rakotonirina et al. 2024
("Evil twins are not that evil", https://arxiv.org/abs/2412.08127), some of which are fillers that
hardly matter, and in Rakotonirina et al. 2023 (https://arxiv.org/abs/2302.09865).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

import torch
from torch import Tensor

from lightning_prompts.files.drawing import percentile_interval
from lightning_prompts.metrics.agreement import row_kl
from lightning_prompts.metrics.panel.answered import AnsweredRows, recalibrated
from lightning_prompts.metrics.panel.likelihood import shuffles

ORDER_SHUFFLES = 4
FILLER_NATS = 0.01


@dataclass(frozen=True)
class Change:
    """What a changed prompt does otherwise than the whole one.

    Attributes:
        token: The token that was left out, as text; None for a shuffle.
        ids: The changed prompt.
        kl: KL from the whole prompt's distribution over the answers to the changed one's, mean over
            rows, in nats, 0 or more.
        accuracy: The changed prompt's accuracy less the whole one's, -1 to 1.
        recalibrated: The same where both are recalibrated on unlabelled texts.
    """

    token: str | None
    ids: tuple[int, ...]
    kl: float
    accuracy: float
    recalibrated: float


@dataclass(frozen=True)
class TokenEffects:
    """The table of a prompt's tokens.

    Attributes:
        deletions: One a token, in their order.
        shuffles: Four.
        accuracy: Of the whole prompt's tokens, 0 to 1.
        recalibrated: The same, recalibrated.
        rows: How many rows all is measured on.
        intervals: Of `effect_of_tokens`, `effect_of_order` and `filler`, by name; see `intervals`.
    """

    deletions: tuple[Change, ...]
    shuffles: tuple[Change, ...]
    accuracy: float
    recalibrated: float
    rows: int
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def effect_of_tokens(self) -> float:
        """Largest KL of a deletion, in nats."""
        return max(change.kl for change in self.deletions)

    @property
    def effect_of_order(self) -> float:
        """Mean KL of the shuffles, in nats."""
        return fmean(change.kl for change in self.shuffles)

    @property
    def filler(self) -> float:
        """Share of tokens whose deletion changes less than 0.01 nats, 0 to 1."""
        return fmean(float(change.kl < FILLER_NATS) for change in self.deletions)


def token_effects(rows: AnsweredRows) -> TokenEffects:
    """What leaving out each token, and four fixed shuffles, change about the answers.

    KL(p || q) = sum_c p_c log(p_c / q_c) of a row, p the whole prompt's shares of the answers and q
    the changed one's (ours; the papers look at what the model writes). Where the model reads
    vectors, the whole prompt is their nearest tokens all the same.

    Cost: P + 5 passes over the rows, and as many over the unlabelled ones. Gamed by: a prompt that
    does nothing as a whole has no effects either; read them beside its accuracy. Two tokens of one
    meaning both pass for fillers.

    Args:
        rows: With a prompt of one token at least.

    Raises:
        ValueError: If the prompt has no token.
    """
    ids = list(rows.prompt)
    if not ids:
        raise ValueError("The prompt is empty; token_effects needs a token to leave out.")
    labels, whole = rows.labels, rows.log_shares(ids)
    before = accuracies(*whole, labels)
    of_rows: list[Tensor] = []

    def change(token: str | None, changed: Sequence[int]) -> Change:
        found = rows.log_shares(changed)
        after = accuracies(*found, labels)
        of_rows.append(row_kl(whole[0], found[0]))
        return Change(
            token,
            tuple(changed),
            kl=kl(whole[0], found[0]),
            accuracy=after[0] - before[0],
            recalibrated=after[1] - before[1],
        )

    tokens = rows.lm.token_strings(ids)
    deletions = [change(token, ids[:i] + ids[i + 1 :]) for i, token in enumerate(tokens)]
    orders = [change(None, order) for order in shuffles(ids, ORDER_SHUFFLES)]
    without, shuffled = torch.stack(of_rows).split([len(deletions), len(orders)])
    return TokenEffects(
        *(tuple(deletions), tuple(orders), *before),
        rows=len(labels),
        intervals=intervals(without, shuffled, rows.draws()),
    )


def intervals(deletions: Tensor, orders: Tensor, counts: Tensor) -> dict[str, tuple[float, float]]:
    """95 % intervals over rows: 2,000 bootstrap draws of rows, the same at each call.

    In each draw the largest effect is looked for anew, so that of tokens with like effects the
    interval lies a little above the value.

    Args:
        deletions: [P, N] KL of each row without each token, in nats.
        orders: [S, N] The same of the shuffles.
        counts: [D, N] How often each row is in each draw.

    Returns:
        By the names of the values; in the direction of rows alone: another shuffle, and other
        unlabelled texts, are not drawn.
    """
    rows = deletions.shape[1]
    tokens, order = ((counts @ kls.T / rows).clamp(min=0) for kls in (deletions, orders))
    return {
        "effect_of_tokens": percentile_interval(tokens.amax(1)),
        "effect_of_order": percentile_interval(order.mean(1)),
        "filler": percentile_interval((tokens < FILLER_NATS).double().mean(1)),
    }


def kl(whole: Tensor, changed: Tensor) -> float:
    """KL from one distribution to another, mean over rows, in nats, 0 or more.

    Args:
        whole: [N, C] Log-probabilities.
        changed: [N, C] Log-probabilities.
    """
    # Rounding can take a sum of nothing below it.
    return float(row_kl(whole, changed).mean().clamp(min=0))


def accuracies(log_shares: Tensor, unlabelled: Tensor, labels: Tensor) -> tuple[float, float]:
    """Accuracy of [N, C] log-probabilities, raw and recalibrated on [M, C] unlabelled ones."""
    raw, threshold = (
        float((scores.argmax(-1) == labels).double().mean())
        for scores in (log_shares, recalibrated(log_shares, unlabelled))
    )
    return raw, threshold
