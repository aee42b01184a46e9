"""FluentPrompt's noise on PEZ's projected steps."""

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Callback

from lightning_prompts.files.errors import PromptError
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.tuners import PEZ
from lightning_prompts.tuners.pez import LANGEVIN_STEPS, langevin_beta
from tests.tuners.test_tuners import build, fit, make_batch

STEPS, RATE, BETA = 6, 0.5, (1.0, 0.05)


class Iterates(Callback):
    """The iterate after each step."""

    def __init__(self) -> None:
        self.seen: list[torch.Tensor] = []

    def on_train_batch_end(self, trainer, pl_module, *args):
        self.seen.append(pl_module.prompt.detach().clone())


def make(lm: FrozenLM, **kwargs) -> PEZ:
    def sgd(parameters):
        return torch.optim.SGD(parameters, lr=RATE)

    options = {"keep_continuous": False, "langevin_beta": BETA, "projection": "euclidean"}
    tuner = build("pez", lm, **options | {"optimizer": sgd} | kwargs)
    assert isinstance(tuner, PEZ)
    return tuner


def project(prompt: torch.Tensor, lm: FrozenLM) -> torch.Tensor:
    far = torch.cdist(prompt, lm.embedding_table)
    far[:, lm.special_ids] = torch.inf
    return lm.embedding_table[far.argmin(1)]


def test_steps_are_the_definition(lm: FrozenLM, tmp_path: Path):
    """p <- Proj(p); p <- p - lr g + sqrt(2 lr beta) z, one line at a time."""
    tuner, watch = make(lm, seed=7), Iterates()
    iterate, batch = tuner.prompt.detach().clone(), make_batch(tuner)
    fit(tuner, tmp_path, STEPS, callbacks=[watch])
    visited = set()
    for step in range(STEPS):
        point = project(iterate, lm).requires_grad_()
        logits = tuner.class_logits(lm.answer_hidden(point, batch))
        F.cross_entropy(logits, batch["labels"]).backward()
        beta = BETA[0] * (BETA[1] / BETA[0]) ** (step / (STEPS - 1))
        generator = torch.Generator().manual_seed(7 * 1_000_003 + step)
        noise = torch.randn(point.shape, generator=generator)
        iterate = point.detach() - RATE * point.grad + math.sqrt(2 * RATE * beta) * noise
        torch.testing.assert_close(watch.seen[step], iterate, rtol=1e-4, atol=1e-5)
        visited.add(tuple(project(iterate, lm).flatten().tolist()))
    assert len(visited) > 2


def test_the_noise_is_that_of_the_rate_at_its_step(lm: FrozenLM, tmp_path: Path):
    """A schedule changes the rate only after the step."""

    def halving(optimizer):
        return torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)

    seen = []
    for beta in ((1.0, 1.0), None):
        # From one token's row to the next nothing remains but the last step.
        watch = Iterates()
        tuner = make(lm, langevin_beta=beta, lr_scheduler=halving, perplexity_weight=0.0)
        tuner.class_logits = lambda hidden, *_: hidden[:, :2] * 0 + torch.zeros(2)
        fit(tuner, tmp_path, 3, callbacks=[watch], limit_val_batches=0)
        seen.append(watch.seen)
    first = make(lm).prompt.detach()
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(first.shape, generator=generator)
    torch.testing.assert_close(seen[0][0] - project(first, lm), math.sqrt(2 * RATE) * noise)
    second = seen[0][1] - project(seen[0][0], lm)
    noise = torch.randn(first.shape, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(second, math.sqrt(2 * RATE / 2) * noise)
    assert all(torch.equal(iterate, project(first, lm)) for iterate in seen[1])


def test_a_resumed_run_goes_on_with_its_noise(lm: FrozenLM, tmp_path: Path):
    whole, watch = make(lm), Iterates()
    fit(whole, tmp_path, STEPS, callbacks=[watch])
    tuner = make(lm)
    trainer = fit(tuner, tmp_path, STEPS, callbacks=[stop := StopAt(3)])
    assert trainer.global_step == 3 == stop.step
    trainer.save_checkpoint(path := tmp_path / "a.ckpt")
    assert torch.load(path, weights_only=True)[LANGEVIN_STEPS] == STEPS
    again, rest = make(lm), Iterates()
    # A longer run keeps the schedule that it began with.
    resume(again, tmp_path, path, [rest])
    for own, expected in zip(rest.seen, watch.seen[3:], strict=False):
        assert torch.equal(own, expected)
    assert len(rest.seen) == 5


class StopAt(Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer, *args):
        trainer.should_stop = trainer.global_step >= self.step


def resume(tuner: PEZ, folder: Path, path: Path, callbacks: list[Callback]) -> None:
    from lightning.pytorch import Trainer
    from torch.utils.data import DataLoader

    loader = DataLoader([make_batch(tuner)] * 6, batch_size=None)
    options = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False}
    options |= {"enable_model_summary": False, "limit_val_batches": 0, "max_steps": 8}
    Trainer(default_root_dir=folder, callbacks=callbacks, **options).fit(
        tuner, loader, ckpt_path=path
    )


def test_the_schedule():
    assert [langevin_beta(step, 3, 4.0, 1.0) for step in range(5)] == [4.0, 2.0, 1.0, 1.0, 1.0]
    assert langevin_beta(0, 1, 4.0, 1.0) == 4.0


def test_it_needs_projected_steps(lm: FrozenLM):
    with pytest.raises(PromptError, match=r"keep_continuous=True.* set it to false"):
        make(lm, keep_continuous=True)


@pytest.mark.parametrize("beta", [(0.0, 0.0), (1e-4, 1.0), (math.inf, 1.0), (1.0, -1.0)])
def test_numbers_out_of_range_are_refused(lm: FrozenLM, beta: tuple[float, float]):
    with pytest.raises(PromptError, match=r"langevin_beta is \["):
        make(lm, langevin_beta=beta)


def test_a_run_without_a_length_is_refused(lm: FrozenLM, tmp_path: Path):
    with pytest.raises(PromptError, match=r"no length; set Trainer\(max_steps=...\)"):
        fit(make(lm), tmp_path, max_steps=-1, max_epochs=-1)
