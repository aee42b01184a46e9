"""Where processes meet, and where a run may be written: refused before any process is started."""

import socket
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Trainer

from lightning_prompts.cli.completion import refuse_own_clocks
from lightning_prompts.cli.rendezvous import check_rendezvous
from lightning_prompts.files.errors import PromptError
from lightning_prompts.runs.folder import require_writable


@pytest.fixture
def trainer() -> Trainer:
    """For two processes, which it has not started."""
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return Trainer(accelerator="cpu", devices=2, strategy="ddp", **quiet)


def test_an_occupied_port_is_named(trainer: Trainer, monkeypatch: pytest.MonkeyPatch):
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        port = str(other.getsockname()[1])
        monkeypatch.setenv("MASTER_PORT", port)
        with pytest.raises(PromptError, match=f"MASTER_PORT is {port}, where another program"):
            check_rendezvous(trainer)
    check_rendezvous(trainer)  # free again


@pytest.mark.parametrize("port", ["many", "0", "65536", "-1", ""])
def test_what_is_no_port_is_refused(port: str, trainer: Trainer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MASTER_PORT", port)
    with pytest.raises(PromptError, match="MASTER_PORT is"):
        check_rendezvous(trainer)


def test_an_unknown_host_is_refused(trainer: Trainer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MASTER_ADDR", "a..b")
    with pytest.raises(PromptError, match="MASTER_ADDR is"):
        check_rendezvous(trainer)


def test_processes_that_would_be_handed_a_run_are_refused():
    args = {"accelerator": "cpu", "devices": 2, "logger": False, "enable_checkpointing": False}
    with pytest.raises(PromptError, match="cannot be pickled; take"):
        check_rendezvous(Trainer(strategy="ddp_spawn", **args))
    check_rendezvous(Trainer(strategy="ddp_fork", **args))


def test_a_launchers_own_arrangements_are_left_alone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MASTER_PORT", "many")
    one = Trainer(accelerator="cpu", devices=1, logger=False, enable_checkpointing=False)
    check_rendezvous(one)


@pytest.mark.parametrize("interval", ["00:00:10:00", {"minutes": 10}, timedelta(minutes=10)])
def test_processes_validate_after_steps_and_not_by_their_own_clocks(interval: Any):
    with pytest.raises(PromptError, match=r"2 processes .* give a number of steps"):
        refuse_own_clocks(interval, 2)
    refuse_own_clocks(interval, 1)
    for steps in (100, 0.5, None):
        refuse_own_clocks(steps, 2)


@pytest.mark.parametrize("name", ["file", "file/below", "x" * 300, "a\0b"])
def test_a_folder_that_cannot_be_is_refused(name: str, tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PromptError, match=r"cannot be written \(.+\); do this\."):
        require_writable(tmp_path / name, "do this")


def test_a_folder_need_not_be_there_yet(tmp_path: Path):
    require_writable(tmp_path / "a" / "b", "do this")
    assert not (tmp_path / "a").exists()
