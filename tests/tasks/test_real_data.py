"""Real SST-2, BoolQ, Yelp and AG News with GPT-2's tokenizer, where a machine has them."""

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from lightning_prompts.files.errors import PromptError
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.tasks import SST2, BoolQ, TextClassification, Yelp

TOPICS = {"0": " World", "1": " Sports", "2": " Business", "3": " Tech"}


@pytest.fixture(scope="module")
def gpt2(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> FrozenLM:
    """GPT-2's real tokenizer and 1,024 positions, on a narrow model of random weights."""
    from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

    folder = tmp_path_factory.mktemp("gpt2")
    AutoTokenizer.from_pretrained(shared_data / "gpt2_tokenizer").save_pretrained(folder)
    GPT2LMHeadModel(GPT2Config(n_embd=8, n_layer=1, n_head=1)).save_pretrained(folder)
    return FrozenLM(str(folder))


def lines(path: Path) -> list[dict[str, Any]]:
    text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return [json.loads(line) for line in text.splitlines()]


def test_sst2(gpt2: FrozenLM, shared_data: Path) -> None:
    data = SST2(gpt2, path=str(shared_data / "sst2"))
    data.setup("fit")
    data.setup("test")
    assert data.report.rows == {"train": 6909, "validation": 872, "test": 1821}
    assert data.report.cut == {"train": 0, "validation": 0, "test": 0}
    assert data.report.classes == {
        "train": {"0": 3304, "1": 3605},
        "validation": {"0": 428, "1": 444},
        "test": {"0": 912, "1": 909},
    }
    assert data.report.majority_label == "1"

    rows = lines(shared_data / "sst2" / "train.jsonl")
    seen = []
    loader = data.train_dataloader()
    assert len(loader) == 216  # 6,909 / 32
    for batch in loader:
        seen += batch["rows"].tolist()
        i = batch["rows"][0].item()
        assert batch["labels"][0] == rows[i]["label"]
        ids = batch["after_ids"][0, : batch["after_lengths"][0]].tolist()
        assert gpt2.decode(ids) == f" {rows[i]['text']} It was"
    assert sorted(seen) == list(range(6909))


def test_boolq_cuts_passages_alone(gpt2: FrozenLM, shared_data: Path) -> None:
    folder = shared_data / "boolq"
    data = BoolQ(gpt2, path=str(folder), max_tokens=192)
    data.setup("validate")
    assert data.report.rows == {"validation": 1000, "train": 1886}
    assert data.report.classes["train"] == {"0": 704, "1": 1182}

    template = " {passage} Question: {question}? Answer:"
    whole = [template.format(**row) for row in lines(folder / "validation.jsonl.gz")]
    too_long = [len(gpt2.encode(text)) > 192 for text in whole]
    examples = data._encoded["validation"].examples
    assert data.report.cut["validation"] == sum(too_long) == sum(e.cut for e in examples) == 142
    for example, text, cut in zip(examples, whole, too_long, strict=True):
        question = text[text.rindex(" Question: ") :]
        assert example.after.endswith(question)
        assert text.startswith(example.after[: -len(question)])
        assert (example.after != text) == cut
        assert len(example.after_ids) <= 192


def test_fewer_validation_rows(gpt2: FrozenLM, shared_data: Path) -> None:
    data = BoolQ(gpt2, path=str(shared_data / "boolq"), validation_rows=200)
    # 357 and 643 of 1,000, a fifth of each.
    assert Counter(data.read("validation").labels) == {0: 71, 1: 129}


def test_official_few_shot_files(gpt2: FrozenLM, shared_data: Path) -> None:
    data = BoolQ(gpt2, path=str(shared_data / "boolq" / "32-shot"))
    data.setup("fit")
    assert data.report.rows == {"train": 32, "validation": 32}
    assert data.report.classes["validation"] == {"0": 13, "1": 19}
    with pytest.raises(PromptError, match=r"has no test file"):
        data.setup("test")


def test_yelp_sentences(gpt2: FrozenLM, shared_data: Path) -> None:
    data = Yelp(gpt2, path=str(shared_data / "yelp"), train_rows=1000)
    data.setup("test")
    assert data.report.rows == {"test": 1000, "train": 1000}
    assert data.report.classes["test"] == {"0": 500, "1": 500}
    assert data.report.classes["train"] == {"0": 415, "1": 585}  # 41.5 % of 110,648


def test_ag_news_is_a_folder_and_a_test_file(gpt2: FrozenLM, shared_data: Path) -> None:
    folder = shared_data / "agnews"
    options = {"template": "{prompt} {text} Topic:", "verbalizer": TOPICS, "name": "agnews"}
    test = str(folder / "test.jsonl.gz")
    data = TextClassification(gpt2, path=str(folder / "16-shot" / "13"), test=test, **options)
    data.setup("fit")
    assert data.report.rows == {"train": 64, "validation": 64}
    assert data.report.classes["train"] == dict.fromkeys(TOPICS, 16)
    assert Counter(data.read("test").labels) == dict.fromkeys(range(4), 1900)


def test_one_real_file_is_divided_evenly(gpt2: FrozenLM, shared_data: Path) -> None:
    words = {"0": " terrible", "1": " great"}
    path = str(shared_data / "mr" / "test.jsonl")
    data = TextClassification(gpt2, "{prompt} {text} It was", words, path=path)
    data.setup("fit")
    data.setup("test")
    assert data.report.rows == {"train": 1600, "validation": 200, "test": 200}
    assert all(counts["0"] == counts["1"] for counts in data.report.classes.values())
