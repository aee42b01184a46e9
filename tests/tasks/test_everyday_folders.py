"""Folders, shards and patterns as people have them: read as they are meant, or refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, Value

from lightning_prompts.files.errors import PromptError
from tests.tasks.everyday import RECORDS, ROWS, Make, lines


def saved(path: Path, rows: range = range(20)) -> Dataset:
    """Rows as `datasets` has them, with class numbers and a column of pictures."""
    features = Features(
        {
            "text": Value("string"),
            "label": ClassLabel(names=["negative", "positive"]),
            "image": Image(),
            "meta": {"stars": Value("int32"), "source": ClassLabel(names=["paper", "web"])},
        }
    )
    columns = {
        "text": [ROWS[i][0] for i in rows],
        "label": [int(ROWS[i][1] == "positive") for i in rows],
        "image": [{"bytes": b"no picture", "path": None} for _ in rows],
        "meta": [{"stars": 5, "source": i % 2} for i in rows],
    }
    return Dataset.from_dict(columns, features=features)


def write_shards(folder: Path, split: str, count: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        part = saved(folder, range(i * 20 // count, (i + 1) * 20 // count))
        part.to_parquet(folder / f"{split}-{i:05d}-of-{count:05d}.parquet")


def clone(path: Path) -> None:
    write_shards(path / "data", "train", 2)
    write_shards(path / "data", "test", 1)
    (path / "README.md").write_text("# Films\n")


def clone_with_configurations(path: Path) -> None:
    write_shards(path / "films", "part", 1)
    write_shards(path / "books", "train", 1)
    files = "\n    - {split: train, path: films/part-*}\n    - {split: test, path: [films/part-*]}"
    head = f"configs:\n- config_name: films\n  data_files:{files}\n- {{config_name: books, "
    (path / "README.md").write_text(f"---\n{head}data_files: books/*}}\n---\n# Films\n")


def arrow_file(path: Path) -> None:
    path.mkdir()
    saved(path).save_to_disk(str(path / "x"))
    (path / "x" / "data-00000-of-00001.arrow").rename(path / "train.arrow")


def feather_file(path: Path) -> None:
    path.mkdir()
    saved(path).remove_columns(["image", "meta"]).to_pandas().to_feather(path / "train.feather")


FOLDERS: dict[str, tuple[Callable[[Path], Any], dict[str, Any]]] = {
    "cloned repository": (clone, {}),
    "cloned repository, configuration": (clone_with_configurations, {"subset": "films"}),
    "save_to_disk, splits": (
        lambda path: DatasetDict({"train": saved(path)}).save_to_disk(str(path)),
        {},
    ),
    "save_to_disk, one split": (
        lambda path: saved(path).save_to_disk(str(path)),
        {"split": "0.9,0.1,0"},
    ),
    ".arrow": (arrow_file, {}),
    ".feather": (feather_file, {"verbalizer": {"0": " bad", "1": " good"}}),
    "folders of splits": (lambda path: write_shards(path / "train", "any", 3), {}),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_folders_of_datasets(task: Make, tmp_path: Path, name: str) -> None:
    write, options = FOLDERS[name]
    folder = tmp_path / "films"
    write(folder)
    data = task(folder, **options)
    rows = [data.read(split) for split in ("train", "validation")]
    texts = [row["text"] for part in rows for row in part.rows]
    assert sorted(texts) == sorted(text for text, _ in ROWS)
    for part in rows:
        assert part.labels == [int(row["text"].startswith("A warm")) for row in part.rows]


def test_several_configurations_are_named(task: Make, tmp_path: Path) -> None:
    clone_with_configurations(tmp_path)
    with pytest.raises(PromptError, match=r"names the configurations films, books; give one"):
        task(tmp_path).read("train")
    with pytest.raises(PromptError, match=r"others is none of them; give one .*subset"):
        task(tmp_path, subset="others").read("train")


def test_parts_by_a_pattern(task: Make, tmp_path: Path) -> None:
    for i in range(3):
        (tmp_path / f"part-{i}.jsonl").write_text(lines(*RECORDS[i * 4 : i * 4 + 4]))
    (tmp_path / "test.jsonl").write_text(lines(*RECORDS))
    rows = task(tmp_path, train="part-*.jsonl", validation="test.jsonl").read("train")
    assert [row["text"] for row in rows.rows] == [text for text, _ in ROWS[:12]]
    assert rows.place(5) == f"{tmp_path / 'part-1.jsonl'}, row 2"
    whole = task(tmp_path / "part-*.jsonl", split="1,0,0")
    assert whole.slug == "part"
    assert len(whole.read("train")) == 12
    with pytest.raises(PromptError, match=r"train none-\*.csv: there are no such data"):
        task(tmp_path, train="none-*.csv").read("train")


@pytest.mark.parametrize("other", [{}, {"validation": "held_out.jsonl"}])
def test_a_pattern_never_takes_in_what_measures(
    task: Make, tmp_path: Path, other: dict[str, str]
) -> None:
    for name in ("a", "held_out" if other else "dev"):
        (tmp_path / f"{name}.jsonl").write_text(lines(*RECORDS))
    with pytest.raises(PromptError, match=r"train \*.jsonl takes in .*validation rows"):
        task(tmp_path, train="*.jsonl", **other).read("train")


def test_a_shard_that_is_missing(task: Make, tmp_path: Path) -> None:
    write_shards(tmp_path / "data", "train", 3)
    (tmp_path / "data" / "train-00001-of-00003.parquet").unlink()
    with pytest.raises(PromptError, match=r"2 of 3 shards .*train-00001-of-00003 is missing"):
        task(tmp_path).read("train")
