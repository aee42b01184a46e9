"""The states between a model's blocks: taken from one pass, and put into another.

Layer 0 is what the model reads, vectors in the place of tokens, before it adds positions; layer l
is what block l makes, l = 1 .. L. Dimensions: K rows, T tokens, P patched tokens, H hidden size, A
layers, N tokens that are written.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lightning_prompts.files.amounts import count
from lightning_prompts.files.errors import PromptError
from lightning_prompts.lm.backbone import Backbone, whole_cache


def find_blocks(lm: Backbone) -> tuple[nn.Module, str, nn.ModuleList] | None:
    """The model's decoder blocks, with the module that has them and their name there."""
    depth = getattr(lm.model.config.get_text_config(), "num_hidden_layers", None)
    found = (
        (parent, name, blocks)
        for parent in lm.model.modules()
        for name, blocks in parent.named_children()
        if isinstance(blocks, nn.ModuleList) and len(blocks) == depth
    )
    return next(found, None)


def num_blocks(lm: Backbone) -> int:
    """L.

    Raises:
        PromptError: If the blocks are not found.
    """
    return len(_blocks(lm))


@torch.no_grad()
def states_at(lm: Backbone, embeds: Tensor, layers: Sequence[int]) -> Tensor:
    """What stands at each token in some layers.

    Args:
        lm: The frozen language model.
        embeds: [K, T, H] What it reads.
        layers: A of 0 .. L.

    Returns:
        [A, K, T, H]

    Raises:
        PromptError: If the blocks are not found, or are of another width than the vectors.
    """
    found = {0: embeds}

    def keep(layer: int, states: Tensor) -> None:
        found[layer] = states

    with _watched(lm, layers, keep):
        lm.body(inputs_embeds=embeds, use_cache=False)
    if any(found[layer].shape != embeds.shape for layer in layers):
        raise PromptError(
            f"{lm.label} has states of another width than its embeddings, so they cannot stand in "
            "the place of one another; use another model, for example gpt2."
        )
    return torch.stack([found[layer].to(embeds.dtype) for layer in layers])


@torch.no_grad()
def continued(
    lm: Backbone, embeds: Tensor, patch: Tensor, start: int, layer: int, num_tokens: int
) -> Tensor:
    """What the model goes on with, greedily, where states of some tokens are replaced.

    Args:
        lm: The frozen language model.
        embeds: [K, T, H] What it reads; rows have no padding.
        patch: [K, P, H] What stands at the tokens start .. start + P - 1 behind block `layer`.
        start: Place of the first one.
        layer: 0 .. L - 1; behind the last block a token changes nothing but its own logits.
        num_tokens: N.

    Returns:
        [K, N] Token ids.

    Raises:
        PromptError: If the blocks are not found, or the rows are too long for the model.
    """
    places = slice(start, start + patch.shape[1])
    needed = embeds.shape[1] + num_tokens
    if needed > lm.max_positions:
        raise PromptError(
            f"The prompt in a sentence and what is written of it have {count(needed, 'token')}, "
            f"and {lm.label} has {lm.max_positions:,} positions; use a shorter prompt or another "
            "model."
        )
    rows = embeds.clone()
    if layer == 0:
        rows[:, places] = patch.to(rows.dtype)

    def put(_: int, states: Tensor) -> Tensor:
        states = states.clone()
        states[:, places] = patch.to(states.dtype)
        return states

    keeps = lm.ways.continued
    given = {"past_key_values": whole_cache()} if keeps else {}
    new, found = rows, list[Tensor]()
    for step in range(num_tokens):
        # What is kept has the patch in it.
        patched = [layer] if layer and (step == 0 or not keeps) else []
        with _watched(lm, patched, put):
            hidden = lm.body(inputs_embeds=new, use_cache=keeps, **given)[0][:, -1]
        # A head may have rows for which there is no embedding.
        found.append(lm.logits(hidden)[:, : lm.vocab_size].argmax(-1))
        new = lm.embed(found[-1])[:, None].to(rows.dtype)
        if not keeps:
            rows = new = torch.cat([rows, new], 1)
    return torch.stack(found, 1)


def _blocks(lm: Backbone) -> nn.ModuleList:
    found = find_blocks(lm)
    if found is None:
        raise PromptError(
            f"The blocks of {lm.label} ({lm.model.config.model_type}) are not found, so nothing "
            "can be taken from between them; use another model, for example gpt2."
        )
    return found[2]


@contextmanager
def _watched(
    lm: Backbone, layers: Sequence[int], call: Callable[[int, Tensor], Tensor | None]
) -> Iterator[None]:
    """Passes in which what blocks make is shown to a call, which may return something else."""
    blocks = _blocks(lm)
    with ExitStack() as hooks:
        for layer in {*layers} - {0}:

            def hook(_: nn.Module, __: Any, out: Any, layer: int = layer) -> Any:
                whole = isinstance(out, Tensor)
                changed = call(layer, out if whole else out[0])
                return None if changed is None else changed if whole else (changed, *out[1:])

            hooks.callback(blocks[layer - 1].register_forward_hook(hook).remove)
        yield
