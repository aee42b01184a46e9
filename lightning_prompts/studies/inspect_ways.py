"""One prompt read in several ways: what each is worth, and the rows on which they disagree."""

from collections.abc import Mapping

import torch
from torch import Tensor

from lightning_prompts.metrics.panel.answered import AnsweredRows, recalibrated
from lightning_prompts.report.inspect import Row, Way

SHOWN_ROWS = 10
Scored = tuple[Tensor, Tensor]
"""Log-probabilities of rows [N, C], and of unlabelled ones [M, C]; NaN where one is not readable.

Ways that are the same tokens have the very same tensors."""


def ways(rows: AnsweredRows, scored: Mapping[str, Scored]) -> list[Way]:
    """What each way is worth.

    Args:
        rows: That are answered.
        scored: By the way's name, the one in use first.
    """
    first, *_ = scored.values()
    found: list[Way] = []
    for number, (name, (log_shares, unlabelled)) in enumerate(scored.items()):
        answered = answers(log_shares)
        raw, after = (
            float((given == rows.labels).double().mean())
            for given in (answered, answers(recalibrated(log_shares, unlabelled)))
        )
        counts = answered[answered >= 0].bincount(minlength=log_shares.shape[1])
        differs = int((answered != answers(first[0])).sum())
        same = any(each[0] is log_shares for each in list(scored.values())[:number])
        found.append(Way(name, raw, after, (counts / len(answered)).tolist(), differs, same))
    return found


def most_different(rows: AnsweredRows, scored: Mapping[str, Scored]) -> list[Row]:
    """Rows that are not answered alike in all ways, those with the largest difference first.

    Args:
        rows: That are answered.
        scored: By the way's name, the one in use first.
    """
    first, *others = (log_shares for log_shares, _ in scored.values())
    far = torch.stack([total_variation(first, other) for other in others]).amax(0)
    differ = torch.stack([answers(first) != answers(other) for other in others]).any(0)
    places = [i for i in far.argsort(descending=True, stable=True).tolist() if differ[i]]
    numbers = torch.cat([batch["rows"] for batch in rows.batches]).tolist()
    labels, true = rows.verbalizer.labels, rows.labels.tolist()

    def answer(shares: Tensor) -> tuple[str, float] | None:
        known = not shares.isnan().any()
        return (labels[int(shares.argmax())], float(shares.exp().max())) if known else None

    return [
        Row(
            number=numbers[i] + 1,
            text=rows.texts[i],
            label=labels[true[i]],
            answers={name: answer(log_shares[i]) for name, (log_shares, _) in scored.items()},
            difference=float(far[i]),
        )
        for i in places[:SHOWN_ROWS]
    ]


def answers(log_shares: Tensor) -> Tensor:
    """[N, C] to [N] classes; -1 for a row that was not readable."""
    return log_shares.argmax(-1).masked_fill(log_shares.isnan().any(-1), -1)


def total_variation(one: Tensor, other: Tensor) -> Tensor:
    """Half the sum of absolute differences of two distributions, 0 to 1.

    Args:
        one: [N, C] Log-probabilities.
        other: [N, C] Log-probabilities; with NaN among them the difference is 1.

    Returns:
        [N]
    """
    return ((one.exp() - other.exp()).abs().sum(-1) / 2).nan_to_num(1.0)
