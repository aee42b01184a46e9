"""Products with frozen float32 weights on CPUs: by oneDNN where MKL is slow.

torch multiplies float32 matrices by Intel's MKL, which on AMD's processors with AVX-512 makes about
half of what they can do; oneDNN, which is in the same wheel, knows their instructions. On an AMD
EPYC (family 26) with two threads torch 2.13's `linear` made 8 to 29 GFLOPS where others shared the
machine, and the same product by oneDNN 19 to 63: 1.5 to 2.6 times as many in each of SmolLM2's
shapes from 64 rows on. Weights stay as they are: nothing is packed, so nothing is held twice.
"""

import platform
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# Smaller ones are bound by the call itself, of which torch's own is the cheaper.
LEAST_WEIGHTS = 2**15


@cache
def by_onednn() -> bool:
    """Whether this processor is one on which torch's own float32 products are slow.

    By its maker and not by a measurement: a resumed run has to round as the run before it.
    """
    known = hasattr(torch.ops.mkldnn, "_linear_pointwise") and torch.backends.mkldnn.is_available()
    wide = torch.backends.cpu.get_cpu_capability() == "AVX512"  # else both know the same ones
    return known and wide and torch.backends.mkl.is_available() and "AuthenticAMD" in _processor()


def _processor() -> str:
    """What the system says of the processor; its maker is in it on Linux and on Windows."""
    listed = Path("/proc/cpuinfo")
    try:
        text = listed.read_text(errors="replace") if listed.exists() else ""
    except OSError:
        text = ""
    return f"{platform.processor()} {text.partition(chr(10) * 2)[0]}"


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The product x W' + b with a frozen W, like `torch.nn.functional.linear`.

    Args:
        x: [..., K]
        weight: [N, K], of any strides.
        bias: [N]

    Returns:
        [..., N]
    """
    plain = x.dtype == weight.dtype == torch.float32 and x.device.type == "cpu"
    if not plain or weight.numel() < LEAST_WEIGHTS or not by_onednn() or not x.numel():
        return F.linear(x, weight, bias)
    if torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling():
        return F.linear(x, weight, bias)
    if x.requires_grad and torch.is_grad_enabled():
        # As rows: of three dimensions the product is a view, into which a model could not add.
        rows: Tensor = _Product.apply(x.reshape(-1, x.shape[-1]), weight, bias)
        return rows.view(*x.shape[:-1], -1)
    return _product(x, weight, bias)


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    result: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return result


class _Product(torch.autograd.Function):
    """Backward too: the gradient of x is the gradient of the product by W."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight)
        return _product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (weight,) = ctx.saved_tensors
        return _product(grads[0], weight.t()), None, None


class FrozenLinear(nn.Linear):
    """A linear layer whose weights are frozen."""

    def forward(self, x: Tensor) -> Tensor:
        """[..., K] to [..., N]."""
        return linear(x, self.weight, self.bias)
