"""The three differentials against float64 loops, over uneven batches and over two processes."""

import math
import os
import socket
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lightning_prompts.lm.nearest import Distance
from lightning_prompts.metrics.faithfulness import (
    OutputDifferential,
    PerformanceDifferential,
    distance_differential,
    output_differential,
)
from tests.patience import PATIENCE

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
UNEVEN = (5, 1, 3)


def brute_force_distance(left: list[float], right: list[float], metric: str) -> float:
    if metric == "euclidean":
        return math.sqrt(sum((a - b) ** 2 for a, b in zip(left, right, strict=True)))
    dot = sum(a * b for a, b in zip(left, right, strict=True))
    norms = [math.sqrt(sum(a * a for a in vector)) for vector in (left, right)]
    return 1 - dot / (norms[0] * norms[1])


def brute_force_loss(logits: list[float], label: int) -> float:
    return math.log(sum(math.exp(value) for value in logits)) - logits[label]


def brute_force_performance(soft: Tensor, hard: Tensor, labels: Tensor) -> list[float]:
    """Loss and accuracy of soft, of hard, and their differences, one example at a time."""
    sides = []
    for logits in (soft.double().tolist(), hard.double().tolist()):
        pairs = list(zip(logits, labels.tolist(), strict=True))
        loss = sum(brute_force_loss(row, label) for row, label in pairs) / len(pairs)
        right = sum(row.index(max(row)) == label for row, label in pairs) / len(pairs)
        sides.append((loss, right))
    (loss, right), (hard_loss, hard_right) = sides
    return [loss, right, hard_loss, hard_right, abs(loss - hard_loss), abs(right - hard_right)]


def draws(*shape: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_distance_differential_is_the_mean_of_each_minimum(
    metric: Distance, dtype: torch.dtype
) -> None:
    table, prompt = draws(13, 6, seed=0, dtype=dtype), draws(4, 6, seed=1, dtype=dtype)
    table[::2] *= 5  # else both distances would choose the same tokens
    minima = [
        min(brute_force_distance(p, row, metric) for row in table.double().tolist())
        for p in prompt.double().tolist()
    ]
    got = distance_differential(prompt, table, metric)
    assert got.item() == pytest.approx(sum(minima) / len(minima), rel=1e-5)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_token_rows_have_no_distance(metric: Distance) -> None:
    table = draws(50, 16, seed=2)
    assert distance_differential(table[[3, 3, 49]], table, metric).item() == 0.0
    assert distance_differential(table[:0], table, metric).item() == 0.0


@pytest.mark.parametrize("dtype", DTYPES)
def test_output_differential_is_a_loop(dtype: torch.dtype) -> None:
    soft, hard = draws(3, 7, seed=3, dtype=dtype), draws(3, 7, seed=4, dtype=dtype)
    expected = [
        sum((a - b) ** 2 for a, b in zip(x, y, strict=True)) / 7
        for x, y in zip(soft.double().tolist(), hard.double().tolist(), strict=True)
    ]
    assert output_differential(soft, hard).tolist() == pytest.approx(expected, rel=1e-5)
    assert output_differential(soft, soft).tolist() == [0.0, 0.0, 0.0]


def test_output_differential_does_not_overflow_in_float16() -> None:
    soft = torch.full((1, 4), 60_000.0, dtype=torch.float16)
    got = output_differential(soft, -soft)
    assert got.item() == pytest.approx((2 * soft[0, 0].item()) ** 2)
    assert (soft - -soft).square().mean().isinf()


def test_output_differential_names_both_shapes() -> None:
    with pytest.raises(ValueError, match=r"\(2, 5\).*\(2, 4\)"):
        output_differential(torch.zeros(2, 5), torch.zeros(2, 4))


def uneven_batches() -> list[tuple[Tensor, Tensor, Tensor]]:
    """Soft logits, hard logits and labels of 9 examples in batches of 5, 1 and 3."""
    soft, hard = draws(9, 3, seed=8) * 3, draws(9, 3, seed=9)
    labels = torch.randint(3, (9,), generator=torch.manual_seed(10))
    return list(zip(soft.split(UNEVEN), hard.split(UNEVEN), labels.split(UNEVEN), strict=True))


def test_shells_weigh_examples_not_batches() -> None:
    output, performance = OutputDifferential(), PerformanceDifferential()
    for soft, hard, labels in uneven_batches():
        output.update(soft, hard)
        performance.update(soft, hard, labels)
    soft, hard, labels = (torch.cat(parts) for parts in zip(*uneven_batches(), strict=True))
    expected = brute_force_performance(soft, hard, labels)
    assert [value.item() for value in performance.compute()] == pytest.approx(expected, rel=1e-5)
    squares = (soft.double() - hard.double()).square()
    assert output.compute().item() == pytest.approx(squares.mean().item(), rel=1e-5)


def test_differences_of_batches_may_cancel() -> None:
    """|mean of all| differs from the mean of |batch means| where batches differ in sign."""
    better, worse = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 2.0]])
    metric, label = PerformanceDifferential(), torch.tensor([0])
    metric.update(better, worse, label)
    metric.update(worse, better, label)
    assert metric.compute().loss_differential.item() == 0.0
    assert metric.compute().accuracy_differential.item() == 0.0


def values_of_rank(rank: int, world: int) -> list[float]:
    """Every shell's value; this rank sees every `world`-th batch only."""
    output, performance = OutputDifferential(), PerformanceDifferential()
    for soft, hard, labels in uneven_batches()[rank::world]:
        output.update(soft, hard)
        performance.update(soft, hard, labels)
    return [
        output.compute().item(),
        *(value.item() for value in performance.compute()),
    ]


def run_rank(rank: int, port: int, folder: str) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    torch.save(values_of_rank(rank, 2), Path(folder) / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_with_uneven_batches_agree_with_one(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # Forked, because a spawned process would spend seconds on imports.
    ranks = torch.multiprocessing.start_processes(
        run_rank, args=(port, str(tmp_path)), nprocs=2, join=False, start_method="fork"
    )
    for process in ranks.processes:
        process.join(timeout=PATIENCE)
        assert process.exitcode == 0
    expected = values_of_rank(0, 1)
    for rank in (0, 1):
        assert torch.load(tmp_path / f"{rank}.pt") == pytest.approx(expected, rel=1e-6)
