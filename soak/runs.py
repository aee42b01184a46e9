"""Real runs of the tiny model in processes of their own: started, watched, stopped, compared."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from tests.resuming import assert_same, last, logged
from tests.tiny import save_model, save_reviews

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 900.0  # a process that takes longer hangs
COMPARED = ("state_dict", "optimizer_states", "lr_schedulers", "forward_tokens", "global_step")


class Runs:
    """Runs of `fit` with the same options, in one folder.

    Args:
        folder: Gets the model and the data; runs go to its `logs`.
        options: Of `fit`, beside model, data and experiment.
        logs: Where runs go instead.
    """

    def __init__(self, folder: Path, options: Sequence[str], logs: Path | None = None) -> None:
        self.folder, self.options = folder, list(options)
        self.logs = logs or folder / "logs"
        if not (folder / "lm").is_dir():
            (folder / "lm").mkdir(parents=True)
            save_model(folder / "lm")
            save_reviews(folder / "reviews", {"train": 60, "validation": 21, "test": 9})

    def run(self, name: str) -> Path:
        """Folder of a run."""
        return self.logs / name / "version_0"

    def start(self, name: str, *args: str) -> "Process":
        """Begin a run, or go on with one whose configuration and last checkpoint are there."""
        run = self.run(name)
        if (run / "checkpoints" / "last.ckpt").is_file():
            given = ["--config", str(run / "config.yaml"), "--ckpt_path", "last"]
        else:
            given = [
                *("--config", "configs/task/demo.yaml", "--lm.name", str(self.folder / "lm")),
                *("--data.path", str(self.folder / "reviews"), "--experiment", name),
                *("--trainer.logger.save_dir", str(self.logs), *self.options),
            ]
            if run.is_dir():  # stopped before anything was saved: begun anew, in the same place
                _clear(run)
        command = [sys.executable, "-m", "lightning_prompts", "fit", *given, *args]
        return Process(command, self.folder)

    def finish(self, name: str, seconds: float = SECONDS) -> "Process":
        """Begin a run or go on with it, to its end.

        Raises:
            RuntimeError: If it ends with an error.
        """
        process = self.start(name)
        if (status := process.wait(seconds)) != 0:
            raise RuntimeError(f"Exit status {status}: {process.said()[-2000:]}")
        return process

    def assert_equal(self, name: str, other: str) -> None:
        """Two runs ended alike, to the last bit.

        Raises:
            AssertionError: If not.
        """
        own, expected = last(self.run(name)), last(self.run(other))
        for key in COMPARED:
            assert_same(own[key], expected[key], key)
        assert_same(_history(own), _history(expected), "history")
        differences = apart(logged(self.run(name)), logged(self.run(other)))
        assert not differences, f"logged values: {differences[:5]}"
        texts = [(self.run(n) / "prompt.json").read_text() for n in (name, other)]
        assert texts[0] == texts[1], "prompt.json"


class Process:
    """A command whose output goes to a file, so that it never waits for a reader."""

    _count = 0

    def __init__(self, command: Sequence[str], folder: Path) -> None:
        Process._count += 1
        self._log = folder / f"output-{Process._count}.txt"
        paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "OMP_NUM_THREADS": "1",
        }
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                cwd=folder,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )

    def said(self) -> str:
        """What it has written."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def wait(self, seconds: float = SECONDS) -> int:
        """Its exit status; one that hangs is killed.

        Raises:
            TimeoutError: If it does.
        """
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise TimeoutError(f"Still running after {seconds} s: {self.said()[-2000:]}") from None

    def wait_until(self, reached: Any, seconds: float = SECONDS) -> bool:
        """Wait for a condition; False where the process ended before."""
        deadline = time.monotonic() + seconds
        while not reached():
            if self.process.poll() is not None:
                return False
            if time.monotonic() > deadline:
                self.process.kill()
                raise TimeoutError(f"Not reached in {seconds} s: {self.said()[-2000:]}")
            time.sleep(0.002)
        return True

    def has_begun(self) -> bool:
        """Whether it has said what it runs on."""
        return " on demo with " in self.said() or " on reviews with " in self.said()


def step_of(run: Path) -> int:
    """The step of a run's last checkpoint, 0 without one."""
    path = run / "checkpoints" / "last.ckpt"
    if not path.is_file():
        return 0
    return int(torch.load(path, weights_only=True)["global_step"])


def _history(content: dict[str, Any]) -> Any:
    return next(s["history"] for s in content["callbacks"].values() if "history" in s)


def apart(
    own: dict[str, dict[int, float]], expected: dict[str, dict[int, float]]
) -> list[tuple[str, int, float | None, float | None]]:
    """Names and steps whose logged values are not the same, with both.

    The values of a step before a validation are written some milliseconds after the checkpoint
    between the two: a kill just there loses them, and they may be missing.
    """
    validated = {step for name, at in expected.items() if name.startswith("val/") for step in at}
    return [
        (name, step, ours, theirs)
        for name in sorted(own.keys() | expected.keys())
        for step in sorted(own.get(name, {}).keys() | expected.get(name, {}).keys())
        if (ours := own.get(name, {}).get(step)) != (theirs := expected.get(name, {}).get(step))
        and not (ours is None and name.startswith("train/") and step + 1 in validated)
    ]


def _clear(run: Path) -> None:
    for path in sorted(run.rglob("*"), reverse=True):
        if path.is_dir():
            path.rmdir()
        else:
            path.unlink()
    run.rmdir()
