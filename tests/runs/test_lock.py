"""One fit at a time in a run's folder, however the one before it ended."""

import errno
import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from lightning_prompts.cli.main import main
from lightning_prompts.files.errors import PromptError
from lightning_prompts.runs import lock as run_lock
from lightning_prompts.runs.lock import LOCK, locked


def test_one_holder(tmp_path: Path):
    with locked(tmp_path):
        message = rf"Another fit is running in .*\(process {os.getpid()} on .+\); wait for it"
        with pytest.raises(PromptError, match=message), locked(tmp_path):
            pass
        assert (tmp_path / LOCK).is_file()  # who was refused has not freed it
    with locked(tmp_path):
        pass


def test_an_exception_frees_it(tmp_path: Path):
    (tmp_path / "kept").touch()
    with pytest.raises(ZeroDivisionError), locked(tmp_path):
        raise ZeroDivisionError
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_a_folder_that_stays_empty_is_removed(tmp_path: Path):
    with locked(tmp_path / "run"):
        assert (tmp_path / "run").is_dir()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("rank", [0, 1])
def test_every_rank_takes_part_in_finding_the_folder(
    rank: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Where an earlier fit has connected them, the first one waits for the others."""
    asked = []
    monkeypatch.setattr(run_lock, "run_folder", lambda trainer: asked.append(trainer) or tmp_path)
    trainer = SimpleNamespace(is_global_zero=rank == 0)
    with run_lock.run_locked(trainer):
        assert (tmp_path / LOCK).is_file() == (rank == 0)
    assert asked == [trainer]


def test_death_frees_it(tmp_path: Path):
    reads, writes = os.pipe()
    if (child := os.fork()) == 0:
        with locked(tmp_path):
            os.write(writes, b"held")
            time.sleep(60)
    try:
        assert os.read(reads, 4) == b"held"
        with pytest.raises(PromptError, match=f"process {child} on"), locked(tmp_path):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert (tmp_path / LOCK).is_file()
    with locked(tmp_path):
        assert (tmp_path / LOCK).read_text()[1:].startswith(f"process {os.getpid()} on ")


def test_a_file_system_without_locks_is_gone_on_with(tmp_path: Path, monkeypatch):
    def refuse(*args: object, **kwargs: object) -> bool:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("lightning_prompts.files.locks.lock_descriptor", refuse)
    with locked(tmp_path), locked(tmp_path):
        pass


def test_a_run_that_is_gone_on_with_twice(
    lm_folder: Path, review_folder: Path, tmp_path: Path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    options = [
        *("--config", "configs/tuner/soft.yaml", "--config", "configs/task/demo.yaml"),
        *("--lm.name", str(lm_folder), "--data.path", str(review_folder), "--experiment", "run"),
        *("--trainer.max_steps", "1", "--trainer.enable_progress_bar", "false"),
    ]
    main(["fit", *options], show=False)
    run = tmp_path / "logs" / "run" / "version_0"
    names = sorted(str(path) for path in run.rglob("*"))
    assert str(run / LOCK) not in names
    resume = ["fit", "--config", str(run / "config.yaml"), "--ckpt_path", "last"]
    with locked(run), pytest.raises(SystemExit) as stopped:
        main(resume)
    assert stopped.value.code == 2
    said = " ".join(capsys.readouterr().err.split())
    assert f"Another fit is running in logs/run/version_0 (process {os.getpid()} on " in said
    assert sorted(str(path) for path in run.rglob("*")) == names
    (run / "checkpoints" / ".last.ckpt.1.draft").write_text("of a killed process")
    main([*resume, "--trainer.max_steps", "2"], show=False)
    assert not list(run.rglob(".*"))
