"""The soak in small: three kills, a full disk; and how its figures reach the document."""

from pathlib import Path

import pytest

from soak import __main__ as soak
from soak.disk import NotPermittedError, full
from soak.kills import OPTIONS, kill, stopped_and_resumed
from soak.memory import growth
from soak.runs import Runs, apart


@pytest.mark.slow
def test_three_kills(tmp_path: Path):
    runs = Runs(tmp_path, (*OPTIONS, "--trainer.max_steps", "60"))
    assert len(stopped_and_resumed(runs, 3, kill, seed=2)) > 0


@pytest.mark.slow
def test_a_full_disk(tmp_path: Path):
    try:
        _, status, said, _, gone_on = full(tmp_path)
    except NotPermittedError:
        pytest.skip("needs to mount a tmpfs")
    assert status == "2"
    assert "No space left on device; make room; the last good checkpoint is full/stopped" in said
    assert gone_on == "same as uninterrupted, to the last bit"


def test_only_a_step_before_a_validation_may_be_missing_from_the_logs():
    validated = {"val/loss": {10: 1.0}}
    full = {"train/loss": {8: 1.0, 9: 3.0}, **validated}
    assert apart({"train/loss": {8: 1.0}, **validated}, full) == []
    assert apart({"train/loss": {9: 3.0}, **validated}, full) == [("train/loss", 8, None, 1.0)]
    assert apart({**full, "val/loss": {}}, full) == [("val/loss", 10, None, 1.0)]
    wrong = {"train/loss": {8: 1.0, 9: 2.0}, **validated}
    assert apart(wrong, full) == [("train/loss", 9, 2.0, 3.0)]


def test_a_section_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    document = tmp_path / "reliability.md"
    rest = "<!-- /kills -->\nb\n<!-- disk -->\n<!-- /disk -->\n"
    document.write_text(f"a\n<!-- kills -->\nold\n{rest}")
    monkeypatch.setattr(soak, "DOCUMENT", document)
    soak.write("kills", "new\nfigures")
    text = document.read_text()
    assert text == f"a\n<!-- kills -->\nnew\nfigures\n{rest}"
    with pytest.raises(SystemExit) as stopped:
        soak.main(["missing"])
    assert stopped.value.code == 2
    assert document.read_text() == text


def test_every_part_has_a_module():
    names = soak.MARK.findall(soak.DOCUMENT.read_text(encoding="utf-8"))
    assert {"kills", "disk", "memory"} <= set(names)
    for name in names:
        assert (Path(soak.__file__).with_name(f"{name}.py")).is_file(), name


def test_growth():
    assert growth([[1000, 100], [2000, 110], [3000, 99]]) == pytest.approx([0.1, -0.1])
