"""GPT-2's own linear layer; a file of its own, because transformers takes seconds to import."""

from torch import Tensor
from transformers.pytorch_utils import Conv1D

from lightning_prompts.lm.linear import linear


class FrozenConv1D(Conv1D):
    """A linear layer whose weights, [K, N], are frozen."""

    def forward(self, x: Tensor) -> Tensor:
        """[..., K] to [..., N]."""
        return linear(x, self.weight.t(), self.bias)
