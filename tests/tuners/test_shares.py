"""A step's gradient over processes is that of all their rows together."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from lightning_prompts.lm.batch import Batch
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.tuners.shares import share_of
from tests.tuners.test_tuners import build, make_batch


def batch_of(like: Batch, count: int, borrowed: bool = False) -> Batch:
    return {**like, "rows": torch.arange(count), "borrowed": borrowed}  # type: ignore[typeddict-item]


@pytest.mark.parametrize("sizes", [(2, 1), (5, 5), (1, 0), (3, 2, 2)])
def test_the_mean_over_processes_is_the_mean_over_rows(lm: FrozenLM, sizes: Sequence[int]):
    like = make_batch(build("soft", lm, "{prompt} {text} It was"))
    rows = torch.randn(sum(sizes), dtype=torch.float64)
    weight = torch.ones((), dtype=torch.float64, requires_grad=True)
    parts = [part if len(part) else rows[:1] for part in rows.split(list(sizes))]
    batches = [batch_of(like, max(n, 1), borrowed=n == 0) for n in sizes]

    # What each process would send, then what each gets back.
    sent: list[Tensor] = []

    def collect(values: Tensor) -> Tensor:
        sent.append(values)
        return values

    for part, batch in zip(parts, batches, strict=True):
        share_of((part * weight).mean(), batch, 7, len(sizes), collect)
    total = torch.stack(sent).sum(0)
    shares = [
        share_of((part * weight).mean(), batch, 7, len(sizes), lambda _: total)
        for part, batch in zip(parts, batches, strict=True)
    ]
    sum(share.loss for share in shares).div(len(sizes)).backward()
    torch.testing.assert_close(weight.grad, rows.mean(), rtol=0, atol=1e-15)
    for share in shares:
        torch.testing.assert_close(share.mean, rows.mean(), rtol=0, atol=1e-15)
        assert share.num_tokens == 7 * sum(n > 0 for n in sizes)


def test_one_process_exchanges_nothing(lm: FrozenLM):
    like = make_batch(build("soft", lm, "{prompt} {text} It was"))
    loss = torch.tensor(2.0, requires_grad=True)
    share = share_of(loss, batch_of(like, 3), 7, 1, lambda _: pytest.fail("an exchange"))
    assert share.loss is loss
    assert share.mean == 2
    assert not share.mean.requires_grad
    assert share.num_tokens == 7
