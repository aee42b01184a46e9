"""A disk that fills up, or turns read-only, in the middle of a run: said, and nothing is lost."""

import contextlib
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from soak.runs import Process, Runs, step_of

STEPS = 120
OPTIONS = (
    *("--config", "configs/tuner/soft.yaml", "--data.batch_size", "8"),
    *("--trainer.max_steps", str(STEPS), "--trainer.val_check_interval", "10"),
    *("--trainer.log_every_n_steps", "1", "--trainer.enable_progress_bar", "false"),
)
SIZE = "8m"
NOT_RUN = "Not run: needs to mount a file system, which this machine does not permit."


class NotPermittedError(Exception):
    """A file system cannot be mounted."""


def main(folder: Path) -> str:
    """Fill a small tmpfs under a run, and remount one read-only."""
    try:
        rows = [full(folder), read_only(folder)]
    except NotPermittedError:
        return NOT_RUN
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"""\
Runs of {STEPS} steps on a tmpfs of {SIZE}, in which nothing but the run lies. When it has saved
checkpoints, the tmpfs is filled to the last byte, or remounted read-only. Afterwards there is
room again, or it is writable, and the run goes on with `--ckpt_path last`.

| fault | exit status | what was said | last.ckpt, previous.ckpt, best.ckpt | gone on with |
| --- | --- | --- | --- | --- |
{table}"""


def under_fault(
    fault: str, place: Path, harm: Callable[[Process, Path], None], mend: Callable[[Path], None]
) -> list[str]:
    """A run whose disk fails it, and which is gone on with: a row of the table.

    Args:
        fault: Its name in the table.
        place: Of the disk, in the soak's folder.
        harm: Given the process and its disk; returns when nothing can be written any more.
        mend: Undoes it.

    Raises:
        NotPermittedError: If there can be no tmpfs.
    """
    with small_disk(place) as disk:
        runs = Runs(place.parent, OPTIONS, disk)
        process = begun(runs, "stopped")
        harm(process, disk)
        status = process.wait()
        row = [fault, str(status), message(process, disk), states(runs, "stopped")]
        mend(disk)
        return [*row, gone_on_with(runs)]


def full(folder: Path) -> list[str]:
    """The tmpfs fills up."""

    def harm(process: Process, disk: Path) -> None:
        # Again and again: what is deleted in between would leave room.
        while process.process.poll() is None:
            fill(disk / "filler")

    return under_fault("disk full", folder / "full", harm, lambda disk: (disk / "filler").unlink())


def read_only(folder: Path) -> list[str]:
    """The tmpfs becomes read-only."""

    def harm(process: Process, disk: Path) -> None:
        # Busy while anything is being written.
        process.wait_until(lambda: mount("-o", "remount,ro", str(disk)))

    def mend(disk: Path) -> None:
        if not mount("-o", "remount,rw", str(disk)):
            raise RuntimeError("The tmpfs stays read-only.")

    return under_fault("read-only", folder / "read-only", harm, mend)


@contextlib.contextmanager
def small_disk(place: Path) -> Iterator[Path]:
    """A tmpfs of its own.

    Raises:
        NotPermittedError: If it cannot be mounted.
    """
    place.mkdir()
    if not mount("-t", "tmpfs", "-o", f"size={SIZE}", "soak", str(place)):
        raise NotPermittedError
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def mount(*args: str) -> bool:
    """Whether `mount` could."""
    with contextlib.suppress(FileNotFoundError):
        return subprocess.run(["mount", *args], capture_output=True, check=False).returncode == 0
    return False


def begun(runs: Runs, name: str) -> Process:
    """A run that has saved checkpoints, and not yet ended."""
    process = runs.start(name)
    if not process.wait_until(lambda: step_of(runs.run(name)) >= 20):
        raise RuntimeError(f"It ended by itself: {process.said()[-2000:]}")
    return process


def fill(path: Path) -> None:
    """Write until nothing fits any more."""
    with contextlib.suppress(OSError), path.open("ab", buffering=0) as file:
        for size in (2**16, 1):
            with contextlib.suppress(OSError):
                while file.write(bytes(size)):
                    pass


def message(process: Process, disk: Path) -> str:
    """The last line that was said, without the place of the soak.

    Raises:
        AssertionError: If there is a traceback.
    """
    said = process.said()
    assert "Traceback" not in said, said
    lines = [line for line in said.splitlines() if line.strip()]
    line = lines[-1].replace(f"{disk.parent}{os.sep}", "").replace("|", "\\|")
    return re.sub(r"(tfevents)\.[\w.-]+", r"\1.…", line)  # the machine's name


def states(runs: Runs, name: str) -> str:
    """The steps of the checkpoints, each of which can be read.

    Raises:
        AssertionError: If one is missing, or a draft is left of one.
    """
    folder = runs.run(name) / "checkpoints"
    assert sorted(p.name for p in folder.iterdir()) == ["best.ckpt", "last.ckpt", "previous.ckpt"]
    found = []
    for kind in ("last", "previous", "best"):
        content = torch.load(folder / f"{kind}.ckpt", weights_only=True)
        assert content["state_dict"]["prompt"].isfinite().all()
        found.append(f"step {content['global_step']}")
    return ", ".join(found)


def gone_on_with(runs: Runs) -> str:
    """Go on, and compare with a run that nothing happened to."""
    runs.finish("stopped")
    runs.finish("whole")
    runs.assert_equal("stopped", "whole")
    return "same as uninterrupted, to the last bit"
