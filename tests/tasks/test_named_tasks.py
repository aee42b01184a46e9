"""SST-2, BoolQ and Yelp in the Hub's schemas (exact features, few rows) and as local files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import ClassLabel, Dataset, Features, Value

from lightning_prompts.files.errors import PromptError
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.tasks import SST2, BoolQ, TextClassification, Yelp

SST2_FEATURES = Features(
    {
        "idx": Value("int32"),
        "sentence": Value("string"),
        "label": ClassLabel(names=["negative", "positive"]),
    }
)
BOOLQ_FEATURES = Features(
    {"question": Value("string"), "answer": Value("bool"), "passage": Value("string")}
)
YELP_FEATURES = Features({"text": Value("string"), "label": ClassLabel(names=["1", "2"])})
AG_NEWS_FEATURES = Features(
    {
        "text": Value("string"),
        "label": ClassLabel(names=["World", "Sports", "Business", "Sci/Tech"]),
    }
)
# Words that the tiny model has as single tokens.
TWO_WORDS = {"0": " terrible", "1": " great"}
FOUR_WORDS = {"0": " terrible", "1": " great", "2": " bad", "3": " good"}
Put = Callable[..., None]


def sentences(labels: list[int]) -> Dataset:
    rows = {
        "idx": list(range(len(labels))),
        "sentence": [f"sentence {i} " for i in range(len(labels))],
        "label": labels,
    }
    return Dataset.from_dict(rows, features=SST2_FEATURES)


def reviews(labels: list[int], features: Features) -> Dataset:
    rows = {"text": [f"text {i}" for i in range(len(labels))], "label": labels}
    return Dataset.from_dict(rows, features=features)


def test_sst2_of_the_hub(lm: FrozenLM, cached_on_hub: Put) -> None:
    splits = {"train": [0, 1, 1, 1], "validation": [1, 0], "test": [-1, -1, -1]}
    cached_on_hub("stanfordnlp/sst2", {name: sentences(v) for name, v in splits.items()})
    data = SST2(lm)
    data.setup("fit")
    assert data.report.rows == {"train": 4, "validation": 2}
    assert data.report.classes["train"] == {"0": 1, "1": 3}
    assert data.report.majority_label == "1"
    batch = next(iter(data.val_dataloader()))
    assert dict(zip(batch["rows"].tolist(), batch["labels"].tolist(), strict=True)) == {0: 1, 1: 0}
    assert batch["texts"][0] == ("", " sentence 0  It was")
    with pytest.raises(PromptError, match=r"sst2 \(test\), row 1 has no label .*`predict`"):
        data.setup("test")
    data.setup("predict")
    assert next(iter(data.predict_dataloader()))["labels"].tolist() == [-1, -1, -1]


@pytest.mark.parametrize("column", ["text", "sentence"])
def test_sst2_of_files(lm: FrozenLM, tmp_path: Path, column: str) -> None:
    for split in ("train", "validation"):
        (tmp_path / f"{split}.tsv").write_text(f"{column}\tlabel\na b\t1\nc d\t0\n")
    data = SST2(lm, path=str(tmp_path))
    data.setup("fit")
    assert [row["text"] for row in data.read("train").rows] == ["a b", "c d"]
    assert data.read("train").labels == [1, 0]


def test_boolq_of_the_hub(lm: FrozenLM, cached_on_hub: Put) -> None:
    rows = {
        "question": ["is it so", "was it so", "will it be so"],
        "answer": [True, False, True],
        "passage": ["It is so.", "It was not.", "x" * 300],
    }
    dataset = Dataset.from_dict(rows, features=BOOLQ_FEATURES)
    cached_on_hub("google/boolq", {"train": dataset, "validation": dataset})
    data = BoolQ(lm, verbalizer=TWO_WORDS)
    data.setup("fit")
    assert data.read("train").labels == [1, 0, 1]
    examples = data._encoded["train"].examples
    assert examples[0].after == " It is so. Question: is it so? Answer:"
    # The passage is cut, the question stays whole.
    tail = " Question: will it be so? Answer:"
    assert examples[2].after == " " + "x" * (lm.max_positions - 1 - len(tail)) + tail
    assert data.report.cut == {"train": 1, "validation": 1}
    with pytest.raises(PromptError, match=r"google/boolq has no test split .*test=FILE"):
        data.setup("test")


@pytest.mark.parametrize(
    ("name", "features", "words", "hub_id"),
    [
        ("yelp", YELP_FEATURES, TWO_WORDS, "fancyzhx/yelp_polarity"),
        ("agnews", AG_NEWS_FEATURES, FOUR_WORDS, "fancyzhx/ag_news"),
    ],
)
def test_hub_data_without_validation_rows(
    lm: FrozenLM, cached_on_hub: Put, name: str, features: Features, words: Any, hub_id: str
) -> None:
    train = reviews([i % len(words) for i in range(40 * len(words))], features)
    cached_on_hub(hub_id, {"train": train, "test": train.select(range(len(words)))})
    options = {"verbalizer": words, "val_batch_size": 8}
    if name == "yelp":
        data = Yelp(lm, **options)
    else:
        data = TextClassification(lm, "{prompt} {text} Topic:", path=hub_id, name=name, **options)
    assert data.slug == name
    data.setup("fit")
    # A ninth, as 0.1 is of 0.9; every class keeps its share.
    numbers = {split: set(data.read(split).numbers) for split in ("train", "validation")}
    assert len(numbers["train"] | numbers["validation"]) == len(train)
    assert not numbers["train"] & numbers["validation"]
    assert len(numbers["validation"]) == round(len(train) / 9)
    assert set(data.report.classes["validation"].values()) <= {4, 5}
    data.setup("test")
    assert data.read("test").labels == list(range(len(words)))


def test_other_template_without_the_passage_says_what_to_cut(lm: FrozenLM) -> None:
    with pytest.raises(PromptError, match=r"truncate passage .*question.*None"):
        BoolQ(lm, template="{question}?{prompt}", verbalizer=TWO_WORDS)
    data = BoolQ(lm, template="{question}?{prompt}", verbalizer=TWO_WORDS, truncate=None)
    assert data.template.columns == ("question",)
