"""Rows of any table become texts and classes, divided into splits; what is wrong is named."""

import csv
import itertools
import json
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from datasets import ClassLabel, Dataset, Features, Value

from lightning_prompts.files.errors import PromptError
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.tasks import TextClassification

WORDS = {"negative": " terrible", "positive": " great"}
TEMPLATE = "{prompt} {text} It was"
Task = Callable[..., TextClassification]


@pytest.fixture
def task(lm: FrozenLM) -> Task:
    """Makes a task on the tiny model."""

    def make(path: Path | str | None = None, **options: Any) -> TextClassification:
        options = {"template": TEMPLATE, "verbalizer": WORDS, **options}
        return TextClassification(lm, path=None if path is None else str(path), **options)

    return make


def write(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def labelled(num_rows: int, positive: float = 0.5) -> list[dict[str, str]]:
    """Rows `text 0`, `text 1`, ...; the first share of them is positive."""
    names = ["positive" if i < positive * num_rows else "negative" for i in range(num_rows)]
    return [{"text": f"text {i}", "label": name} for i, name in enumerate(names)]


def texts(task: TextClassification, split: str) -> list[str]:
    return [row["text"] for row in task.read(split).rows]


# ---- splits


def test_folder_is_read_split_by_split(task: Task, review_folder: Path) -> None:
    data = task(review_folder)
    for split, size in (("train", 24), ("validation", 10), ("test", 8), ("predict", 8)):
        rows = data.read(split)
        assert len(rows) == size
        assert rows.labels == [1, 0] * (size // 2)
        assert rows.numbers == list(range(size))
    assert texts(data, "train")[:2] == ["A warm and funny film.", "Dull and far too long."]


def test_one_file_is_divided_the_same_way_whatever_the_seed(task: Task, tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", labelled(200, positive=0.25))
    parts = {split: texts(task(path), split) for split in ("train", "validation", "test")}
    assert {split: len(part) for split, part in parts.items()} == {
        "train": 160,
        "validation": 20,
        "test": 20,
    }
    assert sorted(itertools.chain(*parts.values())) == sorted(f"text {i}" for i in range(200))
    for split, part in parts.items():
        assert texts(task(path, seed=7), split) == part
        assert Counter(task(path).read(split).labels) == {0: 0.75 * len(part), 1: 0.25 * len(part)}
    assert [f"text {i}" for i in task(path).read("test").numbers] == parts["test"]


def test_shares_of_one_file(task: Task, tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", labelled(100))
    assert len(task(path, split="0.5,0.5,0").read("validation")) == 50
    with pytest.raises(PromptError, match=r"split leaves no row of .* to the test split"):
        task(path, split="0.5,0.5,0").read("test")
    for split in ("0.8,0.1", "a,b,c", "0.8,0.1,0.2", "0,0.5,0.5", "1.2,-0.1,-0.1"):
        with pytest.raises(PromptError, match=r"split"):
            task(path, split=split)


def test_given_files_take_the_place_of_splits(task: Task, tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", labelled(90))
    other = write(tmp_path / "other.jsonl", labelled(6))
    data = task(path, test=str(other), predict=str(other))
    assert len(data.read("test")) == len(data.read("predict")) == 6
    assert len(data.read("train")) + len(data.read("validation")) == 90  # none is left unused
    assert len(data.read("validation")) == 10
    alone = task(train=str(path), validation=str(other))
    assert len(alone.read("train")) == 90
    assert not alone.has("test")
    with pytest.raises(PromptError, match=r"no test data; give path, .*test=FILE"):
        alone.read("test")


@pytest.mark.parametrize("first", ["train", "validation"])
def test_validation_rows_are_cut_from_training_rows(task: Task, tmp_path: Path, first: str) -> None:
    write(tmp_path / "train.jsonl", labelled(90))
    write(tmp_path / "test.jsonl", labelled(20))
    data = task(tmp_path)
    data.read(first)
    assert (len(data.read("train")), len(data.read("validation"))) == (80, 10)
    assert not set(texts(data, "train")) & set(texts(data, "validation"))
    assert len(data.read("test")) == 20


def test_shots_are_drawn_by_seed_and_stay_out_of_validation(task: Task, tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", labelled(200, positive=0.1))
    drawn = [set(texts(task(path, shots=4, seed=s), "train")) for s in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert Counter(task(path, shots=4).read("train").labels) == {0: 4, 1: 4}
    assert not drawn[0] & set(texts(task(path, shots=4), "validation"))
    with pytest.raises(PromptError, match=r"shots is 17, but label 'positive' has 16 rows"):
        task(path, shots=17).read("train")
    with pytest.raises(PromptError, match=r"shots and train_rows"):
        task(path, shots=4, train_rows=10)


def test_fewer_rows_keep_the_shares(task: Task, tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", labelled(200, positive=0.2))
    write(tmp_path / "validation.jsonl", labelled(100, positive=0.4))
    counts = {"train_rows": 50, "validation_rows": 20}
    data = task(tmp_path, **counts)
    assert Counter(data.read("train").labels) == {0: 40, 1: 10}
    assert Counter(data.read("validation").labels) == {0: 12, 1: 8}
    other = task(tmp_path, seed=1, **counts)
    assert set(texts(data, "train")) != set(texts(other, "train"))
    assert texts(data, "validation") == texts(other, "validation")
    assert len(task(tmp_path, train_rows=999).read("train")) == 200
    with pytest.raises(PromptError, match=r"validation_rows is 0"):
        task(tmp_path, validation_rows=0)


# ---- columns and labels


def test_text_column_stands_for_text(task: Task, tmp_path: Path) -> None:
    row = {"body": "the body", "subject": "the subject", "text": "not this", "queue": "negative"}
    path = write(tmp_path / "rows.jsonl", [row, {**row, "queue": "positive"}])
    options = {"label_column": "queue", "split": "1,0,0"}
    mapped = task(path, text_column="body", **options).read("train")
    assert mapped.rows == [{"text": "the body"}] * 2
    template = "{subject}: {body}{prompt}"
    direct = task(path, template=template, **options).read("train")
    assert direct.rows == [{"subject": "the subject", "body": "the body"}] * 2
    assert direct.labels == [0, 1]


@pytest.mark.parametrize("words", [{"0": " bad", "1": " good"}, {"no": " bad", "yes": " good"}])
def test_class_labels_match_by_number_or_name(
    task: Task, tmp_path: Path, words: dict[str, str]
) -> None:
    features = Features({"text": Value("string"), "label": ClassLabel(names=["no", "yes"])})
    rows = Dataset.from_dict({"text": ["a", "b", "c"], "label": [1, 0, 1]}, features=features)
    rows.to_parquet(tmp_path / "train.parquet")
    data = task(tmp_path, verbalizer=words, validation=str(tmp_path / "train.parquet"))
    assert data.read("train").labels == [1, 0, 1]


def test_splits_that_number_their_classes_by_themselves(lm: FrozenLM) -> None:
    """As `DatasetDict.class_encode_column` leaves them."""
    train = {"text": ["a", "b", "c"], "label": ["bad", "fair", "good"]}
    test = {"text": ["d", "e"], "label": ["bad", "good"]}
    data: Any = {
        name: Dataset.from_dict(rows).class_encode_column("label")
        for name, rows in {"train": train, "test": test}.items()
    }
    numbers = {"0": " no", "1": " so", "2": " yes"}
    task = TextClassification(lm, TEMPLATE, numbers, data=data)
    task.read("train")
    with pytest.raises(PromptError, match=r"numbers the classes of 'label'.*cast_column"):
        task.read("test")
    named = TextClassification(
        lm, TEMPLATE, dict(zip(train["label"], numbers.values(), strict=True)), data=data
    )
    named.read("train")
    assert named.read("test").labels == [0, 2]


GOOD = {"text": "fine", "label": "positive"}
BAD_ROWS = {
    "no such column": ({"body": "x", "label": "negative"}, r"column 'text' .*'body', 'label'"),
    "empty text": ({"text": " \n", "label": "negative"}, r"has an empty 'text'"),
    "null text": ({"text": None, "label": "negative"}, r"has an empty 'text'"),
    "unknown label": (
        {"text": "x", "label": "neutral"},
        r"no word for the label 'neutral', only for 'negative', 'positive'",
    ),
    "no label": (
        {"text": "x"},
        r"no label .*columns found: text, label.*these train rows.*predict",
    ),
    "label -1": ({"text": "x", "label": -1}, r"no label .*these train rows.*`predict`"),
    "null label": ({"text": "x", "label": None}, r"no label .*these train rows.*`predict`"),
}


@pytest.mark.parametrize("fault", BAD_ROWS)
def test_bad_row_is_named(task: Task, tmp_path: Path, fault: str) -> None:
    row, reason = BAD_ROWS[fault]
    path = write(tmp_path / "train.jsonl", [GOOD, GOOD, row, GOOD])
    with pytest.raises(PromptError, match=reason) as caught:
        task(tmp_path, validation=str(path)).read("train")
    assert str(caught.value).startswith(f"{path}, row 3")
    assert "\n" not in str(caught.value).replace(repr(row), "")


@pytest.mark.parametrize("label", [{}, {"label": -1}, {"label": None}, {"label": "unheard of"}])
def test_predict_accepts_rows_without_labels(
    task: Task, tmp_path: Path, review_folder: Path, label: dict[str, Any]
) -> None:
    path = write(tmp_path / "new.jsonl", [{"text": "x", **label}, {**GOOD}])
    rows = task(review_folder, predict=str(path)).read("predict")
    assert rows.labels == [-1, 1]
    assert rows.rows == [{"text": "x"}, {"text": "fine"}]


def test_name_is_given_or_taken_from_the_path(task: Task) -> None:
    assert task("some/folder").slug == "folder"
    assert task("rows/tickets.v2.csv.gz").slug == "tickets.v2"
    assert task("fancyzhx/ag_news", name="agnews").slug == "agnews"


# ---- a table of one's own, from flags alone


def test_unbalanced_csv_with_six_queues(lm: FrozenLM, tmp_path: Path) -> None:
    queues = dict(zip("abcdef", (1500, 800, 400, 200, 70, 30), strict=True))
    rows = [(f'Order "{i}", late,\nplease help', q) for q, n in queues.items() for i in range(n)]
    random.Random(0).shuffle(rows)
    with (tmp_path / "tickets.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("body", "queue"), *rows])
    words = dict(zip(queues, ("A", "B", "C", "D", "E", "F"), strict=True))
    data = TextClassification(
        lm,
        template="{prompt} {text} Queue:",
        verbalizer=words,
        path=str(tmp_path / "tickets.csv"),
        text_column="body",
        label_column="queue",
    )
    data.setup("fit")
    assert data.report.rows == {"train": 2400, "validation": 300}
    assert data.report.classes["train"] == {q: 0.8 * n for q, n in queues.items()}
    assert data.report.classes["validation"] == {q: 0.1 * n for q, n in queues.items()}
    assert data.report.majority_label == "a"
    batch = next(iter(data.train_dataloader()))
    assert batch["labels"].shape == (32,)
    text, label = rows[batch["rows"][5]]
    assert batch["texts"][5] == ("", f" {text} Queue:")
    assert batch["labels"][5] == list(queues).index(label)


# ---- labels that are their own answers


def test_without_a_verbalizer_labels_are_the_answers(
    task: Task, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    rows = [{"text": f"text {i}", "label": (" good ", "bad", None)[i % 3]} for i in range(30)]
    path = write(tmp_path / "train.jsonl", rows)
    write(tmp_path / "validation.jsonl", labelled(4) + rows[:2])
    data = task(tmp_path, verbalizer=None, skip_bad_rows=True)
    assert data.verbalizer.labels == ("bad", "good")
    assert data.verbalizer.words == (" bad", " good")
    assert f"No verbalizer: the 2 labels of {path} are the answers" in caplog.text
    assert data.read("train").labels == [1, 0] * 10
    assert data.read("validation").labels == [1, 0]  # the others are none of training


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([10, 9, 2.0], [" 2", " 9", " 10"]),
        ([True, False], [" false", " true"]),
        ([["b"], ["a"], ["a", "b"]], [" a", " b"]),
        (["10", "9"], [" 9", " 10"]),
    ],
)
def test_labels_as_texts(lm: FrozenLM, labels: list[Any], expected: list[str]) -> None:
    rows = [{"text": f"text {i}", "label": label} for i, label in enumerate(labels)]
    data = TextClassification(lm, TEMPLATE, data={"train": rows})
    assert list(data.verbalizer.words) == expected


def test_names_of_classes_are_answers_in_their_order(lm: FrozenLM, tmp_path: Path) -> None:
    names = ClassLabel(names=["World", "Art"])
    features = Features({"text": Value("string"), "label": names})
    rows = Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features=features)
    rows.to_parquet(tmp_path / "train.parquet")
    data = TextClassification(lm, TEMPLATE, path=str(tmp_path), validation=str(tmp_path))
    assert data.verbalizer.words == (" World", " Art")
    assert data.read("train").labels == [1, 0]


def test_what_cannot_be_answers_is_refused(lm: FrozenLM) -> None:
    rows = [{"text": f"text {i}", "label": "one", "x": f"free text {i}"} for i in range(1001)]
    with pytest.raises(PromptError, match="train data has 1 different labels in the column"):
        _ = TextClassification(lm, TEMPLATE, data={"train": rows}).verbalizer
    with pytest.raises(PromptError, match=r"1001 different labels.*'x'.*verbalizer"):
        _ = TextClassification(lm, TEMPLATE, data={"train": rows}, label_column="x").verbalizer
