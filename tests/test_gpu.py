"""On a GPU: training steps never wait for it, and compiled passes are the eager ones.

Everything here is skipped without CUDA; `tests/tuners/test_no_waiting.py` looks for waits there.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lightning_prompts.lm.batch import Batch
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.lm.passes.compiled import CompiledPasses
from lightning_prompts.lm.passes.reuse import concatenated, prompts_first
from lightning_prompts.tuners import PromptTuner
from tests.tuners.test_tuners import build, make_batch

pytestmark = pytest.mark.gpu

FIRST, LAST = "{prompt} {text} It was", "{text}{prompt}"


@pytest.fixture
def gpu_lm(lm_folder: Path) -> FrozenLM:
    """The tiny model on the GPU."""
    return FrozenLM(str(lm_folder)).to("cuda")


@pytest.fixture
def waiting_is_an_error() -> Iterator[None]:
    """Undo `torch.cuda.set_sync_debug_mode` whatever happens."""
    yield
    torch.cuda.set_sync_debug_mode("default")


def on_gpu(batch: Batch) -> Batch:
    moved = {k: v.cuda() if isinstance(v, Tensor) else v for k, v in batch.items()}
    return Batch(**moved)  # type: ignore[typeddict-item]


def use(passes: CompiledPasses, monkeypatch: pytest.MonkeyPatch, reuse: bool) -> None:
    """Let a model's answers be the compiled ones alone."""

    def answers(prompts: Tensor, batch: Batch, tree: None = None) -> Tensor:
        hidden = passes(prompts, batch, reuse)
        assert hidden is not None
        return hidden

    monkeypatch.setattr(passes.lm, "answers", answers)


def step(tuner: PromptTuner, batch: Batch) -> None:
    tuner.zero_grad()
    tuner.training_step(batch, 0).backward()


@pytest.mark.parametrize("text", [FIRST, LAST])
@pytest.mark.parametrize("name", ["soft", "pez"])
@pytest.mark.parametrize("is_compiled", [False, True], ids=["eager", "compiled"])
def test_a_training_step_does_not_wait(
    gpu_lm: FrozenLM,
    waiting_is_an_error: None,
    monkeypatch: pytest.MonkeyPatch,
    is_compiled: bool,
    name: str,
    text: str,
):
    tuner = build(name, gpu_lm, text).cuda()
    monkeypatch.setattr(tuner, "log", lambda *args, **kwargs: None)
    if is_compiled:
        use(CompiledPasses(gpu_lm), monkeypatch, reuse=True)
    batch = on_gpu(make_batch(tuner))
    for _ in range(3):  # compiled, recorded, measured: all of it may wait, once
        step(tuner, batch)
    torch.cuda.set_sync_debug_mode("error")
    step(tuner, batch)


def test_waiting_is_found(waiting_is_an_error: None):
    value = torch.ones(1, device="cuda")
    torch.cuda.set_sync_debug_mode("error")
    with pytest.raises(RuntimeError, match="synchroniz"):
        value.item()


@pytest.mark.parametrize("reuse", [True, False])
@pytest.mark.parametrize("text", [FIRST, LAST])
def test_compiled_is_eager(gpu_lm: FrozenLM, text: str, reuse: bool):
    tuner = build("soft", gpu_lm, text).cuda()
    passes, whole = CompiledPasses(gpu_lm), on_gpu(make_batch(tuner))
    eager = prompts_first if reuse and text == FIRST else concatenated
    weights = torch.randn(len(whole["labels"]), gpu_lm.hidden_size, device="cuda")
    kept = []
    for seed in range(6):  # past warm-up and recording, with results of before held
        torch.manual_seed(seed)
        prompt = torch.randn(1, 5, gpu_lm.hidden_size, device="cuda", requires_grad=True)
        hidden = passes(prompt, whole, reuse)
        expected = eager(gpu_lm, prompt, whole)
        grads = [torch.autograd.grad((h * weights).sum(), prompt)[0] for h in (hidden, expected)]
        kept.append((hidden.detach(), expected.detach(), *grads))
        with torch.inference_mode():  # a validation between the steps
            torch.testing.assert_close(passes(prompt, whole, reuse), expected, rtol=1e-5, atol=1e-5)
    assert not passes._failed
    for hidden, expected, grad, reference in kept:
        torch.testing.assert_close(hidden, expected, rtol=1e-5, atol=1e-5)
        assert (grad - reference).abs().max() < 1e-5 * reference.abs().max()


def test_accumulated_gradients_are_sums(gpu_lm: FrozenLM):
    """The first gradient becomes the parameter's own; a replay must not write into it."""
    batch = on_gpu(make_batch(build("soft", gpu_lm, FIRST)))
    prompt = torch.nn.Parameter(torch.randn(5, gpu_lm.hidden_size, device="cuda"))
    weights = torch.randn(len(batch["labels"]), gpu_lm.hidden_size, device="cuda")
    passes = CompiledPasses(gpu_lm)
    for scale in (1.0, 2.0, 3.0):
        (scale * passes(prompt[None], batch, True) * weights).sum().backward()
    expected = prompts_first(gpu_lm, prompt[None], batch)
    reference = torch.autograd.grad((6.0 * expected * weights).sum(), prompt)[0]
    assert (prompt.grad - reference).abs().max() < 1e-5 * reference.abs().max()


def test_two_passes_before_one_backward(gpu_lm: FrozenLM):
    """What the first keeps for its backward pass outlives the second."""
    first = on_gpu(make_batch(build("soft", gpu_lm, FIRST)))
    prompt = torch.randn(1, 5, gpu_lm.hidden_size, device="cuda", requires_grad=True)
    weights = torch.randn(2, len(first["labels"]), gpu_lm.hidden_size, device="cuda")
    second = {**first, "after_ids": first["after_ids"].flip(0)}
    second["after_lengths"] = first["after_lengths"].flip(0)
    passes, grads = CompiledPasses(gpu_lm), []
    for run in (passes, lambda p, batch, reuse: prompts_first(gpu_lm, p, batch)):
        both = torch.cat([run(prompt, batch, True) for batch in (first, second)])
        grads.append(torch.autograd.grad((both * weights).sum(), prompt)[0])
    assert (grads[0] - grads[1]).abs().max() < 1e-5 * grads[1].abs().max()


def test_weights_are_read_where_they_lie(gpu_lm: FrozenLM):
    """Their values are no part of a graph: new ones are seen without a new recording."""
    batch = on_gpu(make_batch(build("soft", gpu_lm, FIRST)))
    prompt = torch.randn(1, 5, gpu_lm.hidden_size, device="cuda")
    passes = CompiledPasses(gpu_lm)
    with torch.no_grad():
        before = passes(prompt, batch, True)
        gpu_lm.embedding_table.mul_(0.5)
        after, expected = passes(prompt, batch, True), prompts_first(gpu_lm, prompt, batch)
    assert not torch.allclose(before, after)
    torch.testing.assert_close(after, expected, rtol=1e-5, atol=1e-5)
