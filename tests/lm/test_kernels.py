"""Faster kernels compute what the model's own functions do, checked in float64."""

import copy
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    FalconConfig,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoConfig,
    LlamaConfig,
    LlamaForCausalLM,
)
from transformers.activations import NewGELUActivation
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from lightning_prompts.files.errors import PromptError
from lightning_prompts.lm import kernels
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.lm.kernels import RMSNorm, attention, use_fast_kernels


def reference(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float) -> Tensor:
    """Softmax attention by loops, in float64."""
    size, heads, length, _ = query.shape
    out = torch.zeros(size, length, heads, value.shape[-1], dtype=torch.float64)
    for b in range(size):
        for h in range(heads):
            g = h * key.shape[1] // heads
            for t in range(length):
                seen = mask[b, 0, t].nonzero()[:, 0]
                scores = (key[b, g, seen].double() @ query[b, h, t].double()) * scale
                out[b, t, h] = scores.softmax(-1) @ value[b, g, seen].double()
    return out


@pytest.mark.parametrize("heads", [(4, 4), (6, 2)])
@pytest.mark.parametrize("kind", ["causal", "mask", "one query"])
@pytest.mark.parametrize("plain", [True, False])
def test_attention(heads: tuple[int, int], kind: str, plain: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kernels, "SCORES_AT_ONCE", 2**23 if plain else 0)
    generator = torch.Generator().manual_seed(0)
    length, past = (1, 6) if kind == "one query" else (5, 0 if kind == "causal" else 3)

    def draw(count: int, tokens: int) -> Tensor:
        return torch.randn(2, count, tokens, 8, generator=generator).requires_grad_()

    query, key, value = draw(heads[0], length), draw(heads[1], past + length), None
    value = draw(heads[1], past + length)
    layer = nn.Module()
    layer.is_causal, layer.num_key_value_groups = True, heads[0] // heads[1]
    seen = torch.ones(2, 1, length, past + length, dtype=torch.bool).tril(past)
    if kind == "mask":
        seen[1, :, :, :2] = False
    mask = seen if kind == "mask" else None
    got, weights = attention(layer, query, key, value, mask, scaling=0.3)
    assert weights is None
    expected = reference(query, key, value, seen, 0.3)
    torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=1e-5)
    grads = torch.autograd.grad(got.square().sum(), (query, key, value))
    wanted = torch.autograd.grad(expected.square().sum(), (query, key, value))
    for own, other in zip(grads, wanted, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-5)


def test_attention_takes_the_fused_kernel_for_long_sequences(monkeypatch: pytest.MonkeyPatch):
    """And plain products below: counted by their largest tensor."""
    layer = nn.Module()
    layer.is_causal, layer.num_key_value_groups = True, 1
    found: list[tuple] = []
    monkeypatch.setattr(kernels, "_products", lambda *args: found.append(args) or args[1])
    for length in (16, 3000):
        query = torch.zeros(1, 1, length, 8)
        attention(layer, query, query, query, None)
    assert len(found) == 1
    assert found[0][1].shape[2] == 16


def test_a_query_that_sees_nothing_stays_a_number():
    layer = nn.Module()
    layer.is_causal = True
    query = torch.randn(1, 2, 3, 4)
    got, _ = attention(layer, query, query, query, torch.zeros(1, 1, 3, 3, dtype=torch.bool))
    assert got.isfinite().all()


@pytest.mark.parametrize("shape", [(3, 7, 24), (24,)])
def test_the_norm(shape: tuple[int, ...]):
    generator = torch.Generator().manual_seed(0)
    weight = nn.Parameter(torch.randn(24, generator=generator), requires_grad=False)
    x = torch.randn(*shape, generator=generator).requires_grad_()
    got = RMSNorm(weight, 1e-2)(x)
    wide = x.double()
    expected = weight.double() * wide / (wide.square().mean(-1, keepdim=True) + 1e-2).sqrt()
    torch.testing.assert_close(got.double(), expected, rtol=1e-6, atol=1e-6)
    upstream = torch.randn(*shape, generator=generator)
    (grad,) = torch.autograd.grad((got * upstream).sum(), x)
    (wanted,) = torch.autograd.grad((expected * upstream).sum(), x)
    torch.testing.assert_close(grad, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_the_norm_in_other_types(dtype: torch.dtype):
    norm = LlamaRMSNorm(24, eps=1e-5).to(dtype).requires_grad_(False)
    norm.weight.data.uniform_(0.5, 2)
    x = torch.randn(5, 24).to(dtype)
    torch.testing.assert_close(RMSNorm(norm.weight, 1e-5)(x), norm(x), rtol=1e-6, atol=1e-6)


def test_what_is_replaced_in_a_llama():
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=50,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
        )
    )
    model.requires_grad_(False)
    ids = torch.arange(10)[None]
    names, expected = list(model.state_dict()), model(ids).logits
    use_fast_kernels(model)
    assert sum(isinstance(m, RMSNorm) for m in model.modules()) == 5
    assert list(model.state_dict()) == names
    torch.testing.assert_close(model(ids).logits, expected, rtol=1e-5, atol=1e-6)
    again = pickle.loads(pickle.dumps(copy.deepcopy(model)))  # as processes are handed it
    assert torch.equal(again(ids).logits, model(ids).logits)


def test_what_is_replaced_in_a_gpt2():
    model = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=16, n_layer=2, n_head=2)).eval()
    ids = torch.arange(10)[None]
    expected = model(ids).logits
    use_fast_kernels(model)
    assert not any(isinstance(m, NewGELUActivation) for m in model.modules())
    assert sum(isinstance(m, nn.GELU) for m in model.modules()) == 2
    torch.testing.assert_close(model(ids).logits, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_a_norm_that_adds_one_to_its_weight(dtype: torch.dtype):
    """Gemma's."""
    own = GemmaRMSNorm(16).to(dtype)
    nn.init.normal_(own.weight)
    holder = nn.Sequential(own).requires_grad_(False)
    use_fast_kernels(holder)
    assert isinstance(holder[0], kernels.RMSNorm)
    assert holder[0].weight is own.weight
    x = (3 * torch.randn(5, 16)).to(dtype).requires_grad_()
    double = x.detach().double().requires_grad_()
    scale = torch.rsqrt(double.square().mean(-1, keepdim=True) + own.eps)
    expected = double * scale * (1 + own.weight.double())
    close = (
        {"rtol": 1e-2, "atol": 1e-2} if dtype == torch.bfloat16 else {"rtol": 1e-5, "atol": 1e-5}
    )
    torch.testing.assert_close(holder(x).double(), expected, **close)
    if dtype == torch.bfloat16:
        assert torch.equal(holder(x), own(x))
    weights = torch.randn(5, 16)
    (holder(x) * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(x.grad.double(), double.grad, **close)


def test_a_norm_of_another_formula_is_left_alone():
    class OtherRMSNorm(GemmaRMSNorm):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x).tanh()

    holder = nn.Sequential(OtherRMSNorm(16))
    nn.init.normal_(holder[0].weight)
    use_fast_kernels(holder)
    assert isinstance(holder[0], OtherRMSNorm)


@pytest.mark.parametrize("kind", ["bloom", "falcon", "gpt_neo"])
def test_a_model_with_attention_of_its_own_keeps_it(kind: str, lm_folder: Path, tmp_path: Path):
    """Under a name that these do not know, some of them would see what comes after a token."""
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = {
        "bloom": lambda: BloomConfig(vocab_size=101, hidden_size=16, n_layer=2, n_head=2),
        "falcon": lambda: FalconConfig(vocab_size=101, alibi=False, **sizes),
        "gpt_neo": lambda: GPTNeoConfig(
            vocab_size=101,
            hidden_size=16,
            num_layers=2,
            num_heads=2,
            attention_types=[[["global", "local"], 1]],
            window_size=64,
        ),
    }[kind]()
    shutil.copytree(lm_folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "model.safetensors").unlink()
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    own = AutoModelForCausalLM.from_pretrained(tmp_path).eval()  # `sdpa` where it has that
    lm = FrozenLM(str(tmp_path))
    ids = torch.arange(1, 12)[None]
    torch.testing.assert_close(lm.model(ids).logits, own(ids).logits, rtol=1e-5, atol=1e-5)
    assert lm.model.config._attn_implementation == own.config._attn_implementation
    if own.config._attn_implementation == "eager":
        asked = r"attn_implementation='sdpa'\): not to be had.*leave it out"
        with pytest.raises(PromptError, match=asked):
            FrozenLM(str(tmp_path), attn_implementation="sdpa")


def test_a_frozen_model_has_them(lm: FrozenLM):
    assert lm.model.config._attn_implementation == kernels.ATTENTION
    assert any(isinstance(m, nn.GELU) for m in lm.model.modules())
