"""Style classifiers: the project's own folders, and Hugging Face text classifiers."""

import json
import string
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from torch import nn

from lightning_prompts.files.errors import PromptError
from lightning_prompts.lm.features import text_states
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.tuners.rewards.style.scorers import StyleHead, load_style, save_style

TEXTS = ["A mess.", "Great cast, good songs.", "Fine work!", "A mess.", "Cold, slow and loud."]


@pytest.fixture
def head(lm: FrozenLM) -> nn.Linear:
    head = nn.Linear(lm.hidden_size, 2)
    nn.init.normal_(head.weight, generator=torch.Generator().manual_seed(3))
    return head


def described(lm: FrozenLM, **changes: object) -> StyleHead:
    given = {"layer": 1, "pooling": "mean", "lm": lm.label, "fingerprint": lm.fingerprint}
    return StyleHead(**{"labels": ("bad", "good"), "accuracy": 0.9, **given, **changes})


@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_a_written_head_scores_as_by_hand(lm: FrozenLM, head: nn.Linear, tmp_path, pooling: str):
    folder = tmp_path / "logs" / "reward"
    save_style(folder, head, described(lm, pooling=pooling))
    scorer = load_style(str(folder), lm)
    assert (scorer.name, scorer.labels, scorer.accuracy) == (str(folder), ("bad", "good"), 0.9)
    assert scorer.lm is lm  # nothing is loaded twice
    found = scorer(TEXTS)
    assert found.dtype == torch.float32
    weight, bias = head.weight.double(), head.bias.double()
    for text, row in zip(TEXTS, found, strict=True):
        tokens = text_states(lm, [text], 1)[0][1:].double()
        vector = tokens.mean(0) if pooling == "mean" else tokens[-1]
        vector = (vector - vector.mean()) / (vector.var(correction=0) + 1e-5).sqrt()
        expected = (weight @ vector + bias).exp()
        torch.testing.assert_close(row.double(), expected / expected.sum(), atol=1e-5, rtol=1e-4)
    assert scorer([]).shape == (0, 2)


def test_a_new_run_replaces_the_folder_as_a_whole(lm: FrozenLM, head: nn.Linear, tmp_path):
    folder = tmp_path / "judge"
    save_style(folder, head, described(lm, accuracy=0.5))
    save_style(folder, head, described(lm, accuracy=0.75))
    assert load_style(str(folder), lm).accuracy == 0.75
    assert sorted(p.name for p in folder.iterdir()) == ["head.safetensors", "style.json"]
    assert [p.name for p in tmp_path.iterdir()] == ["judge"]  # no partial folder is left


def test_a_folder_of_something_else_is_not_replaced(lm: FrozenLM, head: nn.Linear, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(PromptError, match=r"thesis\.tex"):
        save_style(tmp_path, head, described(lm))
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_a_failed_write_keeps_the_old_one(lm: FrozenLM, head: nn.Linear, tmp_path, monkeypatch):
    folder = tmp_path / "reward"
    save_style(folder, head, described(lm))

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lightning_prompts.tuners.rewards.style.scorers.save_file", full)
    with pytest.raises(PromptError, match="No space left"):
        save_style(folder, head, described(lm, accuracy=0.1))
    assert load_style(str(folder), lm).accuracy == 0.9
    assert [p.name for p in tmp_path.iterdir()] == ["reward"]


def test_a_head_of_another_model_is_refused(lm: FrozenLM, head: nn.Linear, tmp_path):
    folder = tmp_path / "reward"
    save_style(folder, head, described(lm, fingerprint="0" * 16))
    with pytest.raises(PromptError, match=f"reads {lm.label} .weights 0+., not"):
        load_style(str(folder), lm)


@pytest.mark.parametrize(
    "harm",
    [
        lambda folder: (folder / "head.safetensors").write_bytes(b"no"),
        lambda folder: (folder / "head.safetensors").unlink(),
        lambda folder: (folder / "style.json").write_text("{"),
        lambda folder: (folder / "style.json").write_text('{"labels": ["a", "b"]}'),
        lambda folder: change(folder, pooling="max"),
        lambda folder: change(folder, layer=9),
        lambda folder: change(folder, labels=["a", "b", "c"]),
    ],
)
def test_a_damaged_folder_is_refused(
    lm: FrozenLM, head: nn.Linear, tmp_path, harm: Callable[[Path], object]
):
    folder = tmp_path / "reward"
    save_style(folder, head, described(lm))
    harm(folder)
    with pytest.raises(PromptError, match="damaged"):
        load_style(str(folder), lm)


def change(folder: Path, **values: object) -> None:
    file = folder / "style.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


# ---- Hugging Face text classifiers


@pytest.fixture(scope="module")
def classifier_folder(tmp_path_factory) -> Path:
    """A saved RobertaForSequenceClassification of three classes and its tokenizer."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        PreTrainedTokenizerFast,
        RobertaConfig,
        RobertaForSequenceClassification,
    )

    folder = tmp_path_factory.mktemp("classifier")
    special = {"cls_token": "<s>", "pad_token": "<pad>", "sep_token": "</s>", "unk_token": "<unk>"}
    characters = string.ascii_letters + string.punctuation + " "
    vocabulary = {token: i for i, token in enumerate([*special.values(), *characters])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    config = RobertaConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        pad_token_id=1,
        initializer_range=0.5,
        num_labels=3,
        id2label={0: "bad", 1: "fair", 2: "good"},
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        RobertaForSequenceClassification(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("pad", [None, "~"])
def test_a_causal_classifier_reads_texts_of_any_length(
    lm: FrozenLM, lm_folder: Path, tmp_path: Path, pad: str | None
):
    """It answers at a text's own last token, whatever padding its config.json knows."""
    from transformers import AutoTokenizer, GPT2Config, GPT2ForSequenceClassification

    tokenizer = AutoTokenizer.from_pretrained(lm_folder)
    tokenizer.pad_token = pad
    tokenizer.save_pretrained(tmp_path)
    config = GPT2Config.from_pretrained(lm_folder, num_labels=2, pad_token_id=7)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        GPT2ForSequenceClassification(config).save_pretrained(tmp_path)
    scorer = load_style(str(tmp_path), lm)
    texts = ["A film", "No plot, no jokes, and a long one", "Fine!"]
    alone = torch.cat([scorer([text]) for text in texts])
    torch.testing.assert_close(scorer(texts), alone)
    assert (alone[:, 0] - alone[0, 0]).abs().max() > 0.01


@torch.no_grad()
def test_a_hugging_face_classifier_scores_in_order(lm: FrozenLM, classifier_folder, monkeypatch):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    monkeypatch.setattr("lightning_prompts.tuners.rewards.style.scorers.CLASSIFIER_BATCH", 3)
    scorer = load_style(str(classifier_folder), lm)
    assert scorer.accuracy is None
    assert scorer.labels == ("bad", "fair", "good")
    found = scorer(TEXTS)
    model = AutoModelForSequenceClassification.from_pretrained(classifier_folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(classifier_folder)
    for text, row in zip(TEXTS, found, strict=True):
        expected = model(**tokenizer(text, return_tensors="pt")).logits[0].softmax(-1)
        torch.testing.assert_close(row, expected, atol=1e-5, rtol=1e-4)
    assert (found[0] - found[1]).abs().max() > 1e-3  # rows in a wrong order would show
    assert scorer([]).shape == (0, 3)
    assert not any(p.requires_grad for p in scorer.model.parameters())


def test_a_model_without_a_trained_head_is_refused(lm: FrozenLM, lm_folder: Path):
    with pytest.raises(PromptError, match="no trained classification head"):
        load_style(str(lm_folder), lm)


def test_a_folder_that_is_not_there_names_the_command(lm: FrozenLM):
    with pytest.raises(PromptError, match="lightning-prompts style"):
        load_style("logs/yelp_style/reward", lm)


def test_an_unreachable_hub_is_an_error_in_seconds(lm: FrozenLM, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    started = time.monotonic()
    with pytest.raises(PromptError, match=r"'textattack/none-such'.*hub cannot be reached"):
        load_style("textattack/none-such", lm)
    assert time.monotonic() - started < 5
