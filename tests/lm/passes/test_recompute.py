"""Activations that are made again: the same states and gradients, and fewer of them at once."""

import pytest
import torch

from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.lm.passes import recompute
from tests.lm.passes.test_reuse import FIRST, LAST, MIDDLE, SHARED, make_batch, random_prompts


@pytest.mark.parametrize("text", [FIRST, LAST, MIDDLE, SHARED])
@pytest.mark.parametrize("tokens", [1, 40])
def test_states_and_gradients_are_those_of_one_pass(
    lm: FrozenLM, text: str, tokens: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(recompute, "TOKENS_AT_ONCE", tokens)
    batch, found = make_batch(lm, text), {}
    for again in (False, True):
        monkeypatch.setattr(lm, "recompute", again)
        prompts = random_prompts(lm, 2).requires_grad_()
        hidden = lm.answers(prompts, batch)
        weights = torch.linspace(-1, 1, hidden.numel()).view_as(hidden)
        (hidden * weights).sum().backward()
        found[again] = hidden.detach(), prompts.grad
    for got, expected in zip(found[True], found[False], strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_a_part_is_held_at_a_time(lm: FrozenLM, monkeypatch: pytest.MonkeyPatch):
    """Tensors that the backward pass keeps, by their storage."""
    batch, prompts = make_batch(lm, FIRST), random_prompts(lm, 1).requires_grad_()
    monkeypatch.setattr(recompute, "TOKENS_AT_ONCE", 1)
    held = {}
    for again in (False, True):
        monkeypatch.setattr(lm, "recompute", again)
        storages: dict[int, int] = {}

        def keep(x: torch.Tensor, storages: dict[int, int] = storages) -> torch.Tensor:
            storages[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
            return x

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            lm.answers(prompts, batch)
        held[again] = sum(storages.values())
    assert held[True] < held[False] / 4


def test_evaluations_make_one_pass(lm: FrozenLM, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lm, "recompute", True)
    monkeypatch.setattr(recompute, "recomputed", None)  # nobody calls it
    monkeypatch.setattr("lightning_prompts.lm.reader.recomputed", None)
    with torch.no_grad():
        lm.answers(random_prompts(lm, 1).requires_grad_(), make_batch(lm, FIRST))
    lm.answers(random_prompts(lm, 1), make_batch(lm, FIRST))
