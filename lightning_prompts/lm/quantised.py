"""Frozen weights in fewer bits: transformers' own quantisation, and what it leaves of a model."""

import importlib.util
from typing import Any, Literal

from torch import Tensor, nn

from lightning_prompts.files.errors import PromptError

Quantisation = Literal["int8", "int8_dynamic", "bnb_int8", "bnb_nf4"]
"""torchao's weights in 8 bits, and activations too; bitsandbytes' weights in 8 and in 4 bits."""


def quantisation(kind: Quantisation, dtype: Any) -> Any:
    """What `from_pretrained` takes as `quantization_config`.

    Matrices of linear layers are quantised; embeddings, head, norms and biases stay as they are.

    Args:
        kind: Which.
        dtype: Type of what is not quantised, in which 4-bit weights are multiplied.

    Raises:
        PromptError: If the package that does it is not installed.
    """
    package = "bitsandbytes" if kind.startswith("bnb_") else "torchao"
    if importlib.util.find_spec(package) is None:
        raise PromptError(
            f"--lm.quantize {kind} needs {package}; install it with: pip install {package}"
        )
    from transformers import BitsAndBytesConfig, TorchAoConfig

    if kind == "bnb_int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    if kind == "bnb_nf4":
        return BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
        )
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, Int8WeightOnlyConfig

    scheme = Int8WeightOnlyConfig if kind == "int8" else Int8DynamicActivationInt8WeightConfig
    return TorchAoConfig(scheme())


def is_quantised(model: nn.Module) -> bool:
    """Whether some of a model's weights are in fewer bits."""
    weights = model.parameters()
    return any(len(parts_of(w)) > 1 or not w.is_floating_point() for w in weights)


def refuse_nothing_quantised(model: Any, kind: Quantisation, name: str) -> None:
    """Refuse a model of which nothing was quantised, as of GPT-2's layers by torchao.

    Raises:
        PromptError: If no weight is in fewer bits.
    """
    if not is_quantised(model):
        raise PromptError(
            f"--lm.quantize {kind}: {name} ({model.config.model_type}) has no linear layers that "
            "it quantises, so nothing would be smaller; leave it out, or use --lm.dtype bfloat16."
        )


def parts_of(parameter: Tensor) -> list[Tensor]:
    """The plain tensors that a parameter is made of: itself, or quantised numbers and scales."""
    if type(parameter) in (Tensor, nn.Parameter) or not hasattr(parameter, "__tensor_flatten__"):
        return [parameter]
    names, _ = parameter.__tensor_flatten__()
    return [part for name in names for part in parts_of(getattr(parameter, name))]
