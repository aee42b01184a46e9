"""BERTScore against greedy matching in float64, one pair at a time."""

import json
import random
import string
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torchmetrics.functional.text.bert import bert_score

from lightning_prompts.files.errors import PromptError
from lightning_prompts.lm.features import text_states
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.metrics import content
from lightning_prompts.metrics.content import ContentScore, pair_f1, random_pairs

SOURCES = ["A warm and funny film.", "No plot, no jokes.", "Fine work!", "Dull and far too long."]
OUTPUTS = ["a cold film", "no plot, but great jokes, and many more of them.", "x", "Fine work!"]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIGHTNING_PROMPTS_CACHE", str(tmp_path / "cache"))


def greedy_f1(output: Tensor, source: Tensor) -> float:
    """Each token with its most similar one, at least 0; the outer two tokens do not count."""
    outputs, sources = output[1:-1].double().tolist(), source[1:-1].double().tolist()

    def cosine(left: list[float], right: list[float]) -> float:
        dot = sum(a * b for a, b in zip(left, right, strict=True))
        return dot / (sum(a * a for a in left) * sum(b * b for b in right)) ** 0.5

    precision = sum(max(0.0, *(cosine(o, s) for s in sources)) for o in outputs) / len(outputs)
    recall = sum(max(0.0, *(cosine(o, s) for o in outputs)) for s in sources) / len(sources)
    total = precision + recall
    return 2 * precision * recall / total if total else 0.0


def brute_force(
    scorer: ContentScore, outputs: Sequence[str], sources: Sequence[str]
) -> list[float]:
    """The whole score, each pair alone, on states of texts that are encoded alone."""

    def states(text: str) -> Tensor:
        return text_states(scorer.lm, [text], scorer.layer, bos=True, eos=True)[0]

    b = scorer.baseline
    f1 = [greedy_f1(states(o), states(s)) for o, s in zip(outputs, sources, strict=True)]
    return [min(100.0, max(0.0, 100 * (value - b) / (1 - b))) for value in f1]


def test_f1_is_greedy_matching_in_any_order():
    generator = torch.Generator().manual_seed(0)
    lengths = [(3, 9), (7, 4), (5, 5), (3, 4), (12, 3), (3, 9), (8, 8), (4, 12), (7, 4), (3, 3)]
    pairs = [
        tuple(torch.randn(n, 6, generator=generator) + 0.7 for n in pair) for pair in lengths * 3
    ]
    found = pair_f1(pairs)
    assert found.dtype == torch.float32
    assert found.tolist() == pytest.approx([greedy_f1(*pair) for pair in pairs], abs=1e-5)
    assert len({round(value, 4) for value in found.tolist()}) > 20  # a wrong order would show


def by_torchmetrics(output: Tensor, source: Tensor) -> float:
    """The same of a single pair: of several it gives some another pair's, as it sorts them."""
    inputs = [
        {"input_ids": x[None].float(), "attention_mask": torch.ones(1, len(x), dtype=torch.long)}
        for x in (output, source)
    ]
    scored = bert_score(
        *inputs, model=torch.nn.Identity(), user_forward_fn=lambda _, batch: batch["input_ids"]
    )
    return float(scored["f1"])


@pytest.mark.filterwarnings("ignore:It was not possible to retrieve")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_f1_is_that_of_torchmetrics(dtype: torch.dtype):
    generator = torch.Generator().manual_seed(1)
    lengths = [(3, 11), (22, 11), (4, 4)] * 20
    pairs = [
        tuple(torch.randn(n, 6, generator=generator).to(dtype) for n in pair) for pair in lengths
    ]
    pairs.append((torch.eye(3), -torch.eye(3)))  # nothing in common
    expected = [by_torchmetrics(*pair) for pair in pairs]
    assert pair_f1(pairs).tolist() == pytest.approx(expected, abs=1e-6)
    assert expected[-1] == 0


@pytest.mark.parametrize("layer", [1, 2])
def test_scores_are_those_of_single_pairs(lm: FrozenLM, layer: int):
    scorer = ContentScore(lm, layer=layer)
    outputs, sources = zip(*((o, s) for o in OUTPUTS for s in SOURCES), strict=True)
    found = scorer(outputs, sources)
    assert found.dtype == torch.float32
    assert found.shape == (16,)
    # F1 is exact to 1e-6, and (1 - b) of this model stretches that.
    assert found.tolist() == pytest.approx(brute_force(scorer, outputs, sources), abs=0.01)
    assert float(found.max()) > 1
    order = list(range(16))
    random.Random(0).shuffle(order)
    shuffled = scorer([outputs[i] for i in order], [sources[i] for i in order])
    assert shuffled.tolist() == pytest.approx([float(found[i]) for i in order], abs=0.01)


def test_identical_is_100_and_empty_is_0(lm: FrozenLM):
    scorer = ContentScore(lm)
    assert scorer(SOURCES, SOURCES).tolist() == pytest.approx([100.0] * 4, abs=1e-2)
    with torch.autocast("cpu", torch.bfloat16):
        assert scorer(SOURCES, SOURCES).tolist() == pytest.approx([100.0] * 4, abs=1e-2)
    found = scorer(["", "  \n", "x", ""], ["a", "a", "", ""])
    assert found.tolist() == [0.0] * 4
    assert scorer([], []).shape == (0,)


def test_each_text_is_encoded_once(lm: FrozenLM, monkeypatch):
    scorer, seen = ContentScore(lm), []
    assert scorer.baseline < 1
    encode = scorer._encode
    monkeypatch.setattr(scorer, "_encode", lambda texts: seen.append(list(texts)) or encode(texts))
    outputs = ["a cold film", "x", "a cold film", "A warm and funny film."]
    found = scorer(outputs, [SOURCES[0]] * 4)
    assert seen == [["a cold film", SOURCES[0], "x"]]
    assert found[0] == found[2]
    assert float(found[3]) == pytest.approx(100.0, abs=1e-2)


def test_nothing_global_is_drawn(lm: FrozenLM):
    scorer = ContentScore(lm)
    state = torch.get_rng_state()
    scorer(OUTPUTS, SOURCES)
    assert torch.equal(torch.get_rng_state(), state)


# ---- the baseline


def test_the_baseline_is_the_mean_of_random_pairs(lm: FrozenLM, monkeypatch):
    monkeypatch.setattr(content, "PAIRS", 20)
    scorer = ContentScore(lm, sentences=SOURCES)
    states = text_states(lm, SOURCES, scorer.layer, eos=True)
    drawn = random_pairs(4, 20)
    assert all(i != j and 0 <= i < 4 and 0 <= j < 4 for i, j in drawn)
    assert {i for i, _ in drawn} == {j for _, j in drawn} == {0, 1, 2, 3}
    expected = sum(greedy_f1(states[i], states[j]) for i, j in drawn) / 20
    assert scorer.baseline == pytest.approx(expected, abs=1e-5)
    with pytest.raises(ValueError, match="two different"):
        random_pairs(1, 5)


def test_the_baseline_is_computed_once(lm: FrozenLM, tmp_path: Path, monkeypatch):
    first = ContentScore(lm, sentences=SOURCES).baseline
    (file,) = (tmp_path / "cache" / "content").iterdir()
    assert json.loads(file.read_text())["f1"] == first

    def never(*args: object) -> None:
        raise AssertionError("computed again")

    with monkeypatch.context() as patch:
        patch.setattr(ContentScore, "_f1", never)
        assert ContentScore(lm, sentences=SOURCES).baseline == first
        for other in ({"layer": 2}, {"sentences": OUTPUTS}):  # are remembered apart
            with pytest.raises(AssertionError, match="computed again"):
                _ = ContentScore(lm, **{"sentences": SOURCES, **other}).baseline
    for damaged in ("{", "[]", '{"f1": "?"}'):
        file.write_text(damaged)
        assert ContentScore(lm, sentences=SOURCES).baseline == first
    assert json.loads(file.read_text())["f1"] == first


def test_the_baseline_does_not_depend_on_the_precision(lm: FrozenLM, monkeypatch, tmp_path):
    exact = ContentScore(lm).baseline
    monkeypatch.setenv("LIGHTNING_PROMPTS_CACHE", str(tmp_path / "other"))
    with torch.autocast("cpu", torch.bfloat16):
        assert ContentScore(lm).baseline == exact


def test_a_cache_that_cannot_be_written_only_costs_time(lm: FrozenLM, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LIGHTNING_PROMPTS_CACHE", str(tmp_path / "file"))
    assert 0 < ContentScore(lm, sentences=SOURCES).baseline < 1


# ---- encoders


@pytest.fixture(scope="module")
def encoder_folder(tmp_path_factory) -> Path:
    """A saved RobertaModel of 24 narrow layers, as many as roberta-large, and its tokenizer."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, RobertaConfig, RobertaModel

    folder = tmp_path_factory.mktemp("encoder")
    special = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    vocabulary = {t: i for i, t in enumerate([*special.values(), *string.printable])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, **special, cls_token="<s>", sep_token="</s>"
    ).save_pretrained(folder)
    config = RobertaConfig(
        vocab_size=len(vocabulary),
        hidden_size=8,
        num_hidden_layers=24,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=64,
        initializer_range=0.3,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        RobertaModel(config).save_pretrained(folder)
    return folder


@torch.no_grad()
def test_an_encoder_scores_as_pair_by_pair(lm: FrozenLM, encoder_folder: Path):
    from transformers import AutoModel, AutoTokenizer

    scorer = ContentScore(lm, str(encoder_folder), sentences=SOURCES)
    assert scorer.layer == 17  # 0.7 of 24
    model = AutoModel.from_pretrained(encoder_folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(encoder_folder)

    def states(text: str) -> Tensor:
        ids = tokenizer(text, add_special_tokens=False).input_ids
        ids = torch.tensor([[0, *ids, 2]])
        return model(ids, output_hidden_states=True).hidden_states[17][0]

    b = scorer.baseline
    f1 = [greedy_f1(states(o), states(s)) for o, s in zip(OUTPUTS, SOURCES, strict=True)]
    expected = [100 * max(0.0, (value - b) / (1 - b)) for value in f1]
    assert scorer(OUTPUTS, SOURCES).tolist() == pytest.approx(expected, abs=0.05)
    assert scorer(["x" * 500], ["x" * 500]).tolist() == pytest.approx([100.0], abs=1e-2)


def test_roberta_large_has_its_published_baseline(lm: FrozenLM, encoder_folder, monkeypatch):
    load = content.load_encoder
    monkeypatch.setattr(content, "load_encoder", lambda name: load(str(encoder_folder)))
    scorer = ContentScore(lm, "roberta-large")
    assert (scorer.layer, scorer.baseline) == (17, 0.83122575)
    other = ContentScore(lm, "roberta-large", layer=10, sentences=SOURCES)
    assert other.layer == 10
    assert other.baseline != 0.83122575


def test_mistakes_are_refused(lm: FrozenLM, tmp_path: Path):
    with pytest.raises(PromptError, match="2 layers"):
        ContentScore(lm, layer=3)
    with pytest.raises(PromptError, match="no such folder"):
        ContentScore(lm, str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(PromptError, match="cannot be read"):
        ContentScore(lm, str(tmp_path / "empty"))


# ---- the real model


@pytest.mark.slow
@pytest.mark.usefixtures("smollm2_installed")
def test_random_sentences_share_about_nothing(shared_data: Path, monkeypatch):
    monkeypatch.delenv("LIGHTNING_PROMPTS_CACHE")  # the converted model
    rows = [json.loads(line) for line in (shared_data / "yelp/test.jsonl").open(encoding="utf-8")]
    rows = random.Random(0).sample(rows, 100)
    sources = [row["text"] for row in rows]
    scorer = ContentScore(FrozenLM("smollm2"))
    assert scorer.layer == 15
    with torch.autocast("cpu", torch.bfloat16):
        assert float(scorer(sources, sources).min()) > 99.9
        assert float(scorer(sources[1:] + sources[:1], sources).mean()) < 10
        rewrites = [row["references"][0] for row in rows]
        assert 40 < float(scorer(rewrites, sources).mean()) < 80
