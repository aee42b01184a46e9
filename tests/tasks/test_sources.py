"""Local data first, then the Hub's; a hub that is not there is said at once."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from datasets import Dataset

from lightning_prompts.files.errors import PromptError
from lightning_prompts.tasks.sources import DataSource


def source(path: str | Path | None, subset: str | None = None) -> DataSource:
    return DataSource(None if path is None else str(path), subset, None)


def test_folder_finds_splits_by_any_name_and_format(tmp_path: Path) -> None:
    (tmp_path / "Train.CSV").write_text("text\na\nb\n")
    (tmp_path / "dev.jsonl").write_text('{"text": "c"}\n')
    (tmp_path / "test.txt").write_text("not data")
    (tmp_path / "train.old.csv").write_text("text\nz\n")
    data = source(tmp_path)
    assert [row["text"] for row in data.split("train").rows] == ["a", "b"]
    assert [row["text"] for row in data.split("validation").rows] == ["c"]
    assert not data.has("test")
    assert "has no test file (test.* with .jsonl" in data.missing("test")


def test_two_files_for_a_split_are_ambiguous(tmp_path: Path) -> None:
    for name in ("valid.jsonl", "dev.tsv.gz"):
        (tmp_path / name).touch()
    with pytest.raises(PromptError, match=r"2 validation files \(dev.tsv.gz, valid.jsonl\)"):
        source(tmp_path).has("validation")


def test_given_file_may_lie_in_the_folder(tmp_path: Path) -> None:
    (tmp_path / "other.csv").write_text("text\na\n")
    assert len(source(tmp_path).named("other.csv")) == 1
    assert len(source(None).named(str(tmp_path / "other.csv"))) == 1
    with pytest.raises(PromptError, match=r"nothing.csv does not exist"):
        source(tmp_path).named("nothing.csv")


@pytest.mark.parametrize(
    "path", ["./data", "/no/such", "~/none", "a/b/c", "rows.csv", "rows.jsonl.gz", "data/", "a\\b"]
)
def test_missing_path_is_said_at_once(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DataSource, "_load_from_hub", lambda *args: pytest.fail("asked the hub"))
    with pytest.raises(PromptError, match=r"no such file or folder"):
        source(path)


@pytest.mark.usefixtures("no_hub")
def test_hub_that_is_not_there_is_one_sentence_within_seconds() -> None:
    started = time.monotonic()
    with pytest.raises(PromptError) as caught:
        source("nobody/no-such-data").has("train")
    message = str(caught.value)
    assert time.monotonic() - started < 2
    assert "'nobody/no-such-data'" in message
    assert "hub cannot be reached" in message
    assert "path=FOLDER" in message
    assert "\n" not in message
    assert message.count(". ") == 0


def test_cached_copy_is_used_without_a_hub(cached_on_hub: Callable[..., None]) -> None:
    rows = Dataset.from_dict({"text": ["a", "b", "c"]})
    cached_on_hub("someone/letters", {"train": rows, "extra": rows.select([2])})
    data = source("someone/letters")
    assert data.is_hub
    assert data.has("train")
    assert not data.has("test")
    assert data.split("train").place(2) == "someone/letters (train), row 3"
    assert [row["text"] for row in data.named("extra").rows] == ["c"]
    assert [row["text"] for row in data.named("train[1:]").rows] == ["b", "c"]
    assert data.missing("test").startswith("someone/letters has no test split on the Hub")


def test_unknown_subset_and_split_name_what_there_is(cached_on_hub: Callable[..., None]) -> None:
    cached_on_hub("someone/letters", {"train": Dataset.from_dict({"text": ["a"]})})
    with pytest.raises(PromptError, match=r"subset"):
        source("someone/letters", subset="other").has("train")
    with pytest.raises(PromptError, match=r"'someone/letters'.*extra"):
        source("someone/letters").named("extra")
