"""Weights in fewer bits: what stays whole, what is refused, and whether gradients pass."""

import copy
import importlib.util
import json
import logging
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_prompts.files.errors import PromptError
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.lm.quantised import parts_of
from lightning_prompts.lm.template import Template
from lightning_prompts.lm.verbalizer import Verbalizer
from lightning_prompts.runs.prompt import load_prompt
from lightning_prompts.tuners.guided_search import GuidedSearch
from lightning_prompts.tuners.manual import ManualPrompt
from lightning_prompts.tuners.pez import PEZ
from lightning_prompts.tuners.record import LMRecord
from lightning_prompts.tuners.rlprompt import RLPrompt
from lightning_prompts.tuners.search.candidates import EditSettings
from lightning_prompts.tuners.soft import SoftPrompt
from tests.records import make_record
from tests.tiny_gguf import save_gguf

VERBALIZER = {"negative": " bad", "positive": " good"}


@pytest.fixture(scope="module")
def torchao() -> None:
    if importlib.util.find_spec("torchao") is None:
        pytest.skip("needs `pip install torchao`")


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny llama in a folder; GPT-2's layers are none that torchao knows."""
    folder = tmp_path_factory.mktemp("llama")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("LIGHTNING_PROMPTS_CACHE", str(folder / "cache"))
        lm = FrozenLM(str(save_gguf(folder / "tiny.gguf")[0]), attn_implementation="sdpa")
        lm.model.save_pretrained(folder / "model")
        lm.tokenizer.save_pretrained(folder / "model")
    return folder / "model"


@pytest.fixture(scope="module")
def models(torchao: None, llama: Path) -> dict[str | None, FrozenLM]:
    kinds: tuple[Any, ...] = (None, "int8", "int8_dynamic")
    return {kind: FrozenLM(str(llama), quantize=kind) for kind in kinds}


def gradient(lm: FrozenLM) -> Tensor:
    """Of a next token's log-probability with respect to a prompt in front of a text."""
    ids = torch.tensor(lm.encode(" good bad film"))
    prompt = lm.embed(ids[:2]).detach().requires_grad_()
    hidden = lm.states(torch.cat([prompt, lm.embed(ids)])[None])[0, -1]
    return torch.autograd.grad(lm.logits(hidden).log_softmax(-1)[5], prompt)[0]


def test_the_matrices_of_blocks_alone_are_quantised(models: dict[str | None, FrozenLM]):
    plain, small = models[None].model, models["int8"].model
    for name, parameter in small.named_parameters():
        whole = plain.get_parameter(name)
        inner = name.endswith("proj.weight")
        types = [part.dtype for part in parts_of(parameter)]
        assert types[:2] == ([torch.int8, torch.float32] if inner else [torch.float32]), name
        if inner:  # one scale a row, so half a step of 1/127 of its largest at most
            step = whole.abs().amax(1, keepdim=True) / 127
            assert ((parameter.dequantize() - whole).abs() <= 0.51 * step).all()
        else:
            assert torch.equal(parameter, whole)
    assert models["int8"].label == "model, int8"


def test_a_prompt_learns_from_it_nearly_as_from_the_whole(models: dict[str | None, FrozenLM]):
    whole, small = gradient(models[None]), gradient(models["int8"])
    assert F.cosine_similarity(whole.flatten(), small.flatten(), dim=0) > 0.99
    assert not torch.equal(whole, small)


def test_gradients_are_tried_whatever_way_a_model_was_loaded(
    models: dict[str | None, FrozenLM], llama: Path, tmp_path: Path
):
    assert [models[kind].gradients for kind in models] == [True, True, False]
    assert not gradient(models["int8_dynamic"]).any()  # which torch does not tell
    rounded = models["int8_dynamic"]
    assert not FrozenLM.wrap(rounded.model, rounded.tokenizer).gradients
    for kind, passes in (("int8", True), ("int8_dynamic", False)):
        fresh = FrozenLM(str(llama), quantize=kind, attn_implementation="sdpa")  # type: ignore[arg-type]
        fresh.model.save_pretrained(tmp_path / kind)
        fresh.tokenizer.save_pretrained(tmp_path / kind)
        saved = FrozenLM(str(tmp_path / kind))
        assert (saved.gradients, saved.fingerprint) == (passes, fresh.fingerprint)


def test_a_backward_pass_that_fails_is_no_gradient(llama: Path):
    class Forward(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.clone()

    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return Forward.apply(x)

    lm = FrozenLM(str(llama))
    lm.model.model.layers[0].self_attn.v_proj = nn.Sequential(
        lm.model.model.layers[0].self_attn.v_proj, Broken()
    )
    assert lm.gradients
    assert not FrozenLM.wrap(lm.model, lm.tokenizer).gradients


@pytest.mark.parametrize("tuner", [SoftPrompt, PEZ, GuidedSearch])
def test_tuners_that_learn_by_gradients_are_refused(
    models: dict[str | None, FrozenLM], tuner: type
):
    for kind, refused in (("int8", False), ("int8_dynamic", True)):
        lm = models[kind]
        parts = (lm, Template("{text}{prompt}", lm), Verbalizer(VERBALIZER, lm))
        if not refused:
            tuner(*parts, prompt_length=2)
            continue
        with pytest.raises(PromptError, match=f"{tuner.__name__} learns by gradients, and none"):
            tuner(*parts, prompt_length=2)


def test_tuners_that_learn_otherwise_go_on(models: dict[str | None, FrozenLM]):
    lm = models["int8_dynamic"]
    parts = (lm, Template("{text}{prompt}", lm), Verbalizer(VERBALIZER, lm))
    ManualPrompt(*parts, text=" good")
    RLPrompt(*parts, prompt_length=2)
    GuidedSearch(*parts, prompt_length=2, edits=EditSettings(proposals=1.0))


def test_a_model_without_linear_layers_is_refused(torchao: None, lm_folder: Path):
    with pytest.raises(PromptError, match=r"\(gpt2\) has no linear layers that it quantises"):
        FrozenLM(str(lm_folder), quantize="int8")


@pytest.mark.parametrize(("kind", "package"), [("int8", "torchao"), ("bnb_int8", "bitsandbytes")])
def test_a_missing_package_gives_the_command(
    llama: Path, monkeypatch: pytest.MonkeyPatch, kind: Any, package: str
):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(PromptError, match=f"{kind}'.* needs {package}; .* pip install {package}$"):
        FrozenLM(str(llama), quantize=kind)


def test_a_prompt_of_one_is_read_by_the_other_with_a_notice(
    models: dict[str | None, FrozenLM],
    lm: FrozenLM,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
):
    records = [LMRecord.of(model) for model in models.values()]
    assert len({record.fingerprint for record in records}) == 3
    assert len({record.kin for record in records}) == 1
    assert not records[0].fits(LMRecord.of(lm))
    assert not records[0].fits(replace(records[0], fingerprint="of another training"))

    small = models["int8"]
    setting = {"template": "{text}{prompt}", "verbalizer": VERBALIZER}
    record = make_record(lm=LMRecord.of(small), **setting)
    (tmp_path / "prompt.json").write_text(json.dumps(record.to_json()))
    with caplog.at_level(logging.WARNING):
        load_prompt(tmp_path / "prompt.json", small)
        assert caplog.messages == []
        load_prompt(tmp_path / "prompt.json", models[None])
    assert [message for message in caplog.messages if "made with model, int8" in message]
    assert load_prompt(tmp_path / "prompt.json").lm.quantize == "int8"
    with pytest.raises(PromptError, match="give the one that it was learned for"):
        load_prompt(tmp_path / "prompt.json", lm)


def test_it_goes_where_others_go(models: dict[str | None, FrozenLM]):
    """To a copy, another type of what is whole, and through saved states."""
    small = models["int8"]
    twin = copy.deepcopy(small)
    assert torch.allclose(gradient(twin), gradient(small), atol=1e-6)
    half = FrozenLM(small.name, quantize="int8", dtype="bfloat16")
    assert half.gradients
    assert half.kin == small.kin
    assert half.embedding_table.dtype == torch.bfloat16


def test_processes_do_not_send_quantised_weights(models: dict[str | None, FrozenLM]):
    """DDP would, at its beginning, and torchao has no such view of them."""
    for kind, count in ((None, 0), ("int8", 14)):
        lm = models[kind]
        parts = (lm, Template("{text}{prompt}", lm), Verbalizer(VERBALIZER, lm))
        tuner = SoftPrompt(*parts, prompt_length=2)
        ignored = set(tuner._ddp_params_and_buffers_to_ignore)
        named = dict(tuner.named_parameters())
        assert len(ignored) == count
        assert ignored == {name for name in named if len(parts_of(named[name])) > 1}


def test_weights_that_are_no_numbers_are_found(torchao: None, llama: Path, tmp_path: Path):
    broken = FrozenLM(str(llama), attn_implementation="sdpa")
    broken.model.model.layers[1].mlp.up_proj.weight.data[3, 2] = torch.nan
    broken.model.save_pretrained(tmp_path)
    broken.tokenizer.save_pretrained(tmp_path)
    with pytest.raises(PromptError, match=r"layers\.1\.mlp\.up_proj\.weight has NaN"):
        FrozenLM(str(tmp_path), quantize="int8")


@pytest.mark.slow
def test_gradients_of_a_real_model(torchao: None, smollm2_installed: None):
    texts = (" an hour too long , and a bore", " a warm and funny film", " nobody needed this")
    found: dict[str | None, list[Tensor]] = {None: [], "int8": []}
    for kind, gradients in found.items():
        lm = FrozenLM("smollm2", quantize=kind)  # type: ignore[arg-type]
        answer = lm.encode(" great")
        for before, after in ((False, True), (True, False)):
            ids = torch.tensor(lm.encode(" In one word, the movie was"))
            prompt = lm.embed(ids).detach().requires_grad_()
            loss = torch.zeros(())
            for text in texts:
                rows = lm.embed(torch.tensor(lm.encode(text)))
                whole = torch.cat([rows] * before + [prompt] + [rows] * after)
                hidden = lm.states(whole[None])[0, -1]
                loss = loss - lm.logits(hidden).log_softmax(-1)[answer].sum()
            gradients.append(torch.autograd.grad(loss, prompt)[0].flatten())
    for whole, small in zip(*found.values(), strict=True):
        assert F.cosine_similarity(whole, small, dim=0) >= 0.99
