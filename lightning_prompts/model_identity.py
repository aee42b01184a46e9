"""Which model it is, and whether it reads and answers in the way that is assumed everywhere."""

import hashlib
from typing import TYPE_CHECKING

import torch
from torch import nn

from lightning_prompts.errors import PromptError

if TYPE_CHECKING:
    from lightning_prompts.language_model import FrozenLM

# Of each parameter's numbers; a sample, because a model of gigabytes would take minutes.
SAMPLED = 64


def weights_digest(model: nn.Module, kind: str) -> str:
    """Hex digits of a kind of model and a sample of its weights.

    Rounded to bfloat16 first, so that float32 and bfloat16 weights agree; float16 rounds otherwise.
    """
    digest = hashlib.sha256(kind.encode())
    for parameter in model.parameters():
        numbers = parameter.detach().flatten()[:SAMPLED].to("cpu", torch.bfloat16)
        digest.update(numbers.view(torch.int16).numpy().tobytes())
    return digest.hexdigest()


@torch.no_grad()
def refuse_unknown(lm: "FrozenLM") -> None:
    """Refuse a model that reads embeddings or makes logits in a way that we do not know.

    Gemma, for one, scales its embeddings between the table and the first layer. Nor may a token
    change what stands before it.

    Raises:
        PromptError: If its logits are others than the model's own.
    """
    model = lm.model
    ids = torch.tensor([[lm.bos_id, 0, 1, 2]])
    expected = model(input_ids=ids, use_cache=False).logits.float()
    got = lm.logits(model.base_model(inputs_embeds=lm.embed(ids), use_cache=False)[0])
    other = model(input_ids=ids.clone().fill_(lm.bos_id)[:, :1], use_cache=False)
    apart = max((got - expected).abs().max(), (got[:, :1] - other.logits).abs().max())
    if apart > 0.02 * expected.abs().max():
        raise PromptError(
            f"{lm.label} ({model.config.model_type}) reads embeddings or computes logits in a way "
            "that lightning-prompts does not know; use another model, for example --lm.name gpt2."
        )
