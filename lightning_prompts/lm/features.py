"""Hidden states of a frozen model at one of its layers, for whole texts."""

import copy
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lightning_prompts.files.errors import PromptError
from lightning_prompts.lm.backbone import Backbone

Pooling = Literal["mean", "last"]

# Tokens of one forward pass, padding included: more than this gains nothing on two cores.
BATCH_TOKENS = 1024


def resolve_layer(layer: float | None, depth: int, default: float = 0.5) -> int:
    """Number of layers to run, from a number or a share of a model's depth.

    Args:
        layer: A whole number from 1 counts layers; a number between 0 and 1 is a share of them;
            None is the default.
        depth: Layers of the model.
        default: Share for None.

    Returns:
        From 1 to `depth`.

    Raises:
        PromptError: If there is no such layer.

    >>> resolve_layer(0.5, 30), resolve_layer(7, 30), resolve_layer(None, 12)
    (15, 7, 6)
    """
    wanted = default if layer is None else layer
    found = max(1, round(wanted * depth)) if 0 < wanted < 1 else int(wanted)
    if not 1 <= found <= depth or (wanted >= 1 and found != wanted):
        raise PromptError(
            f"Layer {wanted:g}: the model has {depth} layers; give a whole number from 1 to "
            f"{depth}, or a share of them such as 0.5."
        )
    return found


def num_layers(model: nn.Module) -> int:
    """Layers of a model of transformers."""
    config: Any = model.config
    return int(config.get_text_config().num_hidden_layers)


def first_layers(model: nn.Module, count: int) -> nn.Module:
    """The same model as if it ended after `count` layers; the weights are shared, not copied.

    A final norm, where the model has one, still ends it (bert-score cuts models in this way).

    Args:
        model: A model of transformers without its head.
        count: From 1 to its number of layers.

    Raises:
        PromptError: If its layers cannot be found.
    """
    depth = num_layers(model)
    if count == depth:
        return model
    stacks = (
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == depth
    )
    path = next(stacks, None)
    if path is None:
        raise PromptError(
            f"The layers of {type(model).__name__} are not in one list, so it cannot be read at "
            f"layer {count}; use its last layer, {depth}, or another model."
        )
    cut = here = _shallow(model)
    *parents, last = path.split(".")
    for name in parents:
        here._modules[name] = here = _shallow(here.get_submodule(name))
    here._modules[last] = here.get_submodule(last)[:count]  # type: ignore[index]
    return cut


@torch.no_grad()
def hidden_states(
    model: nn.Module, token_rows: Sequence[Sequence[int]], layer: int, pad_id: int | None = None
) -> list[Tensor]:
    """Hidden states of token sequences, under the caller's autocast.

    Rows of similar length share a forward pass, padded on the right.

    Args:
        model: A model of transformers without its head, in eval mode.
        token_rows: N sequences of n_i >= 1 tokens.
        layer: Layers to run, from 1; the rest of the model costs nothing.
        pad_id: What fills up a row, for models that look in both directions; they get a mask. None
            for a causal model, where padding on the right changes nothing.

    Returns:
        N tensors [n_i, H], float32, on the model's device.
    """
    cut = first_layers(model, layer)
    device = next(model.parameters()).device
    found: list[Tensor] = [torch.empty(0)] * len(token_rows)
    for indices in _batches([len(row) for row in token_rows]):
        rows = [torch.tensor(token_rows[i]) for i in indices]
        ids = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=pad_id or 0)
        options: dict[str, Any] = {}
        if pad_id is not None:
            lengths = torch.tensor([len(row) for row in rows])
            mask = torch.arange(ids.shape[1]) < lengths[:, None]
            options["attention_mask"] = mask.long().to(device)
        else:
            options["use_cache"] = False
        states = cut(input_ids=ids.to(device), **options)[0].float()  # (B, T, H)
        for index, row, length in zip(indices, states, map(len, rows), strict=True):
            found[index] = row[:length]
    return found


def text_states(
    lm: Backbone, texts: Sequence[str], layer: int, bos: bool = True, eos: bool = False
) -> list[Tensor]:
    """Hidden states of texts under the frozen language model, under the caller's autocast.

    Args:
        lm: The frozen language model.
        texts: N texts; what is longer than the model is cut at its end.
        layer: Layers to run, from 1.
        bos: Whether BOS comes before each text. A causal model's first position is unlike all
            others whatever stands there; with BOS it is not the text's own.
        eos: Whether EOS (BOS for a model without) comes after each text.

    Returns:
        N tensors [n_i, H], float32, BOS and EOS included. Without either, an empty text has n_i 0.

    Raises:
        PromptError: If a text needs a token that the model does not have.
    """
    end = [lm.bos_id if lm.eos_id is None else lm.eos_id] if eos else []
    start = [lm.bos_id] if bos else []
    room = lm.max_positions - len(start) - len(end)
    rows = [start + ids[:room] + end for ids in lm.encode_all(texts)]
    full = [i for i, row in enumerate(rows) if row]
    states = hidden_states(lm.body, [rows[i] for i in full], layer)
    found = [lm.embedding_table.new_empty(0, lm.state_size).float()] * len(rows)
    for index, state in zip(full, states, strict=True):
        found[index] = state
    return found


def pooled_states(lm: Backbone, texts: Sequence[str], layer: int, pooling: Pooling) -> Tensor:
    """One vector a text: the mean over its tokens or the last of them, BOS left out.

    Args:
        lm: The frozen language model.
        texts: N texts.
        layer: Layers to run, from 1.
        pooling: `mean` or `last`.

    Returns:
        [N, H], float32; the state of BOS for an empty text.
    """
    vectors = [torch.empty(0, lm.state_size, device=lm.embedding_table.device)]
    for state in text_states(lm, texts, layer):
        tokens = state[1:] if len(state) > 1 else state
        vectors.append(tokens.mean(0, keepdim=True) if pooling == "mean" else tokens[-1:])
    return torch.cat(vectors)


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Indices by length, in stretches of at most `BATCH_TOKENS` padded tokens."""
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and (len(batch) + 1) * lengths[index] > BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def _shallow(module: nn.Module) -> nn.Module:
    """A copy that shares everything with the module but the list of its children."""
    copied = copy.copy(module)
    copied._modules = dict(module._modules)
    return copied
