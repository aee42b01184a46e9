"""The frozen model's own functions in fewer or faster kernels: the same formulas, other rounding.

Weights are frozen, so the backward pass needs gradients of activations alone.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from lightning_prompts.files.numbers import wide
from lightning_prompts.lm.linear import LEAST_WEIGHTS, FrozenLinear, by_onednn

ATTENTION = "lightning_prompts"
# Scores of a layer that plain matrix products keep for the backward pass: 16 MiB in bfloat16 and
# 0.5 GiB for 30 layers. Longer sequences are what torch's fused kernel is made for.
SCORES_AT_ONCE = 2**23
NOT_PLAIN = ("position_bias", "softcap", "s_aux", "cache")  # left to the fused kernel


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """softmax(s Q K' + mask) V, under the signature of transformers' attention functions.

    In the type of the queries, as transformers' own `eager` products are.

    On a CPU torch's fused kernel is slow for many short sequences, its backward pass most: 32
    sequences of 27 bfloat16 queries, 9 heads, took 17 ms a layer where plain products take 2.4.
    Elsewhere, and for long sequences, it is the fused kernel.

    Args:
        module: The layer, which tells whether attention is causal.
        query: [B, heads, T, d]
        key: [B, key heads, S, d]
        value: [B, key heads, S, d]
        attention_mask: Broadcasts to [B, 1, T, S]; True where a query sees a key. None: causal.
        scaling: s; by default 1 / sqrt(d).
        **kwargs: Passed on to the fused kernel.

    Returns:
        [B, T, heads, d], and no weights.
    """
    scores = query.shape[0] * query.shape[1] * query.shape[2] * key.shape[2]
    plain = not any(kwargs.get(name) is not None for name in NOT_PLAIN)
    plain = plain and not kwargs.get("dropout") and kwargs.get("is_causal") is not False
    boolean = attention_mask is None or attention_mask.dtype == torch.bool
    if query.device.type == "cpu" and scores <= SCORES_AT_ONCE and plain and boolean:
        return _products(module, query, key, value, attention_mask, scaling), None
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    return sdpa_attention_forward(
        module, query, key, value, attention_mask, scaling=scaling, **kwargs
    )


def _products(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scaling: float | None,
) -> Tensor:
    size, heads, length, width = query.shape
    groups = key.shape[1]  # heads that share a key read it together, instead of a copy each
    if torch.is_autocast_enabled("cpu"):
        dtype = torch.get_autocast_dtype("cpu")
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    scaling = 1 / math.sqrt(width) if scaling is None else scaling
    causal = getattr(module, "is_causal", True)
    with torch.autocast("cpu", enabled=False):
        grouped = (query * scaling).reshape(size, groups, -1, width)
        scores = (grouped @ key.transpose(-1, -2)).view(size, heads, length, -1)
        if mask is None and length > 1 and causal:
            mask = torch.ones(length, key.shape[2], dtype=torch.bool).tril()
        if mask is not None:
            # Not -inf: a query that sees nothing, in front of a padded text, would become NaN.
            scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
        weights = scores.softmax(-1).view(size, groups, -1, key.shape[2])
        mixed = (weights @ value).view(size, heads, length, -1)
    return mixed.transpose(1, 2).contiguous()  # some models take views of it


def use_attention(model: Any) -> None:
    """Give a model that has `sdpa` this attention in its place.

    A model that does not leave attention to transformers' interface keeps its own: under a name
    that it does not know, some would drop their causal mask without a word.
    """
    known = getattr(model, "_supports_attention_backend", False)
    if not known or model.config._attn_implementation != "sdpa":
        return
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(ATTENTION, attention)
    AttentionMaskInterface.register(ATTENTION, sdpa_mask)
    model.set_attn_implementation(ATTENTION)


class RMSNorm(nn.Module):
    """(o + w) * x / sqrt(mean(x²) + eps) over the last dimension, w frozen; mean in float32.

    Args:
        weight: [H]
        eps: Added under the root.
        offset: o; Gemma has 1, and multiplies before it rounds.
    """

    def __init__(self, weight: nn.Parameter, eps: float, offset: float = 0.0) -> None:
        super().__init__()
        self.weight, self.eps, self.offset = weight, eps, offset

    def forward(self, x: Tensor) -> Tensor:
        """[..., H] to [..., H]."""
        weight = wide(self.weight) + self.offset if self.offset else self.weight
        if x.dtype == weight.dtype == torch.float32 and x.device.type == "cpu":
            return _FrozenRMSNorm.apply(x, weight, self.eps)
        normed = F.rms_norm(wide(x), x.shape[-1:], eps=self.eps)
        return (normed * weight).to(x.dtype) if self.offset else weight * normed.to(x.dtype)


class _FrozenRMSNorm(torch.autograd.Function):
    """Torch makes a norm of some ten operations on a CPU; this one takes a third of the time."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        inverse = torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)
        ctx.save_for_backward(x, weight, inverse)
        return (x * inverse).mul_(weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        x, weight, inverse = ctx.saved_tensors
        weighted = grads[0] * weight
        along = (weighted * x).mean(-1, keepdim=True).mul_(inverse.square())
        return weighted.sub_(x * along).mul_(inverse), None, None


def use_fast_kernels(model: nn.Module) -> None:
    """Replace, in place, activations, norms and linear layers by equal ones in faster kernels.

    GPT-2's activation is written out in eight operations; as one it takes a third of the time.
    """
    from transformers.activations import NewGELUActivation

    _use_frozen_products(model)
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is NewGELUActivation:
                setattr(parent, name, nn.GELU(approximate="tanh"))
            elif type(child).__name__.endswith("RMSNorm") and (norm := _equal_norm(child)):
                setattr(parent, name, norm)


@torch.no_grad()
def _equal_norm(module: nn.Module) -> RMSNorm | None:
    """Our norm in place of a model's own, where both are the same."""
    weight = getattr(module, "weight", None)
    eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    if not isinstance(weight, nn.Parameter) or not isinstance(eps, float):
        return None
    probe = torch.linspace(-1, 2, len(weight), dtype=weight.dtype, device=weight.device)[None]
    expected = module(probe)
    norms = (RMSNorm(weight, eps, offset) for offset in (0.0, 1.0))
    return next((n for n in norms if torch.allclose(n(probe), expected, 1e-5, 1e-6)), None)


def _use_frozen_products(model: nn.Module) -> None:
    """Let large linear layers multiply as `linear` does; they keep all that they hold."""
    if not by_onednn():
        return
    from transformers.pytorch_utils import Conv1D

    from lightning_prompts.lm.linear_of_gpt2 import FrozenConv1D

    for module in model.modules():
        weight = getattr(module, "weight", None)
        if type(weight) is not nn.Parameter or weight.numel() < LEAST_WEIGHTS:
            continue
        if type(module) is nn.Linear:
            module.__class__ = FrozenLinear
        elif type(module) is Conv1D:
            module.__class__ = FrozenConv1D
