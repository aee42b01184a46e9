"""Whether shared parts are encoded once is forced, or chosen by device, shape and measurement."""

import logging
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from lightning_prompts.lm import reader as language_model
from lightning_prompts.lm.batch import Batch, collate
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.lm.passes import choice as reuse_choice
from lightning_prompts.lm.passes.choice import ReuseChoice, measured
from lightning_prompts.lm.template import Template

BATCH, TEXTS_FIRST = (cast(Batch, {"shared_before": first}) for first in (True, False))


def on_gpu(*shape: int, grad: bool = True) -> Any:
    """What the choice asks of a prompt that lies on a GPU."""

    class Prompt(SimpleNamespace):
        def __len__(self) -> int:
            return shape[0]

    device = torch.device("cuda")
    return Prompt(device=device, ndim=len(shape), shape=shape, requires_grad=grad)


def choice(monkeypatch: pytest.MonkeyPatch, reused: float, whole: float) -> tuple[Any, list[bool]]:
    """One that finds these times, and what it measured."""
    asked: list[bool] = []

    def measure(answers: Any, prompts: Any, batch: Any, reuse: bool) -> float:
        asked.append(reuse)
        return reused if reuse else whole

    monkeypatch.setattr(reuse_choice, "measured", measure)
    chooses = ReuseChoice()
    return lambda prompt: chooses(cast(Any, None), prompt, BATCH), asked


def test_a_cpu_reuses_without_measuring(monkeypatch: pytest.MonkeyPatch):
    choose, asked = choice(monkeypatch, reused=2, whole=1)
    assert choose(torch.zeros(1, 3, 4, requires_grad=True))
    assert not asked


@pytest.mark.parametrize(
    "shape", [(2, 3, 4), (1, 3), (1, 0, 4)], ids=["prompts", "ids", "no prompt"]
)
def test_other_prompts_reuse(monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...]):
    choose, asked = choice(monkeypatch, reused=2, whole=1)
    assert choose(on_gpu(*shape))
    assert not asked


def test_texts_that_are_kept_are_reused(monkeypatch: pytest.MonkeyPatch):
    _, asked = choice(monkeypatch, reused=2, whole=1)
    assert ReuseChoice()(cast(Any, None), on_gpu(1, 3, 4), TEXTS_FIRST)
    assert not asked


@pytest.mark.parametrize(("reused", "whole"), [(1, 2), (2, 1)])
def test_a_gpu_measures_once_for_training_and_once_for_evaluation(
    monkeypatch: pytest.MonkeyPatch, reused: int, whole: int, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO)
    choose, asked = choice(monkeypatch, reused, whole)
    for _ in range(2):
        assert choose(on_gpu(1, 3, 4)) is (reused < whole)
    assert asked == [True, False]
    with torch.no_grad():
        assert choose(on_gpu(1, 3, 4)) is (reused < whole)
    assert asked == [True, False] * 2
    assert "Training" in caplog.text
    assert "Evaluation" in caplog.text
    assert ("once" if reused < whole else "in each row") in caplog.text


def test_measuring_runs_both_passes_and_leaves_the_prompt_alone():
    calls: list[bool] = []
    prompt = torch.ones(1, 2, 3, requires_grad=True)

    def answers(prompts: Tensor, batch: Batch, reuse: bool) -> Tensor:
        assert prompts is not prompt
        assert prompts.requires_grad
        prompts.register_hook(lambda grad: calls.append(reuse))
        return prompts.square()

    assert measured(answers, prompt, BATCH, True) > 0
    assert calls == [True] * (reuse_choice.WARM_UP + reuse_choice.REPETITIONS)
    assert prompt.grad is None


@pytest.mark.parametrize(("given", "expected"), [("auto", True), (True, True), (False, False)])
def test_the_model_does_as_it_is_told(
    lm: FrozenLM, monkeypatch: pytest.MonkeyPatch, given: Any, expected: bool
):
    used: list[bool] = []
    for name, reuses in (("prompts_first", True), ("concatenated", False)):
        kept = getattr(language_model, name)
        monkeypatch.setattr(
            language_model, name, lambda *a, f=kept, r=reuses: (used.append(r), f(*a))[1]
        )
    monkeypatch.setattr(lm, "reuse_prompt", given)
    example = Template("{prompt} {text}", lm).encode({"text": "Dull."})
    lm.answer_hidden(torch.zeros(2, lm.hidden_size), collate([example] * 2, [0, 0], [0, 1]))
    assert used == [expected]
