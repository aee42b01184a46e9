"""Yelp style transfer: one direction's sentences, with what they are to become."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lightning_prompts.files.errors import PromptError
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.tasks import YelpTransfer

STYLES = {"0": " bad", "1": " good"}
Make = Callable[..., YelpTransfer]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for split, count in (("train", 11), ("validation", 6), ("test", 6)):
        rows: list[dict[str, Any]] = [
            {"text": f"{split} {i} " + "x" * (i % 4), "label": i % 2} for i in range(count)
        ]
        if split == "test":
            for i, row in enumerate(rows):
                row["references"] = [f"person {p} on {i}" for p in range(4)]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / f"{split}.jsonl").write_text(lines)
    return tmp_path


@pytest.fixture
def task(lm: FrozenLM, folder: Path) -> Make:
    def make(**options: Any) -> YelpTransfer:
        return YelpTransfer(lm, **{"path": str(folder), "verbalizer": STYLES, **options})

    return make


@pytest.mark.parametrize(
    ("direction", "source"), [("negative_to_positive", 0), ("positive_to_negative", 1)]
)
def test_rows_of_one_style_labelled_with_the_other(task: Make, direction: Any, source: int) -> None:
    data = task(direction=direction, batch_size=2)
    assert data.slug == "yelp_transfer"
    data.setup("fit")
    wanted = list(range(source, 11, 2))
    assert data.report.rows["train"] == len(wanted)
    assert data.report.classes["train"] == {str(source): 0, str(1 - source): len(wanted)}
    assert data.report.majority_label == str(1 - source)
    batches = list(data.train_dataloader())
    assert sorted(n for batch in batches for n in batch["rows"].tolist()) == wanted
    for batch in batches:
        assert batch["labels"].tolist() == [1 - source] * len(batch["rows"])
        for row, text, pieces in zip(batch["rows"], batch["sources"], batch["texts"], strict=True):
            assert text == f"train {int(row)} " + "x" * (int(row) % 4)
            assert pieces == ("", f' "{text}" "')
        assert batch["references"] == [[] for _ in batch["rows"]]


def test_references_stay_with_their_rows(task: Make) -> None:
    data = task(val_batch_size=2)
    data.setup("test")
    seen = {}
    for batch in data.test_dataloader():
        for row, references in zip(batch["rows"].tolist(), batch["references"], strict=True):
            seen[row] = references
    assert seen == {i: [f"person {p} on {i}" for p in range(4)] for i in (0, 2, 4)}


def test_fewer_rows_are_counted_after_the_choice_of_style(task: Make) -> None:
    data = task(train_rows=4, validation_rows=2, test_rows=1)
    data.setup("fit")
    data.setup("test")
    assert data.report.rows == {"train": 4, "validation": 2, "test": 1}


def test_training_resumes_within_an_epoch(task: Make) -> None:
    data = task(batch_size=2)
    data.setup("fit")
    whole = [batch["sources"] for batch in data.train_dataloader()]
    loader = data.train_dataloader()
    batches = iter(loader)
    assert next(batches)["sources"] == whole[0]
    state = loader.state_dict()
    resumed = data.train_dataloader()
    resumed.load_state_dict(state)
    assert [batch["sources"] for batch in resumed] == whole[1:]
    assert len(whole) == 3


def test_one_file_and_one_reference(lm: FrozenLM, tmp_path: Path) -> None:
    rows = [f"text {i}\t{'bad' if i % 2 else 'good'}\trewrite {i}\n" for i in range(40)]
    path = tmp_path / "all.tsv"
    path.write_text("text\tlabel\treferences\n" + "".join(rows))
    data = YelpTransfer(lm, verbalizer={"bad": " bad", "good": " good"}, path=str(path))
    data.setup("fit")
    data.setup("test")
    assert data.report.rows == {"train": 16, "validation": 2, "test": 2}
    batch = next(iter(data.test_dataloader()))
    expected = [[source.replace("text", "rewrite")] for source in batch["sources"]]
    assert batch["references"] == expected


def test_predict_takes_rows_without_labels(task: Make, tmp_path: Path) -> None:
    (tmp_path / "new.jsonl").write_text('{"text": "a"}\n{"text": "b", "label": 1}\n')
    data = task(predict=str(tmp_path / "new.jsonl"))
    data.setup("predict")
    batches = list(data.predict_dataloader())
    assert [batch["sources"] for batch in batches] == [["a"]]  # b has the target style already
    assert batches[0]["labels"].tolist() == [1]


def test_mistakes(task: Make, lm: FrozenLM, tmp_path: Path) -> None:
    with pytest.raises(PromptError, match=r"has 3 labels; give two, first the negative"):
        task(verbalizer={**STYLES, "2": " great"})
    with pytest.raises(PromptError, match=r"put \{text\} in it"):
        task(template='{prompt} "{label}" "')
    (tmp_path / "one.jsonl").write_text('{"text": "a", "label": 1}\n')
    data = task(train=str(tmp_path / "one.jsonl"))
    with pytest.raises(PromptError, match=r"one.jsonl has no row with the label '0'"):
        data.setup("fit")
    (tmp_path / "some.jsonl").write_text('{"text": "a", "label": 0}\n{"text": "b"}\n')
    data = task(train=str(tmp_path / "some.jsonl"))
    with pytest.raises(PromptError, match=r"some.jsonl, row 2 has no label"):
        data.setup("fit")
    with pytest.raises(PromptError, match=r"no train data; give path"):
        YelpTransfer(lm, verbalizer=STYLES).setup("fit")


def test_real_sentences(lm: FrozenLM, shared_data: Path) -> None:
    for direction, label in (("negative_to_positive", 0), ("positive_to_negative", 1)):
        path = str(shared_data / "yelp")
        data = YelpTransfer(lm, direction=direction, path=path, verbalizer=STYLES, test_rows=100)  # type: ignore[arg-type]
        data.setup("test")
        assert data.report.rows["test"] == 100
        rows = [json.loads(x) for x in (shared_data / "yelp" / "test.jsonl").open()]
        for batch in data.test_dataloader():
            for i, row in enumerate(batch["rows"].tolist()):
                assert rows[row]["label"] == label
                assert rows[row]["target_label"] == int(batch["labels"][i])
                assert rows[row]["text"] == batch["sources"][i]
                assert rows[row]["references"] == batch["references"][i]
