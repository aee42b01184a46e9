"""How nearly two prompts, or two readers, answer alike: KL, and Cohen's kappa.

Dimensions: B rows of a batch, N rows, C classes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from lightning_prompts.files.numbers import in_double
from lightning_prompts.metrics.panel.answered import recalibrated

MATCH_KL = "match_kl"


def row_kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL from one distribution to another, of each row, in nats.

    KL(p || q) = sum_c p_c log(p_c / q_c)

    Args:
        log_p: [..., C] Log-probabilities.
        log_q: [..., C] The same of the other.

    Returns:
        [...] 0 or more, but for rounding.

    >>> half, most = torch.tensor([0.5, 0.5]), torch.tensor([0.75, 0.25])
    >>> row_kl(half.log(), most.log())
    tensor(0.1438)
    """
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def kappa(one: Tensor, other: Tensor) -> float:
    """Cohen's kappa of two readers' classes [N]: agreement beyond chance, -1 to 1.

    (p_o - p_e) / (1 - p_e), p_o the share of rows on which they agree and p_e what their shares of
    the classes give by chance; 0 where both always give one and the same class.

    >>> kappa(torch.tensor([0, 1, 0, 1]), torch.tensor([0, 1, 1, 1]))
    0.5
    """
    return float(kappas(one, other, torch.ones(1, len(one), dtype=torch.float64))[0])


def kappas(one: Tensor, other: Tensor, counts: Tensor) -> Tensor:
    """[D] Cohen's kappa, as in `kappa`, of D draws from N rows.

    Args:
        one: [N] Classes by one reader.
        other: [N] By the other.
        counts: [D, N] How often each row is in a draw, float64.
    """
    classes = int(torch.cat([one, other]).max()) + 1
    sizes = counts.sum(1)
    shares = [counts @ F.one_hot(each, classes).double() / sizes[:, None] for each in (one, other)]
    return _beyond_chance(counts @ (one == other).double() / sizes, (shares[0] * shares[1]).sum(1))


def kappa_of(shares: Tensor) -> Tensor:
    """`kappa` of [..., C, C] shares of the rows, by the one reader's class and the other's."""
    ones, others = shares.sum(-1), shares.sum(-2)
    return _beyond_chance(shares.diagonal(dim1=-2, dim2=-1).sum(-1), (ones * others).sum(-1))


def _beyond_chance(agreed: Tensor, expected: Tensor) -> Tensor:
    # Of one and the same class it is 1 but for rounding, and the nearest below 1 is far.
    certain = 1 - expected < 1e-12
    beyond = (agreed - expected) / (1 - expected).masked_fill(certain, 1.0)
    return beyond.masked_fill(certain, 0.0)


class AnswerAgreement(Metric):
    """KL and kappa of a prompt's answers with those of another one, over all batches and ranks.

    `match_kl` is the mean of `row_kl` in nats, `match_kappa` is of the likeliest answers, and
    `match_kappa_recalibrated` of those after each side was recalibrated by itself, on these same
    rows (see `recalibrated`): of two classes its threshold is the median of its own logit
    differences. So it is high where two prompts rank rows alike, whatever class each leans to.
    """

    full_state_update = False
    wanted: list[Tensor]
    found: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("wanted", [], dist_reduce_fx="cat")
        self.add_state("found", [], dist_reduce_fx="cat")

    def update(self, wanted: Tensor, found: Tensor) -> None:
        """Add a batch: log-probabilities [B, C] of the other prompt, and of the one measured."""
        self.wanted.append(in_double(wanted))
        self.found.append(in_double(found))

    def compute(self) -> dict[str, Tensor]:
        """Scalars by the names that they are logged by."""
        sides = [dim_zero_cat(side) for side in (self.wanted, self.found)]
        divergence = row_kl(*sides).mean()
        on_host = [side.cpu() for side in sides]
        kappas = {
            "match_kappa": kappa(*(side.argmax(-1) for side in on_host)),
            "match_kappa_recalibrated": kappa(
                *(recalibrated(side, side).argmax(-1) for side in on_host)
            ),
        }
        return {MATCH_KL: divergence} | {k: divergence.new_tensor(v) for k, v in kappas.items()}
