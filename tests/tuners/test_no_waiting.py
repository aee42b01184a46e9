"""A training step never waits for its device: it reads no value of a tensor and sends none over.

What `torch.cuda.set_sync_debug_mode` finds on a GPU, found without one.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.lm.nearest import Distance, nearest_tokens
from tests.tuners.test_tuners import build, make_batch

# `item`, `bool` and branches; shapes that follow from values; tensors made of Python's numbers.
WAITING = {"_local_scalar_dense", "nonzero", "masked_select", "unique", "_unique2", "lift_fresh"}


class WaitError(Exception):
    """The device would have been waited for."""


class NoWaiting(TorchDispatchMode):
    """Raises where a value is read or sent; in its block and until `monkeypatch` is undone."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        for name in ("tolist", "numpy", "cpu"):  # these show no operation on a CPU
            monkeypatch.setattr(Tensor, name, self._refuse(name))

    def _refuse(self, name: str) -> Callable[..., Any]:
        def refuse(*args: Any) -> Any:
            raise WaitError(name)

        return refuse

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        masks = args[1] if name in ("index", "index_put", "index_put_") else []
        if any(mask is not None and mask.dtype == torch.bool for mask in masks):
            raise WaitError(name)
        if name in WAITING and args[0].numel():  # nothing is sent for an empty tensor
            raise WaitError(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("text", ["{prompt} {text} It was", "{text}{prompt}", "{text}{prompt} So"])
@pytest.mark.parametrize("weight", [0.0, 0.5])
@pytest.mark.parametrize("reuse", [True, False])
@pytest.mark.parametrize("name", ["soft", "pez", "released"])
def test_a_training_step_does_not_wait(
    lm: FrozenLM, monkeypatch: pytest.MonkeyPatch, name: str, reuse: bool, weight: float, text: str
):
    monkeypatch.setattr(lm, "reuse_prompt", reuse)
    tuner = build(name, lm, text, perplexity_weight=weight)
    monkeypatch.setattr(tuner, "log", lambda *args, **kwargs: None)
    batch = make_batch(tuner)
    tuner.training_step(batch, 0).backward()  # the first one fills caches
    with NoWaiting(monkeypatch):
        tuner.training_step(batch, 0).backward()
    assert tuner.prompt.grad.any()


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_a_projection_does_not_wait(metric: Distance, monkeypatch: pytest.MonkeyPatch):
    table, excluded = torch.randn(50, 8), torch.tensor([0, 3])
    with NoWaiting(monkeypatch):
        nearest = nearest_tokens(table[:7], table, metric, excluded)
    assert nearest.ids.shape == (7,)


@pytest.mark.parametrize(
    "wait",
    [
        Tensor.item,
        bool,
        lambda t: t.tolist(),
        lambda t: t.cpu(),
        Tensor.nonzero,
        lambda t: t[t > 0],
        lambda t: t.masked_fill_(t > 0, 1.0).unique(),
        lambda t: t + torch.tensor([1.0]),
    ],
)
def test_waiting_is_found(wait: Callable[[Tensor], Any], monkeypatch: pytest.MonkeyPatch):
    values = torch.ones(1)
    with NoWaiting(monkeypatch), pytest.raises(WaitError):
        wait(values)
