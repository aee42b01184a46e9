"""A model and tokenizer in memory: the numbers of the same model from its folder, or a refusal."""

from collections.abc import Callable
from operator import eq
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from lightning_prompts.files.errors import PromptError
from lightning_prompts.lm.batch import collate
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.lm.template import Template

IDS = torch.randint(1, 100, (3, 7), generator=torch.Generator().manual_seed(0))
SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}


@pytest.fixture
def model(lm_folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(lm_folder)


@pytest.fixture
def tokenizer(lm_folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(lm_folder)


@pytest.mark.parametrize("text", ["{prompt} {text} It was", "{text}{prompt}"])
@pytest.mark.parametrize(
    "options", [{}, {"attn_implementation": "eager"}, {"reuse_prompt": False}, {"add_bos": True}]
)
def test_the_numbers_are_those_of_its_folder(
    lm_folder: Path, model: Any, tokenizer: Any, text: str, options: dict[str, Any]
):
    found = []
    for lm in (FrozenLM(str(lm_folder), **options), FrozenLM.wrap(model, tokenizer, **options)):
        template = Template(text, lm)
        rows = [template.encode({"text": row}) for row in ("A fine film.", "Dull")]
        prompts = lm.embed(IDS).clone().requires_grad_()
        hidden = lm.answers(prompts, collate(rows, [0, 1], [0, 1]))
        (grad,) = torch.autograd.grad(lm.logits(hidden).sum(), prompts)
        found.append([hidden, grad, lm.token_nll(IDS), lm.fingerprint, lm.ways, lm.prefix_ids])
        found[-1] += [lm.name, lm.label, lm.revision]
    for loaded, wrapped in zip(*found, strict=True):
        assert (torch.equal if isinstance(loaded, torch.Tensor) else eq)(loaded, wrapped)


def test_little_of_it_is_changed(model: Any, tokenizer: Any, lm: FrozenLM, tmp_path: Path):
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    longest = tokenizer.model_max_length
    wrapped = FrozenLM.wrap(model, tokenizer)
    assert wrapped.model is model
    assert not any(module.training for module in model.modules())
    assert not any(parameter.requires_grad for parameter in model.parameters())
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert tokenizer.model_max_length == longest
    again = FrozenLM.wrap(model, tokenizer, name="twice")
    assert (again.name, again.label) == ("twice", "twice")
    assert torch.equal(again.token_nll(IDS), lm.token_nll(IDS))
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    saved = FrozenLM(str(tmp_path))
    assert saved.fingerprint == lm.fingerprint
    assert torch.equal(saved.token_nll(IDS), lm.token_nll(IDS))


def test_one_that_was_read_from_nowhere_has_its_class_s_name(tokenizer: Any):
    config = LlamaConfig(vocab_size=len(tokenizer), intermediate_size=16, **SMALL)
    lm = FrozenLM.wrap(LlamaForCausalLM(config).to(torch.bfloat16), tokenizer)
    assert (lm.name, lm.label, lm.revision) == ("LlamaForCausalLM", "LlamaForCausalLM", None)
    assert lm.embedding_table.dtype == torch.bfloat16


def gpt2(**options: Any) -> GPT2LMHeadModel:
    ends = {"bos_token_id": 0, "eos_token_id": 0}
    return GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=2, n_head=2, **ends, **options))


def meta() -> nn.Module:
    with torch.device("meta"):
        return gpt2(vocab_size=101)


def other_head() -> nn.Module:
    model = gpt2(vocab_size=101)
    model.lm_head = nn.Sequential(nn.Linear(16, 101), nn.Tanh())
    return model


def both_ways() -> nn.Module:
    """Bidirectional; its head is a linear one, as far as one can see."""
    config = BertConfig(vocab_size=101, intermediate_size=16, initializer_range=1.0, **SMALL)
    return BertForMaskedLM(config)


def two_stacks() -> nn.Module:
    return T5ForConditionalGeneration(
        T5Config(vocab_size=101, d_model=16, d_ff=16, num_layers=1, num_heads=2, d_kv=8)
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.Linear(2, 2), "Linear is no model of transformers; give one that"),
        (lambda: AutoModel.from_config(gpt2().config), "GPT2Model is no causal .* with a head"),
        (two_stacks, "T5ForConditionalGeneration is no causal language model"),
        (both_ways, r"lets a token change what stands before it \(is_decoder is false"),
        (other_head, "has no linear head for the next token"),
        (meta, "its weights lie on meta; read it onto one device"),
        (lambda: gpt2(vocab_size=60), "has 101 tokens and GPT2LMHeadModel embeddings for 60"),
        (lambda: gpt2(vocab_size=500), "has 101 tokens and GPT2LMHeadModel embeddings for 500"),
    ],
)
def test_what_is_no_causal_model_with_its_tokenizer(
    make: Callable[[], nn.Module], message: str, tokenizer: Any
):
    with pytest.raises(PromptError, match=message) as raised:
        FrozenLM.wrap(make(), tokenizer)
    assert str(raised.value).count(". ") == 0  # one sentence


def test_other_mistakes_are_said_in_a_sentence(model: Any, tokenizer: Any):
    with pytest.raises(PromptError, match="Tokenizer is no tokenizer of transformers"):
        FrozenLM.wrap(model, tokenizer.backend_tokenizer)
    with pytest.raises(PromptError, match="attention flash_attention_2 is not to be had here"):
        FrozenLM.wrap(model, tokenizer, attn_implementation="flash_attention_2")
    with pytest.raises(PromptError, match="text_cache is -1"):
        FrozenLM.wrap(model, tokenizer, text_cache=-1)
    assert model.config._attn_implementation == "sdpa"
    assert all(parameter.requires_grad for parameter in model.parameters())
