"""A model's weights are whole, or the model is refused in one sentence."""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    LlamaModel,
)

from lightning_prompts.cli.main import main
from lightning_prompts.files.errors import PromptError
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.lm.loading import load_encoder, load_text_classifier
from lightning_prompts.tuners.rl.policy import PolicySettings, other_writer

Weights = dict[str, Tensor]
TABLE, HEAD, FIRST = "transformer.wte.weight", "lm_head.weight", "transformer.h.0.ln_1.bias"


@pytest.fixture(scope="module")
def llama_folder(lm_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A llama with a head of its own, and the tiny model's tokenizer."""
    folder = tmp_path_factory.mktemp("llama")
    save_llama(folder, lm_folder, LlamaForCausalLM)
    return folder


def save_llama(folder: Path, lm_folder: Path, kind: type, **config: object) -> None:
    """Save a random llama of 2 layers, H=16, V=101."""
    for file in lm_folder.glob("token*"):
        shutil.copy(file, folder)
    sizes = {"vocab_size": 101, "hidden_size": 16, "intermediate_size": 32, "pad_token_id": 0}
    sizes |= {"num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 256}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        kind(LlamaConfig(**sizes, initializer_range=0.2, **config)).save_pretrained(folder)


def changed(
    folder: Path, into: Path, change: Callable[[Weights], Weights], **config: object
) -> str:
    """A copy of a model with other weights, and other values in its config.json."""
    shutil.copytree(folder, into, dirs_exist_ok=True)
    file = into / "model.safetensors"
    save_file(change(load_file(file)), file, {"format": "pt"})
    if config:
        written = json.loads((into / "config.json").read_text())
        (into / "config.json").write_text(json.dumps({**written, **config}))
    return str(into)


def before(prefix: str) -> Callable[[Weights], Weights]:
    return lambda weights: {prefix + key: value for key, value in weights.items()}


def without(part: str) -> Callable[[Weights], Weights]:
    return lambda weights: {key: value for key, value in weights.items() if part not in key}


def number(key: str, value: float) -> Callable[[Weights], Weights]:
    def change(weights: Weights) -> Weights:
        weights[key].view(-1)[5] = value
        return weights

    return change


def same(weights: Weights) -> Weights:
    return weights


def adapted(weights: Weights) -> Weights:
    """As peft keeps them: an adapter apart from each weight that it changes."""
    split = {key: value for key, value in weights.items() if "q_proj" not in key}
    for key in weights.keys() - split.keys():
        split[key.replace("q_proj", "q_proj.base_layer")] = weights[key]
        split[key.replace("q_proj", "q_proj.lora_A.default")] = torch.zeros(2, 16)
    return split


@pytest.mark.parametrize(
    ("change", "config", "says"),
    [
        (before("module."), {}, rf"28 of its 28 .* first is {TABLE}\) .* as module\.{TABLE}"),
        (before("_orig_mod."), {}, rf"28 of its 28 .* as _orig_mod\.{TABLE}"),
        (without(".h.1."), {}, r"12 of its 28 weights are missing .*h\.1\.ln_1\.weight"),
        (without(FIRST), {}, rf"1 of its 28 weights is missing .*{FIRST}"),
        (without(TABLE), {}, rf"1 of its 28 weights is missing .*{TABLE}"),
        (without(""), {}, "28 of its 28 weights are missing"),
        (same, {"n_layer": 3}, r"12 of its 40 .*h\.2\.ln_1\.weight"),
        (same, {"n_layer": 1}, r"no place for 11 of the weights .*h\.1\."),
        (same, {"vocab_size": 90}, rf"{TABLE} has the size \[101, 16\] .* \[90, 16\] by config"),
        (number(TABLE, torch.nan), {}, rf"{TABLE} has NaN or infinite numbers as float32"),
        (number(FIRST, torch.inf), {}, rf"{FIRST} has NaN or infinite"),
        (lambda weights: weights | {TABLE: torch.zeros(101, 16)}, {}, rf"{TABLE} is all zeros"),
    ],
)
def test_a_damaged_model_is_refused(
    lm_folder: Path,
    tmp_path: Path,
    change: Callable[[Weights], Weights],
    config: dict[str, object],
    says: str,
):
    name = changed(lm_folder, tmp_path, change, **config)
    with pytest.raises(PromptError, match=rf"^FrozenLM\(name=...\) {name}: .*{says}") as caught:
        FrozenLM(name)
    assert str(caught.value).count(". ") == 0  # one sentence


@pytest.mark.parametrize(
    ("change", "config", "says"),
    [
        (without(HEAD), {}, "1 of its 21 .* without its head"),
        (
            lambda w: {k.removeprefix("model."): v for k, v in w.items() if k != HEAD},
            {},
            rf"1 of its 21 .*{HEAD}.* without its head",
        ),
        (without(".layers.1."), {}, r"9 of its 21 .*layers\.1\."),
        (before("module."), {}, r"as module\.model\.embed_tokens\.weight"),
        (same, {"num_hidden_layers": 1}, r"no place for 9 of the weights .*layers\.1\."),
        (adapted, {}, "2 of its 21 .* an adapter is kept apart"),
        (
            lambda w: w | {"model.layers.0.self_attn.q_proj.bias": torch.ones(16)},
            {},
            r"no place for 1 of the weights .*q_proj\.bias",
        ),
        (
            lambda w: w | {"model.layers.1.self_attn.q_norm.weight": torch.ones(8)},
            {},
            r"no place for 1 of the weights .*q_norm\.weight",
        ),
        (
            lambda w: w | {"model.layers.0.mlp.up_proj.weight_scale_inv": torch.ones(1)},
            {},
            "no place for 1 of the weights .*weight_scale_inv",
        ),
    ],
)
def test_a_damaged_model_with_its_own_head_is_refused(
    llama_folder: Path,
    tmp_path: Path,
    change: Callable[[Weights], Weights],
    config: dict[str, object],
    says: str,
):
    name = changed(llama_folder, tmp_path, change, **config)
    with pytest.raises(PromptError, match=says):
        FrozenLM(name)


def test_weights_that_their_type_cannot_hold_are_refused(lm_folder: Path, tmp_path: Path):
    name = changed(lm_folder, tmp_path, lambda w: w | {TABLE: w[TABLE] * 1e7})
    with pytest.raises(PromptError, match=r"infinite numbers as float16; load it as float32"):
        FrozenLM(name, dtype="float16")
    assert FrozenLM(name, dtype="bfloat16").embedding_table.isfinite().all()


def test_names_from_the_base_model_are_fine_where_the_head_is_tied(
    lm_folder: Path, lm: FrozenLM, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """As gpt2 lies on the hub: `wte.weight`, masks that are computed today, and no head."""

    def as_published(weights: Weights) -> Weights:
        own = {key.removeprefix("transformer."): value for key, value in weights.items()}
        return own | {"h.0.attn.bias": torch.ones(1, 1, 256, 256)}

    with caplog.at_level(logging.INFO):
        found = FrozenLM(changed(lm_folder, tmp_path, as_published))
    assert caplog.messages == []
    assert found.fingerprint == lm.fingerprint
    for mine, theirs in zip(found.model.parameters(), lm.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_weights_beside_the_language_model_are_said(
    lm_folder: Path, lm: FrozenLM, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    extra = {"v_head.summary.weight": torch.ones(1, 16)}
    with caplog.at_level(logging.INFO):
        found = FrozenLM(changed(lm_folder, tmp_path, lambda weights: weights | extra))
    assert found.fingerprint == lm.fingerprint
    (message,) = caplog.messages
    assert "(1, the first is v_head.summary.weight)" in message


def test_a_head_in_the_file_is_read_whatever_config_says(llama_folder: Path, tmp_path: Path):
    lm = FrozenLM(changed(llama_folder, tmp_path, same, tie_word_embeddings=True))
    hidden = torch.randn(3, 16)
    in_file = load_file(tmp_path / "model.safetensors")[HEAD]
    torch.testing.assert_close(lm.logits(hidden), hidden @ in_file.T)


@pytest.mark.parametrize("alone", [True, False])
def test_an_adapter_is_no_model(lm_folder: Path, tmp_path: Path, alone: bool):
    """Beside a model it would count or not, as peft is installed or not."""
    if not alone:
        shutil.copytree(lm_folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    with pytest.raises(PromptError, match=r"adapter_config\.json.*merge_and_unload"):
        FrozenLM(str(tmp_path))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda parts: parts[1].unlink(), "00002-of-"),
        (lambda parts: shutil.copy(parts[0], parts[1]), "weights are missing"),
        (lambda parts: parts[1].write_bytes(parts[1].read_bytes()[:-50]), "not fully covered"),
    ],
)
def test_a_missing_or_damaged_shard_is_said(
    lm_folder: Path, tmp_path: Path, damage: Callable[[list[Path]], object], says: str
):
    shutil.copytree(lm_folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "model.safetensors").unlink()
    model = AutoModelForCausalLM.from_pretrained(lm_folder)
    model.save_pretrained(tmp_path, max_shard_size="12KB")
    assert FrozenLM(str(tmp_path))
    damage(sorted(tmp_path.glob("model-*.safetensors")))
    with pytest.raises(PromptError, match=says):
        FrozenLM(str(tmp_path))


def test_a_model_from_the_hubs_cache_is_looked_at_too(
    lm_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("lightning_prompts.files.hub.hub_reachable", lambda: False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    repository, commit = tmp_path / "models--owner--half", "0" * 40
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    changed(lm_folder, repository / "snapshots" / commit, without(".h.1."))
    with pytest.raises(PromptError, match=r"^FrozenLM\(name=...\) owner/half: 12 of its 28"):
        FrozenLM("owner/half")


def test_every_model_is_named_by_its_option(
    lm_folder: Path,
    lm: FrozenLM,
    review_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    name = changed(lm_folder, tmp_path / "half", without(".h.1."))
    args = ["fit", "--config", "configs/tuner/soft.yaml", "--config", "configs/task/sst2.yaml"]
    args += ["--lm.name", str(lm_folder), "--data.path", str(review_folder)]
    args += ["--data.verbalizer", "{positive: ' good', negative: ' bad'}"]
    args += ["--trainer.accelerator", "cpu", "--trainer.logger.init_args.save_dir", str(tmp_path)]
    with pytest.raises(SystemExit) as ended:
        main([*args, "--scrutability.scorer", name])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert f"--scrutability.scorer {name}: 12 of its 28 weights are missing" in error
    assert "Traceback" not in error
    with pytest.raises(PromptError, match=f"^policy.lm {name}: 12 of its 28 weights"):
        other_writer(PolicySettings(lm=name), lm)


def test_half_a_classifier_is_refused(lm_folder: Path, tmp_path: Path):
    """Not its head alone."""
    save_llama(tmp_path, lm_folder, LlamaForSequenceClassification, num_labels=2)
    assert load_text_classifier(str(tmp_path))
    half = changed(tmp_path, tmp_path / "half", without(".layers.1."))
    with pytest.raises(PromptError, match=r"^Style classifier .*9 of its 21 .*layers\.1\."):
        load_text_classifier(half)


def test_half_an_encoder_is_refused(lm_folder: Path, tmp_path: Path):
    save_llama(tmp_path, lm_folder, LlamaModel)
    assert load_encoder(str(tmp_path))
    half = changed(tmp_path, tmp_path / "half", without("layers.1."))
    with pytest.raises(PromptError, match=r"^Encoder .*9 of its 20 .*layers\.1\."):
        load_encoder(half)
