"""Initial prompts are rows of the table, of the asked length, the same for a seed."""

import json
from pathlib import Path

import pytest
import torch

from lightning_prompts.files.errors import PromptError
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.lm.verbalizer import Verbalizer
from lightning_prompts.tuners.prompt_init import (
    RECORD,
    FromCheckpoint,
    FromModel,
    FromText,
    FromVerbalizer,
    FromVocabulary,
)


@pytest.fixture(scope="module")
def verbalizer(lm: FrozenLM) -> Verbalizer:
    return Verbalizer({"0": " bad", "1": " good"}, lm)


def test_vocabulary_rows_by_seed(lm: FrozenLM, verbalizer: Verbalizer):
    first, again, other = (FromVocabulary(top=20)(lm, verbalizer, 50, s) for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    ids = {(lm.embedding_table == row).all(1).nonzero()[0, 0].item() for row in first}
    assert ids <= set(range(1, 21))  # the 20 most common tokens, the special one (id 0) left out
    assert len(ids) > 10


def test_vocabulary_needs_a_length(lm: FrozenLM, verbalizer: Verbalizer):
    with pytest.raises(PromptError, match=r"prompt_length"):
        FromVocabulary()(lm, verbalizer, None, 0)


@pytest.mark.parametrize(("length", "text"), [(None, "abc"), (2, "ab"), (5, "abcab")])
def test_text_is_repeated_or_cut_to_the_length(
    lm: FrozenLM, verbalizer: Verbalizer, length: int | None, text: str
):
    got = FromText("abc")(lm, verbalizer, length, 0)
    assert torch.equal(got, lm.embed(torch.tensor(lm.encode(text))))


def test_text_may_not_be_empty(lm: FrozenLM, verbalizer: Verbalizer):
    with pytest.raises(PromptError, match="empty"):
        FromText("")(lm, verbalizer, 3, 0)


def test_verbalizer_words(lm: FrozenLM, verbalizer: Verbalizer):
    got = FromVerbalizer()(lm, verbalizer, 3, 0)
    bad, good = verbalizer.token_ids
    assert torch.equal(got, lm.embed(torch.tensor([bad, good, bad])))


def test_a_length_of_zero_is_refused(lm: FrozenLM, verbalizer: Verbalizer):
    with pytest.raises(PromptError, match="is 0"):
        FromText("abc")(lm, verbalizer, 0, 0)


def record(lm: FrozenLM, fingerprint: str | None = None) -> dict[str, str]:
    return {"lm": lm.label, "lm_fingerprint": fingerprint or lm.fingerprint}


def test_checkpoint_and_prompt_file(lm: FrozenLM, verbalizer: Verbalizer, tmp_path: Path):
    vectors = torch.randn(3, lm.hidden_size)
    saved = {"state_dict": {"prompt": vectors}, RECORD: record(lm)}
    torch.save(saved, tmp_path / "a.ckpt")
    assert torch.equal(FromCheckpoint(str(tmp_path / "a.ckpt"))(lm, verbalizer, None, 0), vectors)
    made_with = {"label": lm.label, "fingerprint": lm.fingerprint}
    (tmp_path / "prompt.json").write_text(json.dumps({"ids": [5, 6], "lm": made_with}))
    got = FromCheckpoint(str(tmp_path / "prompt.json"))(lm, verbalizer, None, 0)
    assert torch.equal(got, lm.embed(torch.tensor([5, 6])))


def test_another_models_prompt_is_refused(lm: FrozenLM, verbalizer: Verbalizer, tmp_path: Path):
    vectors = torch.zeros(3, lm.hidden_size)
    saved = {"state_dict": {"prompt": vectors}, RECORD: record(lm, "0" * 16)}
    torch.save(saved, tmp_path / "a.ckpt")
    with pytest.raises(PromptError, match=f"weights {'0' * 16}.*{lm.fingerprint}"):
        FromCheckpoint(str(tmp_path / "a.ckpt"))(lm, verbalizer, None, 0)


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("a.ckpt", None, "no such file"),
        ("a.ckpt", b"not a checkpoint", "damaged"),
        ("a.json", b"{", "damaged"),
        ("a.json", b'{"ids": [1]}', "damaged"),
    ],
)
def test_a_damaged_prompt_is_said(
    lm: FrozenLM,
    verbalizer: Verbalizer,
    tmp_path: Path,
    name: str,
    content: bytes | None,
    named: str,
):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(PromptError, match=named):
        FromCheckpoint(str(tmp_path / name))(lm, verbalizer, None, 0)


def test_what_the_model_writes(lm: FrozenLM, verbalizer: Verbalizer):
    """With one token to choose from it is the likeliest, after BOS, the text and what it wrote."""
    ids = [lm.bos_id, *lm.encode("A film")]
    for _ in range(5):
        logits = lm.model(torch.tensor([ids])).logits[0, -1]
        logits[lm.special_ids] = -torch.inf
        ids.append(logits.argmax().item())
    likeliest = FromModel("A film", top_k=1)(lm, verbalizer, 5, 0)
    assert torch.equal(likeliest, lm.embed(torch.tensor(ids[-5:])))
    cold = FromModel("A film", temperature=1e-6)(lm, verbalizer, 5, 3)
    assert torch.equal(cold, likeliest)
    assert FromModel("")(lm, verbalizer, 3, 0).shape == (3, lm.hidden_size)

    first, again, other = (FromModel("A film")(lm, verbalizer, 8, s) for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_what_the_model_writes_comes_by_its_probability(lm: FrozenLM, verbalizer: Verbalizer):
    logits = lm.model(torch.tensor([[lm.bos_id, *lm.encode("ab")]])).logits[0, -1].double()
    logits[lm.special_ids] = -torch.inf
    best = logits.topk(3)
    shares = (best.values / 3.0).softmax(-1)
    init = FromModel("ab", top_k=3, temperature=3.0)
    rows = lm.embed(best.indices)
    drawn = [(init(lm, verbalizer, 1, s) == rows).all(1).nonzero()[0, 0].item() for s in range(600)]
    for place, share in enumerate(shares.tolist()):
        error = (share * (1 - share) / 600) ** 0.5
        assert drawn.count(place) / 600 == pytest.approx(share, abs=4 * error)


@pytest.mark.parametrize(
    ("options", "length", "named"),
    [
        ({}, None, r"prompt_length"),
        ({}, 254, "256 positions"),
        ({"top_k": 0}, 3, "top_k is 0"),
        ({"temperature": 0.0}, 3, "temperature is 0.0"),
    ],
)
def test_what_the_model_cannot_write(
    lm: FrozenLM, verbalizer: Verbalizer, options: dict[str, float], length: int | None, named: str
):
    with pytest.raises(PromptError, match=named):
        FromModel("abc", **options)(lm, verbalizer, length, 0)
