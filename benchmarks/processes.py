"""Whole commands: their seconds, their peak memory, and when they printed which line."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

RUNNER = Path(__file__).with_name("runner.py")
POLL_SECONDS = 1.0
SHOWN = 3000  # characters of a failed command's last words


@dataclass(frozen=True)
class Ran:
    """What a command took.

    Attributes:
        began: When it was started, as `time.time()` has it.
        lines: Seconds from the start to each line of its standard output, and the line.
        seconds: Of the whole command; None where it was stopped.
        peak_mib: Of its largest process; None where it was stopped.
    """

    began: float
    lines: list[tuple[float, str]]
    seconds: float | None = None
    peak_mib: float | None = None


def run(
    command: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    until: Callable[[], bool] | None = None,
) -> Ran:
    """Run a command to its end, or until enough has been seen.

    Args:
        command: Program and arguments.
        folder: It runs in it; its error output is left there.
        environment: Beside that of this process.
        until: Asked now and then whether it may be stopped.

    Raises:
        SystemExit: If the command fails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    report, errors = folder / "took.json", folder / "stderr.txt"
    lines: list[tuple[float, str]] = []
    with errors.open("wb") as error_file:
        began, start = time.time(), time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-I", str(RUNNER), str(report.resolve()), *command],
            cwd=folder,
            # Unbuffered, so that a line is seen when it is printed.
            env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=error_file,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,  # so that all of it can be stopped at once
        )

        def read() -> None:
            assert process.stdout is not None
            for line in process.stdout:
                lines.append((time.perf_counter() - start, line.rstrip("\n")))

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        try:
            stopped = _wait(process, until)
        finally:
            _stop(process)
        reader.join(timeout=10)
    if stopped:
        return Ran(began, lines)
    took = json.loads(report.read_text(encoding="utf-8")) if report.is_file() else {}
    # Without a report the runner itself was killed.
    if status := took.get("status", process.returncode):
        words = errors.read_text(encoding="utf-8", errors="replace")[-SHOWN:]
        raise SystemExit(f"{' '.join(command)} ended with {status}:\n{words}")
    return Ran(began, lines, took["seconds"], took["peak_mib"])


def _wait(process: "subprocess.Popen[str]", until: Callable[[], bool] | None) -> bool:
    """Whether `until` was true before the process ended."""
    while process.poll() is None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(None if until is None else POLL_SECONDS)
            return False
        if until is not None and until():
            return True
    return False


def _stop(process: "subprocess.Popen[str]") -> None:
    """End the process and those that it started, if there are any left."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
