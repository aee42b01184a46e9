"""Workers that are killed: every run is finished once, as in an undisturbed study."""

import csv
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from optuna.trial import TrialState

from lightning_prompts.cli.main import main
from lightning_prompts.studies.storage import open_storage, open_study, planned
from tests.patience import PATIENCE

SAME = ("ids", "tokens", "token_nats", "metrics", "correct", "step", "steps", "baselines")


def start(path: Path, name: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "lightning_prompts", "study", "--config", str(path)]
    command += ["--study.name", name, "--workers", "2"]
    root = str(Path(__file__).resolve().parents[2])
    environment = {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def workers(parent: int) -> list[int]:
    """Processes that a process has started."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            content = stat.read_text()
        except OSError:  # it has ended meanwhile
            continue
        if int(content.rpartition(")")[2].split()[1]) == parent:
            found.append(int(stat.parent.name))
    return found


def reported(name: str) -> tuple[list[dict[str, str]], str]:
    """A study's report: its rows, and the page's findings, without what was timed or is a name."""
    folder = Path("logs/studies") / name
    main(["report", str(folder)])
    with (folder / "report" / "results.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        for column in [c for c in row if c in ("run", "study") or "seconds" in c]:
            del row[column]
    assert len(rows) == 12
    text = (folder / "report" / "results.md").read_text(encoding="utf-8")
    return rows, text.replace(name, "NAME")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds the workers in /proc")
def test_twelve_runs_survive_three_kills(study_file, configure, content):
    content["set"] |= {"trainer.max_steps": 300, "trainer.val_check_interval": 20}
    blocks = {"study": {"name": "x", "seeds": [0, 1, 2, 3]}}
    path = study_file(**blocks)
    straight = start(path, "straight")
    assert straight.wait(timeout=PATIENCE) == 0

    config = configure({"study.name": "killed"}, **blocks)
    process = start(path, "killed")
    killed: list[int] = []
    deadline = time.monotonic() + PATIENCE
    while len(killed) < 3 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.5)
        # One that is within a run: a checkpoint is newer than the latest kill.
        saved = len(list(config.folder.glob("trials/*/checkpoints/last.ckpt")))
        alive = workers(process.pid)
        if saved > 2 * len(killed) and len(alive) == 2:
            killed.append(alive[len(killed) % 2])
            os.kill(killed[-1], signal.SIGKILL)
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, said
    assert len(set(killed)) == 3
    assert len(re.findall(r"died \(SIGKILL\); another one goes on", said)) == 3

    runs = planned(open_study(config, open_storage(config)))
    assert [run.state for run in runs] == [TrialState.COMPLETE] * 12
    assert len(list((config.folder / "trials").iterdir())) == 12
    other = configure({"study.name": "straight"}, **blocks)
    expected = planned(open_study(other, open_storage(other)))
    for own, theirs in zip(runs, expected, strict=True):
        assert own.params == theirs.params
        assert own.values == theirs.values
        for name in SAME:
            assert own.user_attrs["record"][name] == theirs.user_attrs["record"][name], name
        histories = [t.user_attrs["record"]["history"] for t in (own, theirs)]
        for validation in (*histories[0], *histories[1]):
            del validation["seconds"]
        assert histories[0] == histories[1]
    assert reported("killed") == reported("straight")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds the workers in /proc")
def test_a_whole_study_is_killed_and_started_again(study_file, configure, content):
    content["set"] |= {"trainer.max_steps": 300, "trainer.val_check_interval": 20}
    path, config = study_file(), configure({"study.name": "killed"})
    process = start(path, "killed")
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        time.sleep(0.5)
        if len(list(config.folder.glob("trials/*/test.json"))) >= 2:
            break
    for pid in [process.pid, *workers(process.pid)]:
        os.kill(pid, signal.SIGKILL)
    process.wait()
    before = {p: p.stat().st_mtime_ns for p in config.folder.glob("trials/*/test.json")}
    assert before
    again = start(path, "killed")
    _, said = again.communicate(timeout=PATIENCE)
    assert again.returncode == 0, said
    runs = planned(open_study(config, open_storage(config)))
    assert [run.state for run in runs] == [TrialState.COMPLETE] * 6
    assert "of 6 runs done" in said.splitlines()[1]


@pytest.mark.slow
def test_a_signal_stops_all_workers(study_file, configure, content):
    content["set"] |= {"trainer.max_steps": 300, "trainer.val_check_interval": 20}
    path, config = study_file(), configure({"study.name": "stopped"})
    process = start(path, "stopped")
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        time.sleep(0.5)
        if list(config.folder.glob("trials/*/checkpoints/last.ckpt")):
            break
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 128 + signal.SIGTERM
    assert "the same command goes on" in said
    runs = planned(open_study(config, open_storage(config)))
    assert {run.state for run in runs} <= {
        TrialState.COMPLETE,
        TrialState.WAITING,
        TrialState.RUNNING,
    }
    assert start(path, "stopped").wait(timeout=PATIENCE) == 0
    runs = planned(open_study(config, open_storage(config)))
    assert [run.state for run in runs] == [TrialState.COMPLETE] * 6
