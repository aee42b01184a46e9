"""Products with frozen weights by oneDNN against the same in float64."""

import copy
import pickle
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.pytorch_utils import Conv1D

from lightning_prompts.lm import kernels
from lightning_prompts.lm import linear as module
from lightning_prompts.lm.kernels import use_fast_kernels
from lightning_prompts.lm.linear import FrozenLinear, by_onednn, linear

PRODUCT = pytest.mark.skipif(
    not hasattr(torch.ops.mkldnn, "_linear_pointwise"), reason="this torch has no oneDNN product"
)


@pytest.fixture
def onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a processor on which oneDNN is the faster one."""
    monkeypatch.setattr(module, "by_onednn", lambda: True)


@PRODUCT
@pytest.mark.parametrize("shape", [(200,), (1, 200), (7, 200), (3, 5, 200)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("turned", [True, False])
def test_product_and_gradient(shape: tuple[int, ...], bias: bool, turned: bool, onednn):
    weight = torch.randn(200, 180).t() if turned else torch.randn(180, 200)
    added = torch.randn(180) if bias else None
    x = torch.randn(*shape, requires_grad=True)
    double = x.detach().double().requires_grad_()
    expected = F.linear(double, weight.double(), None if added is None else added.double())
    got, weights = linear(x, weight, added), torch.randn(*shape[:-1], 180)
    assert type(got.grad_fn.next_functions[0][0]).__name__ == "_ProductBackward"
    (got * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(x.grad.double(), double.grad, rtol=1e-5, atol=1e-4)
    assert torch.equal(linear(x.detach(), weight, added), got)
    with torch.no_grad():
        assert torch.equal(linear(x, weight, added), got)
    with torch.inference_mode():
        assert torch.equal(linear(x, weight, added), got)


@PRODUCT
@pytest.mark.parametrize("shape", [(200,), (7, 200), (3, 5, 200)])
def test_a_model_may_add_into_its_result(shape: tuple[int, ...], onednn):
    """As RoCBert does, whose gradients were taken for missing."""
    weight, x = torch.randn(180, 200), torch.randn(*shape, requires_grad=True)
    got = linear(x, weight)
    got += 1
    got.sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, weight.sum(0).expand(shape), rtol=1e-4, atol=1e-4)


@PRODUCT
def test_what_is_left_to_torch(onednn):
    weight = torch.randn(180, 200)
    for x, w in [
        (torch.randn(4, 200).bfloat16(), weight.bfloat16()),
        (torch.randn(4, 200).double(), weight.double()),
        (torch.randn(4, 20), weight[:, :20]),
        (torch.randn(0, 200), weight),
    ]:
        assert torch.equal(linear(x, w), F.linear(x, w))
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(torch.randn(4, 200), weight).dtype == torch.bfloat16


@PRODUCT
def test_a_models_layers_are_replaced_and_keep_what_they_hold(monkeypatch: pytest.MonkeyPatch):
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=300, n_embd=128, n_layer=2, n_head=2)
    model = GPT2LMHeadModel(config).eval().requires_grad_(False)
    ids = torch.arange(10)[None]
    names, expected = list(model.state_dict()), copy.deepcopy(model).double()(ids).logits
    for each in (module, kernels):
        monkeypatch.setattr(each, "by_onednn", lambda: True)
    use_fast_kernels(model)
    layers = [m for m in model.modules() if isinstance(m, Conv1D)]
    changed = [m for m in layers if type(m) is not Conv1D]
    assert len(layers) == 8
    assert len(changed) == 6  # of a block the projection behind attention is too small to gain
    assert type(model.lm_head) is FrozenLinear
    assert isinstance(model.lm_head, nn.Linear)
    assert list(model.state_dict()) == names
    torch.testing.assert_close(model(ids).logits.double(), expected, rtol=1e-5, atol=1e-5)
    again = pickle.loads(pickle.dumps(copy.deepcopy(model)))  # as processes are handed it
    assert torch.equal(again(ids).logits, model(ids).logits)


def test_only_where_torch_is_slow(monkeypatch: pytest.MonkeyPatch):
    chosen = {}
    for maker, width in product(("AuthenticAMD", "GenuineIntel", ""), ("AVX512", "AVX2")):
        monkeypatch.setattr(module, "_processor", lambda maker=maker: maker)
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda width=width: width)
        by_onednn.cache_clear()
        chosen[maker, width] = by_onednn()
    monkeypatch.undo()
    by_onednn.cache_clear()
    mkl = torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()
    assert {which for which, yes in chosen.items() if yes} == (
        {("AuthenticAMD", "AVX512")} if mkl else set()
    )
