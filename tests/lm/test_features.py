"""Hidden states at a layer, against whole models run on one text at a time."""

import pytest
import torch
from torch import nn
from transformers import (
    GPT2Config,
    GPT2Model,
    LlamaConfig,
    LlamaModel,
    OPTConfig,
    OPTModel,
    RobertaConfig,
    RobertaModel,
)

from lightning_prompts.files.errors import PromptError
from lightning_prompts.lm import features
from lightning_prompts.lm.features import (
    first_layers,
    hidden_states,
    num_layers,
    pooled_states,
    resolve_layer,
    text_states,
)
from lightning_prompts.lm.frozen import FrozenLM

LAYERS = 3
PAD = 1
ROWS = [[5, 6, 7, 8, 9], [10], [11, 12, 13], [5, 6], [14, 15, 16, 17, 18, 19, 20]]
TEXTS = ["A mess.", "", "Great cast, good songs.", "Fine work!"]


def tiny(kind: str) -> nn.Module:
    size = {"vocab_size": 40, "num_hidden_layers": LAYERS, "num_attention_heads": 2}
    wide = {"hidden_size": 16, "initializer_range": 0.3, "max_position_embeddings": 64}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        match kind:
            case "gpt2":
                model = GPT2Model(
                    GPT2Config(vocab_size=40, n_embd=16, n_layer=LAYERS, n_head=2, n_positions=64)
                )
            case "llama":
                model = LlamaModel(LlamaConfig(**size, **wide, intermediate_size=32))
            case "opt":  # its layers lie one module deeper
                model = OPTModel(
                    OPTConfig(**size, hidden_size=16, ffn_dim=32, word_embed_proj_dim=16)
                )
            case _:
                model = RobertaModel(
                    RobertaConfig(**size, **wide, intermediate_size=32, pad_token_id=PAD),
                    add_pooling_layer=False,
                )
        for parameter in model.parameters():  # a final norm of ones would go unnoticed
            parameter.data += 0.1 * torch.randn_like(parameter)
    return model.eval()


def reference(model: nn.Module, ids: list[int], layer: int, norm: nn.Module | None) -> torch.Tensor:
    """The state after `layer` layers of the whole model, alone in its batch, after its norm."""
    out = model(input_ids=torch.tensor([ids]), output_hidden_states=True)
    if layer == LAYERS:
        return out.last_hidden_state[0]
    state = out.hidden_states[layer][0]
    return state if norm is None else norm(state)


@pytest.mark.parametrize("layer", [1, 2, 3])
@pytest.mark.parametrize(
    ("kind", "norm"),
    [("gpt2", "ln_f"), ("llama", "norm"), ("opt", "decoder.final_layer_norm"), ("roberta", None)],
)
@torch.no_grad()
def test_states_are_those_of_the_whole_model(kind: str, norm: str | None, layer: int, monkeypatch):
    monkeypatch.setattr(features, "BATCH_TOKENS", 9)  # several batches, padding in some
    model = tiny(kind)
    pad_id = PAD if kind == "roberta" else None
    states = hidden_states(model, ROWS, layer, pad_id)
    end = model.get_submodule(norm) if norm else None
    for ids, state in zip(ROWS, states, strict=True):
        assert state.dtype == torch.float32
        torch.testing.assert_close(state, reference(model, ids, layer, end), atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_the_model_itself_stays_whole():
    model = tiny("llama")
    before = model(input_ids=torch.tensor([ROWS[0]]))[0]
    cut = first_layers(model, 1)
    assert len(cut.layers) == 1
    assert cut.layers[0] is model.layers[0]
    assert len(model.layers) == num_layers(model) == LAYERS
    assert torch.equal(model(input_ids=torch.tensor([ROWS[0]]))[0], before)
    assert first_layers(model, LAYERS) is model


def test_layers_that_are_not_in_one_list_are_refused():
    model = tiny("gpt2")
    model.h = nn.ModuleDict({str(i): layer for i, layer in enumerate(model.h)})
    with pytest.raises(PromptError, match="not in one list"):
        first_layers(model, 1)


@torch.no_grad()
def test_text_states_have_bos_and_eos_as_asked(lm: FrozenLM):
    for bos, eos in ((True, True), (True, False), (False, True), (False, False)):
        states = text_states(lm, TEXTS, 2, bos, eos)
        for text, state in zip(TEXTS, states, strict=True):
            ids = [lm.bos_id] * bos + lm.encode(text) + [lm.bos_id] * eos  # its EOS is its BOS
            assert state.shape == (len(ids), lm.hidden_size)
            if ids:
                expected = lm.model.base_model(input_ids=torch.tensor([ids]))[0][0]
                torch.testing.assert_close(state, expected, atol=1e-5, rtol=1e-4)
    assert text_states(lm, [], 1) == []


def test_a_long_text_is_cut_to_the_model(lm: FrozenLM):
    long = "x" * 300
    whole, short = text_states(lm, [long, "x" * 254], 1, eos=True)
    assert len(whole) == lm.max_positions == 256
    torch.testing.assert_close(whole, short)


@pytest.mark.parametrize("pooling", ["mean", "last"])
@torch.no_grad()
def test_pooling_leaves_bos_out(lm: FrozenLM, pooling: str):
    vectors = pooled_states(lm, TEXTS, 1, pooling)
    assert vectors.shape == (len(TEXTS), lm.hidden_size)
    for text, vector in zip(TEXTS, vectors, strict=True):
        ids = torch.tensor([[lm.bos_id, *lm.encode(text)]])
        model = lm.model.base_model
        states = model.ln_f(model(input_ids=ids, output_hidden_states=True).hidden_states[1])[0]
        tokens = states[1:] if text else states
        expected = sum(tokens) / len(tokens) if pooling == "mean" else tokens[-1]
        torch.testing.assert_close(vector, expected, atol=1e-5, rtol=1e-4)
    assert pooled_states(lm, [], 1, pooling).shape == (0, lm.hidden_size)


def test_autocast_is_the_callers(lm: FrozenLM):
    exact = pooled_states(lm, TEXTS, 2, "mean")
    with torch.autocast("cpu", torch.bfloat16):
        rough = pooled_states(lm, TEXTS, 2, "mean")
    assert rough.dtype == torch.float32
    assert not torch.equal(exact, rough)
    torch.testing.assert_close(exact, rough, atol=0.2, rtol=0.1)


@pytest.mark.parametrize("layer", [0, -1, 13, 1.5])
def test_a_layer_that_is_not_there_is_refused(layer: float):
    with pytest.raises(PromptError, match="12 layers"):
        resolve_layer(layer, 12)
