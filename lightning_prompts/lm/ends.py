"""A model's two ends: what it reads for each token, and what it makes of its final states.

Between its table of embeddings and its first layer a model may scale (Gemma, BioGPT, MiniCPM3), and
behind its last layer transform (BERT, ModernBERT), scale or cap. All of it is the model's own call
here, found when it is loaded and compared with the model's own logits; nothing is assumed.
"""

import inspect
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from lightning_prompts.files.errors import PromptError, first_line
from lightning_prompts.files.numbers import wide
from lightning_prompts.lm.linear import linear

# What models do to the products with their head, by the names of it in their configurations:
# Granite and Inkling divide; Cohere and Falcon-H1 multiply; Gemma, NanoChat, RecurrentGemma and
# xLSTM cap them at c by c tanh(x / c).
DIVISORS = ("logits_scaling", "logits_mup_width_multiplier")
FACTORS = ("logit_scale", "lm_head_multiplier")
CAPS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")
# Share of the largest logit that rounding to these types may make.
ROUNDED = {torch.bfloat16: 0.02, torch.float16: 0.02}
TRIED = 8  # rows of the table that tell whether the model reads it as it is


class Ends:
    """The ends of one model, which stay the model's own modules.

    Args:
        model: Of transformers, frozen, in eval mode.
        name: For messages.

    Attributes:
        body: The model without its head; the first of what it returns is its final states.
        state_size: Width of the final states, which a few models widen behind their embeddings.
        tail: Modules behind the model's body that make its logits together, where a linear layer
            alone does not.

    Raises:
        PromptError: If it has no table of embeddings, or no head for the next token.
    """

    def __init__(self, model: Any, name: str) -> None:
        self.model, self.name = model, name
        self.tail: list[nn.Module] = []
        try:
            self.input, self.output = model.get_input_embeddings(), model.get_output_embeddings()
        except (AttributeError, NotImplementedError):
            self.input = self.output = None
        if not isinstance(getattr(self.input, "weight", None), Tensor):
            self._refuse("has no table with one embedding for each token")
        if not isinstance(self.output, nn.Linear):
            self._refuse("has no linear head for the next token")
        # Some name another part of theirs as their base.
        parts = (child for child in model.children() if self.input in child.modules())
        self.body: Any = next(parts, model) if model.base_model is model else model.base_model
        self._as_read: tuple[Any, Tensor] | None = None
        with torch.no_grad():
            ids = torch.arange(min(TRIED, len(self.own_table)), device=self.own_table.device)
            self.scales = not torch.equal(self.input(ids), self.own_table[ids])

    @property
    def own_table(self) -> Tensor:
        """[V, H] The embedding layer's weights."""
        return self.input.weight

    @property
    def table(self) -> Tensor:
        """[V, H] What the model reads for each token: where `inputs_embeds` live.

        The weights themselves, or a copy of them in the model's own scale.
        """
        own = self.own_table
        if not self.scales:
            return own
        made_of = (own.data_ptr(), own.dtype, own.device)
        if self._as_read is None or self._as_read[0] != made_of:
            with torch.no_grad():
                self._as_read = made_of, self.input(torch.arange(len(own), device=own.device))
        return self._as_read[1]

    def __getstate__(self) -> dict[str, Any]:
        """Without the copy: another process makes its own."""
        return vars(self) | {"_as_read": None}

    def logits(self, hidden: Tensor, token_ids: Tensor | None = None) -> Tensor:
        """See `Backbone.logits`."""
        # Without autocast: a bfloat16 logit of 20 is off by up to 0.06, and whole batches tie.
        with torch.autocast(hidden.device.type, enabled=False):
            weight, bias = self.output.weight, self.output.bias
            if self.tail:
                hidden = hidden.to(weight.dtype)
                for module in self.tail:
                    hidden = module(hidden)
                products = wide(hidden if token_ids is None else hidden[..., token_ids])
            else:
                if token_ids is not None:
                    weight = wide(weight[token_ids])
                    bias = None if bias is None else bias[token_ids]
                bias = None if bias is None else bias.to(weight.dtype)
                products = wide(linear(hidden.to(weight.dtype), weight, bias))
        return _own_logits(products, self.model.config.get_text_config())

    @torch.no_grad()
    def check(self, start: int) -> None:
        """Find how the model makes its logits, and compare both ends with its own pass.

        Args:
            start: Token that may begin a text.

        Raises:
            PromptError: If a token changes what stands before it, if vectors in the place of tokens
                give other numbers, or if the logits are made in a way that is not known here.
        """
        body, config = self.body, self.model.config.get_text_config()
        if "inputs_embeds" not in inspect.signature(self.model.forward).parameters:
            self._refuse("takes token ids alone, and no vectors in their place")
        by_layer = bool(getattr(config, "hidden_size_per_layer_input", None))
        apart = (start, getattr(config, "pad_token_id", None))  # some count no place for padding
        others = [i for i in range(5) if i not in apart][:3]
        ids = torch.tensor([[start, *others]], device=self.own_table.device)
        try:
            expected = self.model(input_ids=ids, use_cache=False).logits.float()
            shorter = self.model(input_ids=ids[:, :1], use_cache=False).logits.float()
        except Exception as error:  # whatever a model raises that wants more than tokens
            self._refuse(f"cannot read tokens alone ({first_line(error)})", error)
        if not expected.isfinite().all():
            self._refuse("gives logits that are no numbers")
        largest = expected.abs().max()
        # Of another length, where some models round in 8 bits.
        if not (shorter - expected[:, :1]).abs().max() <= 0.02 * largest:
            encoder = getattr(config, "is_decoder", None) is False
            why = " (is_decoder is false in its config.json)" if encoder else ""
            self._refuse(
                f"lets a token change what stands before it{why}, so it is no causal language model"
            )
        try:
            # Looked up twice: CTRL scales what it is given in place.
            whole = self.model(inputs_embeds=self.table[ids], use_cache=False).logits.float()
            hidden = body(inputs_embeds=self.table[ids], use_cache=False)[0]
            # Gemma 4 looks for the tokens that vectors belong to.
            body(inputs_embeds=0.9 * self.table[ids], use_cache=False)
        except Exception as error:  # likewise
            if not by_layer:
                # Other errors tell of its code, and nothing to who reads them.
                spoken = isinstance(error, ValueError | RuntimeError)
                detail = f" ({first_line(error)})" if spoken else ""
                self._refuse(f"does not read vectors in place of tokens{detail}", error)
            whole = expected.new_tensor(torch.nan)
        rounded = largest * ROUNDED.get(self.own_table.dtype, 1e-3)
        if not (whole - expected).abs().max() <= rounded:  # nor any NaN
            inputs = "an embedding for each layer" if by_layer else "more of each token"
            self._refuse(f"reads {inputs} beside the first one, which a prompt's vectors lack")
        self.state_size = hidden.shape[-1]
        behind = [module for module in self.model.children() if module is not body]
        for tail in ([], behind):
            self.tail = tail
            try:
                got = self.logits(hidden)
                if got.shape == expected.shape and (got - expected).abs().max() <= rounded:
                    return
            except Exception:  # modules that do not follow one another
                continue
        self._refuse("computes logits of its final states in a way that is not known here")

    def _refuse(self, why: str, error: Exception | None = None) -> NoReturn:
        raise PromptError(f"{self.name} {why}; use another model, for example gpt2.") from error


def _own_logits(products: Tensor, config: Any) -> Tensor:
    """[..., C] logits as a model makes them of the products with its head."""
    for name in DIVISORS:
        if (divisor := getattr(config, name, None)) is not None:
            products = products / divisor
    for name in FACTORS:
        if (factor := getattr(config, name, None)) is not None:
            products = products * factor
    for name in CAPS:
        if (cap := getattr(config, name, None)) is not None:
            products = cap * torch.tanh(products / cap)
    return products
