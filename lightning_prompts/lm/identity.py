"""Which model it is, and whether it reads and answers in the way that is assumed everywhere."""

import hashlib
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lightning_prompts.files.errors import PromptError

if TYPE_CHECKING:
    from lightning_prompts.lm.frozen import FrozenLM

# Of each parameter's numbers; a sample, because a model of gigabytes would take minutes.
SAMPLED = 64
# What models do to the products with their head, by the names of it in their configurations: Cohere
# and Falcon-H1 multiply; Gemma, NanoChat, RecurrentGemma and xLSTM cap them at c by c tanh(x / c).
FACTORS = ("logit_scale", "lm_head_multiplier")
CAPS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")
# Share of the largest logit that rounding to these types may make.
ROUNDED = {torch.bfloat16: 0.02, torch.float16: 0.02}


def weights_digest(model: nn.Module, kind: str) -> str:
    """Hex digits of a kind of model and a sample of its weights.

    Rounded to bfloat16 first, so that float32 and bfloat16 weights agree; float16 rounds otherwise.
    """
    digest = hashlib.sha256(kind.encode())
    for parameter in model.parameters():
        numbers = parameter.detach().flatten()[:SAMPLED].to("cpu", torch.bfloat16)
        digest.update(numbers.view(torch.int16).numpy().tobytes())
    return digest.hexdigest()


def own_logits(products: Tensor, config: Any) -> Tensor:
    """Logits as a model makes them of the products with its head.

    Args:
        products: [..., C]
        config: Of the model's text part.

    Returns:
        [..., C]
    """
    if (divisor := getattr(config, "logits_scaling", None)) is not None:  # Granite
        products = products / divisor
    for name in FACTORS:
        if (factor := getattr(config, name, None)) is not None:
            products = products * factor
    for name in CAPS:
        if (cap := getattr(config, name, None)) is not None:
            products = cap * torch.tanh(products / cap)
    return products


@torch.no_grad()
def refuse_unknown(lm: "FrozenLM") -> None:
    """Refuse a model that reads embeddings or makes logits in a way that we do not know.

    Gemma, for one, scales its embeddings between the table and the first layer. Nor may a token
    change what stands before it.

    Raises:
        PromptError: If its logits are others than the model's own, or it takes no embeddings.
    """
    model = lm.model
    ids = torch.tensor([[lm.bos_id, 0, 1, 2]])
    try:
        expected = model(input_ids=ids, use_cache=False).logits.float()
        got = lm.logits(model.base_model(inputs_embeds=lm.embed(ids), use_cache=False)[0])
        other = model(input_ids=ids.clone().fill_(lm.bos_id)[:, :1], use_cache=False)
        largest = expected.abs().max()
        apart = (got - expected).abs().max() / largest
        earlier = (got[:, :1] - other.logits).abs().max() / largest
    except Exception as error:  # whatever a model raises that is not made for this
        raise _unknown(lm) from error
    # The same computation, and one of another length, where some models round in 8 bits.
    if not (apart <= ROUNDED.get(lm.embedding_table.dtype, 1e-3) and earlier <= 0.02):
        raise _unknown(lm)


def _unknown(lm: "FrozenLM") -> PromptError:
    return PromptError(
        f"{lm.label} ({lm.model.config.model_type}) reads embeddings or computes logits in a way "
        "that lightning-prompts does not know; use another model, for example --lm.name gpt2."
    )
