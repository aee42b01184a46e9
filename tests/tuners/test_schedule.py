"""The learning-rate schedule: its shape, and its length as part of its state."""

import pytest
import torch

from lightning_prompts.tuners.schedule import WarmupLinear


def rates(scheduler: WarmupLinear, steps: int) -> list[float]:
    out = []
    for _ in range(steps):
        out.append(scheduler.optimizer.param_groups[0]["lr"])
        scheduler.optimizer.step()
        scheduler.step()
    return out


def optimizer() -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)


def test_it_rises_then_falls_then_stays():
    got = rates(WarmupLinear(optimizer(), warmup_steps=4, total_steps=14, final_fraction=0.1), 17)
    assert got[:5] == pytest.approx([0.5, 1.0, 1.5, 2.0, 2.0])
    assert got[9] == pytest.approx(2.0 * (1 - 0.9 * 0.5))  # half of the fall
    assert got[14:] == pytest.approx([0.2] * 3)


def test_a_resumed_schedule_keeps_its_length():
    first = WarmupLinear(optimizer(), warmup_steps=2, total_steps=10)
    rates(first, 5)
    resumed = WarmupLinear(optimizer(), warmup_steps=2, total_steps=6)
    resumed.load_state_dict(first.state_dict())
    resumed.optimizer.load_state_dict(first.optimizer.state_dict())
    assert rates(resumed, 5) == rates(first, 5)
