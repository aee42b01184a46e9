"""Prompts moved between models: against plain numpy, and where the answer is known."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from lightning_prompts.files.errors import PromptError
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.lm.verbalizer import Verbalizer
from lightning_prompts.tuners.moved import MOST, EmbeddedTokens, move_prompt, moved
from lightning_prompts.tuners.prompt_init import RECORD, FromCheckpoint
from lightning_prompts.tuners.record import LMRecord
from tests.tiny import save_model


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def rotation(width: int) -> torch.Tensor:
    return torch.linalg.qr(drawn(width, width, seed=9).double()).Q


def test_it_is_the_nearest_relative_representation():
    """By numpy, from the definition; and no step away from it comes nearer."""
    vectors, source, target = drawn(3, 6), drawn(40, 6, seed=1), drawn(40, 9, seed=2) * 3
    found = move_prompt(vectors, source, target)
    v, s, t = (each.double().numpy() for each in (vectors, source, target))
    unit_t = t / np.sqrt((t**2).sum(1))[:, None]
    ratio = np.sqrt((t**2).sum(1)).mean() / np.sqrt((s**2).sum(1)).mean()
    for k in range(3):
        r = np.array([s[i] @ v[k] / np.linalg.norm(s[i]) / np.linalg.norm(v[k]) for i in range(40)])
        u = np.linalg.inv(unit_t.T @ unit_t) @ unit_t.T @ r
        expected = u / np.linalg.norm(u) * np.linalg.norm(v[k]) * ratio
        np.testing.assert_allclose(found[k].numpy(), expected, rtol=1e-4, atol=1e-5)

        def agreement(w, r=r):
            cosines = unit_t @ w / np.linalg.norm(w)
            return cosines @ r / np.linalg.norm(cosines) / np.linalg.norm(r)

        own = agreement(expected)
        steps = np.random.default_rng(k).normal(size=(50, 9))
        assert all(agreement(expected + 0.05 * step) < own for step in steps)


def test_a_rotated_and_scaled_space_has_the_rotated_and_scaled_vector():
    source, vectors, turn = drawn(30, 8), drawn(4, 8, seed=3), rotation(8)
    found = move_prompt(vectors, source, 2.5 * source.double() @ turn)
    torch.testing.assert_close(found, (2.5 * vectors.double() @ turn).float(), rtol=1e-4, atol=1e-5)


def test_odd_tables_are_no_fault():
    """A vector of 0, and a target whose embeddings span a part of its space alone."""
    source = drawn(30, 8)
    vectors = torch.stack([torch.zeros(8), drawn(8, seed=4)])
    wider = torch.cat([source, torch.zeros(30, 4)], dim=1)
    found = move_prompt(vectors.bfloat16(), source, wider)
    assert torch.equal(found[0], torch.zeros(12))
    expected = F.pad(vectors[1].bfloat16().float(), (0, 4))
    torch.testing.assert_close(found[1], expected, rtol=1e-4, atol=1e-5)


def test_anchors_are_the_tokens_of_equal_texts(lm: FrozenLM, tmp_path: Path):
    """The target has the tokens in other places, and its embeddings are the source's, turned."""
    save_model(tmp_path / "other", words=(" good", " film"))
    other = FrozenLM(str(tmp_path / "other"))
    turn = rotation(lm.hidden_size).float()
    table = other.model.get_input_embeddings().weight
    shared = {text: i for text, i in other.vocabulary.items() if text in lm.vocabulary}
    assert len({i == lm.vocabulary[text] for text, i in shared.items()}) == 2
    with torch.no_grad():
        for text, i in shared.items():
            table[i] = lm.embedding_table[lm.vocabulary[text]] @ turn
    source, target = EmbeddedTokens.of(lm), EmbeddedTokens.of(other)
    assert " bad" in source.ids
    assert " bad" not in target.ids
    assert not {source.ids.get(lm.decode([i])) for i in lm.special_ids} - {None}
    vectors = drawn(3, lm.hidden_size, seed=5)
    found = moved(vectors, source, target)
    torch.testing.assert_close(found, vectors @ turn, rtol=1e-3, atol=1e-3)
    same = moved(vectors, source, source)
    assert F.cosine_similarity(same, vectors).min() > 0.9999


def test_texts_of_two_tokens_are_no_anchors_and_few_suffice(monkeypatch: pytest.MonkeyPatch):
    table = drawn(MOST + 50, 2)
    every = EmbeddedTokens("all", {str(i): i for i in range(len(table))}, table)
    seen = []
    monkeypatch.setattr(
        "lightning_prompts.tuners.moved.move_prompt", lambda *rows: seen.append(rows) or rows[0]
    )
    moved(table[:1], every, every)
    assert torch.equal(seen[0][1], table[:MOST])  # the most frequent, which have the lowest ids
    few = EmbeddedTokens("few", {"1": 1}, table)
    with pytest.raises(PromptError, match="all and few have 1 tokens in common"):
        moved(table[:1], every, few)


# ---- as the start of a run


@pytest.fixture(scope="module")
def other_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("moved") / "other"
    save_model(folder, seed=1, characters="é")
    return folder


def test_a_run_starts_from_another_models_vectors(
    lm: FrozenLM, other_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    caplog.set_level("INFO", logger="lightning_prompts")
    other = FrozenLM(str(other_folder))
    vectors = drawn(3, other.hidden_size)
    record = {"lm": vars(LMRecord.of(other)), "record_version": 1}
    torch.save({"state_dict": {"prompt": vectors}, RECORD: record}, path := tmp_path / "a.ckpt")
    words = Verbalizer({"negative": " bad", "positive": " good"}, lm)
    found = FromCheckpoint(str(path))(lm, words, None, 0)
    expected = moved(vectors, EmbeddedTokens.of(other), EmbeddedTokens.of(lm))
    assert torch.equal(found, expected)
    assert F.cosine_similarity(found, vectors).abs().max() < 0.95  # another space
    assert [m for m in caplog.messages if "is of other: the start for tiny_gpt2" in m]

    model = AutoModelForCausalLM.from_pretrained(other_folder)
    torch.nn.init.normal_(model.get_input_embeddings().weight, generator=torch.Generator())
    model.save_pretrained(other_folder)
    with pytest.raises(PromptError, match=r"cannot be moved: .* has other weights now"):
        FromCheckpoint(str(path))(lm, words, None, 0)
    # Tokens are no vectors: their text can be given.
    torch.save({"state_dict": {"token_ids": torch.tensor([500])}, RECORD: record}, path)
    with pytest.raises(PromptError, match=r"is a prompt for other .* trained with\."):
        FromCheckpoint(str(path))(lm, words, None, 0)


def test_an_adapter_of_another_width_is_moved_where_it_names_its_model(
    lm: FrozenLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    vectors = drawn(2, 12)
    save_file({"prompt_embeddings": vectors}, adapter / "adapter_model.safetensors")
    config = {"peft_type": "PROMPT_TUNING", "base_model_name_or_path": "./none"}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    words = Verbalizer({"negative": " bad", "positive": " good"}, lm)
    with pytest.raises(PromptError, match=r"have 12 numbers, as \./none has"):
        FromCheckpoint(str(adapter))(lm, words, None, 0)
    own = EmbeddedTokens.of(lm)
    wide = EmbeddedTokens("wide", own.ids, drawn(len(own.table), 12, seed=7))
    monkeypatch.setattr("lightning_prompts.tuners.prompt_init.source_of", lambda _: wide)
    found = FromCheckpoint(str(adapter))(lm, words, None, 0)
    assert torch.equal(found, moved(vectors, wide, own))
