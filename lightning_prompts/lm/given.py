"""A model and a tokenizer that are already in memory: whether they are one language model."""

import copy
from pathlib import Path
from typing import Any

from lightning_prompts.files.errors import PromptError, first_line
from lightning_prompts.lm.kernels import use_attention


def name_of(model: Any, name: str | None) -> tuple[str, str]:
    """A model's name, and what tables call it: where it was read from, else its class."""
    config = getattr(model, "config", None)
    name = name or getattr(config, "_name_or_path", None) or type(model).__name__
    path = Path(name)
    return name, path.resolve().name if path.is_dir() else name


def fitting(model: Any, tokenizer: Any, label: str) -> Any:
    """A copy of the tokenizer, if both are what they have to be.

    Args:
        model: To check.
        tokenizer: Of the model; its settings may be changed in the copy.
        label: The model's name.

    Raises:
        PromptError: If the model is not of transformers, is not causal or does not
            lie on one device, or if the tokenizer is another model's.
    """
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    if not isinstance(model, PreTrainedModel):
        raise PromptError(
            f"{type(model).__name__} is no model of transformers; give one that "
            "AutoModelForCausalLM reads (of an adapter, what peft's merge_and_unload returns)."
        )
    head = model.get_output_embeddings()
    if model.config.is_encoder_decoder or head is None:
        raise PromptError(
            f"{label}: {type(model).__name__} is no causal language model with a head for the next "
            "token; read it with AutoModelForCausalLM."
        )
    places = sorted({str(parameter.device) for parameter in model.parameters()})
    if len(places) > 1 or places == ["meta"]:
        raise PromptError(
            f"{label}: its weights lie on {', '.join(places)}; read it onto one device, without "
            "device_map."
        )
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise PromptError(
            f"{label}: {type(tokenizer).__name__} is no tokenizer of transformers; give what "
            "AutoTokenizer reads."
        )
    table: Any = model.get_input_embeddings().weight
    rows = len(table)
    # Some tables have rows to spare, and some tokenizers got tokens that the model never had.
    if tokenizer.vocab_size > rows or 2 * len(tokenizer) < rows:
        raise PromptError(
            f"The tokenizer has {len(tokenizer)} tokens and {label} embeddings for {rows}, so it "
            "is another model's; give the one that the model was trained with."
        )
    return copy.copy(tokenizer)


def attend(model: Any, implementation: str, label: str) -> None:
    """Give a model the attention that is asked for, in place.

    Raises:
        PromptError: If it is not to be had.
    """
    if implementation == "auto":
        use_attention(model)
        return
    try:
        model.set_attn_implementation(implementation)
    except (ValueError, ImportError) as error:
        raise PromptError(
            f"{label}: the attention {implementation} is not to be had here ({first_line(error)}); "
            "leave it out, which takes what the model has."
        ) from error
