"""One mistake of a user: a real command line, and what came of it."""

import os
import re
import resource
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from soak.world import World

ROOT = Path(__file__).resolve().parent.parent
LIMIT = 90.0  # seconds after which a case hangs
SLOW = 10.0  # seconds that a mistake may take to be said
MISTAKE = 2

Prepare = Callable[[World, Path], AbstractContextManager[object]]


@dataclass(frozen=True)
class Case:
    """A command line with a mistake in it.

    Attributes:
        group: What kind of mistake.
        name: The mistake, for the table.
        args: The command line; `<lm>` and others stand for paths (`World.filled`).
        says: Parts that the message must have.
        files: Written into the case's own folder first.
        prepare: Does what files cannot, and undoes it.
        status: The exit status that is right: 0 where it is no mistake after all.
        alone: Needs a process of its own, because it starts others like it.
    """

    group: str
    name: str
    args: tuple[str, ...]
    says: tuple[str, ...] = ()
    files: Mapping[str, str | bytes] = field(default_factory=dict)
    prepare: Prepare | None = None
    status: int = MISTAKE
    alone: bool = False


@dataclass(frozen=True)
class Outcome:
    """What a case led to.

    Attributes:
        case: The case.
        status: The exit status; None where it hung.
        message: The last line of the error output, without the machine's paths.
        output: All that was written, for people.
        seconds: From start to end.
        processor: Seconds of a processor in a new process, which hardly depend on what else the
            machine does; None for a fork.
    """

    case: Case
    status: int | None
    message: str
    output: str
    seconds: float
    processor: float | None = None

    @property
    def faults(self) -> list[str]:
        """What is wrong with the outcome; nothing where it is as it should be."""
        found = []
        if self.status is None:
            found.append("hang")
        elif self.status != self.case.status:
            found.append(f"exit status {self.status}")
        if "Traceback" in self.output:
            found.append("traceback")
        if self.status == MISTAKE and not is_sentence(self.message):
            found.append("no sentence")
        found += [f"does not say {part!r}" for part in self.case.says if part not in self.message]
        # A new process spends most of its seconds on imports, which a busy machine draws out.
        spent = self.seconds if self.processor is None else self.processor
        if self.status is not None and spent > SLOW:
            found.append("slow")
        return found


def is_sentence(message: str) -> bool:
    """Whether a message begins with a word or an option, ends, and holds no usage dump."""
    ends = message.rstrip().endswith((".", "?", "'."))
    return ends and 15 < len(message) < 1500 and "usage:" not in message


def run_case(case: Case, world: World, here: Path, fresh: bool = True) -> Outcome:
    """Run a case in a folder of its own.

    Args:
        case: What to run.
        world: What it may read.
        here: Its folder, not there yet.
        fresh: In a new process, as a user would. False forks this one, which knows the libraries
            already: the same outcome, without the seconds of their import.
    """
    here.mkdir(parents=True)
    for name, content in case.files.items():
        path = here / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            path.write_text(world.filled(content, here), encoding="utf-8")
        else:
            path.write_bytes(content)
    args = [world.filled(arg, here) for arg in case.args]
    with (case.prepare or _nothing)(world, here), (here / ".output").open("w+b") as output:
        began = time.monotonic()
        run = _fresh if fresh or case.alone else _forked
        status, processor = run(args, here, output.fileno())
        seconds = time.monotonic() - began
        output.seek(0)
        said = output.read().decode("utf-8", "replace")
    message = said.strip().splitlines()[-1] if said.strip() else ""
    return Outcome(case, status, shown(message, world, here), said, seconds, processor)


def shown(message: str, world: World, here: Path) -> str:
    """A message without the machine's folders."""
    for place in (here, world.folder):
        message = message.replace(str(place.resolve()), "…").replace(str(place), "…")
    message = message.replace(str(ROOT), "…")
    return re.sub(r"0x[0-9a-f]{6,}", "0x…", message)


def _nothing(world: World, here: Path) -> AbstractContextManager[object]:
    return nullcontext()


def environment(here: Path) -> dict[str, str]:
    """Variables of a machine without GPU and hub."""
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "CUDA_VISIBLE_DEVICES": "",
        "HF_ENDPOINT": "http://127.0.0.1:9",  # nothing listens there
        "HF_HOME": str(here / ".hub"),
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "100",
    }


def _fresh(args: list[str], here: Path, output: int) -> tuple[int | None, float | None]:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    process = subprocess.Popen(
        [sys.executable, "-m", "lightning_prompts", *args],
        cwd=here,
        env=environment(here),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,
    )
    status: int | None
    try:
        status = process.wait(LIMIT)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        status = None
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return status, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _forked(args: list[str], here: Path, output: int) -> tuple[int | None, None]:
    child = os.fork()
    if child == 0:
        _become(args, here, output)
    until = time.monotonic() + LIMIT
    while time.monotonic() < until:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status), None
        time.sleep(0.01)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None, None


def _become(args: list[str], here: Path, output: int) -> None:
    """Turn a forked child into the command; does not return."""
    code = 1
    try:
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        # A test's capture may have put something else there.
        sys.stdout, sys.stderr = (os.fdopen(n, "w", encoding="utf-8") for n in (1, 2))
        os.chdir(here)
        os.environ.update(environment(here))
        sys.argv = ["lightning-prompts", *args]
        from lightning_prompts.__main__ import run

        run()
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
