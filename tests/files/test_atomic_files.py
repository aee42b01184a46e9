"""Files change whole or not at all, whatever happens while they are written."""

import errno
import json
from pathlib import Path

import pytest

from lightning_prompts.files.atomic_files import remove_drafts, replace, write_json, write_text


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_write_json_replaces_whole_files(tmp_path: Path):
    path = tmp_path / "prompt.json"
    write_json(path, {"a": [1.5, float("inf")], "b": {"c": float("nan")}, "t": "é\n"})
    assert json.loads(path.read_text(encoding="utf-8")) == {
        **{"a": [1.5, None], "b": {"c": None}},  # JSON has neither inf nor NaN
        "t": "é\n",
    }
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert "1.5" in path.read_text(encoding="utf-8")


def test_a_failure_leaves_the_old_file_alone(tmp_path: Path):
    path = tmp_path / "folder" / "last.ckpt"
    write_text(path, "old")

    def full(file) -> None:
        file.write(b"half of the new one")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left") as error:
        replace(path, full)
    assert (error.value.errno, error.value.filename) == (errno.ENOSPC, str(path))
    with pytest.raises(KeyboardInterrupt):
        replace(path, lambda file: (_ for _ in ()).throw(KeyboardInterrupt))
    assert path.read_text() == "old"
    assert names(path.parent) == ["last.ckpt"]


def test_the_one_before_is_kept(tmp_path: Path):
    path, before = tmp_path / "last.ckpt", tmp_path / "previous.ckpt"
    for text in ("1", "2", "3"):
        replace(path, lambda file, text=text: file.write(text.encode()), before)
    assert (path.read_text(), before.read_text()) == ("3", "2")
    with pytest.raises(ZeroDivisionError):
        replace(path, lambda file: 1 / 0, before)
    assert (path.read_text(), before.read_text()) == ("3", "2")
    assert names(tmp_path) == ["last.ckpt", "previous.ckpt"]


def test_a_damaged_file_is_never_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path, before = tmp_path / "last.ckpt", tmp_path / "previous.ckpt"
    path.write_text("damaged")
    before.write_text("good")
    places, rename = [], Path.replace

    def killed(self: Path, target: Path) -> Path:
        if places:
            raise KeyboardInterrupt
        places.append(target)
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        replace(path, lambda file: file.write(b"new"), before)
    assert (path.read_text(), before.read_text()) == ("new", "good")
    assert names(tmp_path) == ["last.ckpt", "previous.ckpt"]


def test_drafts_of_killed_processes_are_removed(tmp_path: Path):
    path = tmp_path / "checkpoints" / "last.ckpt"
    write_text(path, "whole")
    (path.parent / ".last.ckpt.123.draft").write_text("half")
    (tmp_path / ".config.yaml.123.draft").write_text("half")
    (tmp_path / ".hidden").write_text("somebody's")
    remove_drafts(tmp_path)
    assert names(path.parent) == ["last.ckpt"]
    assert names(tmp_path) == [".hidden", "checkpoints"]
