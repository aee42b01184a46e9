"""A study from its plan to its table, with its runs in this process or in several others."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

import optuna
import torch
from rich.text import Text

from lightning_prompts.files.amounts import count
from lightning_prompts.files.console import console, notice
from lightning_prompts.files.errors import PromptError
from lightning_prompts.files.text import command, short_path
from lightning_prompts.studies.config import StudyConfig
from lightning_prompts.studies.estimate import Cost, costs
from lightning_prompts.studies.needs import limited, needs
from lightning_prompts.studies.plan import VARIANT, planned_runs
from lightning_prompts.studies.progress import duration, progress_of
from lightning_prompts.studies.shared import SharedLM
from lightning_prompts.studies.storage import STUDY, open_storage, open_study, retry_failed
from lightning_prompts.studies.table import findings
from lightning_prompts.studies.worker import Worker, parent_lives

ESTIMATE = "estimate"
POLL_SECONDS = 1.0
THREADS = "OMP_NUM_THREADS"
# Workers that die one after the other, with no run finished between, would die for ever.
MOST_DEATHS = 3


def run(
    config: StudyConfig, workers: int, only_estimate: bool = False, again: bool = False
) -> None:
    """Plan, estimate, run and show a study.

    Args:
        config: The study's.
        workers: Processes that run it.
        only_estimate: Whether to stop before the first run.
        again: Whether runs that failed before are run once more.

    Raises:
        PromptError: If the user can fix it.
        SystemExit: 1 where every run failed; 130 or 143 where a signal stopped it.
    """
    config = limited(config)
    fetched = needs(config)
    plan = planned_runs(config)
    settings = len({planned.group for planned in plan})
    seeds = len(config.settings.seeds)
    shape = f"{count(settings, 'setting')} x {count(seeds, 'seed')} = {count(len(plan), 'run')}"
    notice(f"Study {config.name}: {shape}.")
    for need in fetched:
        notice(f"To fetch: {need}.")
    study = open_study(config, open_storage(config))
    lm = SharedLM()
    if again and not only_estimate and (failed := retry_failed(study)):
        notice(f"Trying {count(failed, 'failed run')} again.")
    progress = progress_of(study)
    if progress.finished:
        notice(progress.said(workers))
    elif ESTIMATE not in study.user_attrs:
        with _threads_of_one(workers):
            measured = costs(config, lm)
        study.set_user_attr(ESTIMATE, {name: cost.seconds for name, cost in measured.items()})
        for line in _estimated(config, measured, workers):
            notice(line)
    if only_estimate:
        return
    with _going_on():
        if workers == 1:
            Worker(config, study, lm, lambda: notice(progress_of(study).said(1))).work()
        elif progress.finished < progress.total:
            del lm  # each worker has its own
            _Pool(config, study, workers).run()
    _show(config, study)


def work(config: StudyConfig) -> None:
    """Be one of several workers of a study that another process has planned."""
    config = limited(config)
    study = open_study(config, open_storage(config))
    Worker(config, study).work(parent_lives())


class _Pool:
    """Processes that work on one study, replaced where they die."""

    def __init__(self, config: StudyConfig, study: optuna.Study, workers: int) -> None:
        self.config, self.study, self.workers = config, study, workers
        self.processes: dict[int, subprocess.Popen[bytes]] = {}
        self.deaths = 0

    def run(self) -> None:
        """Until no run is left.

        Raises:
            PromptError: If workers keep dying, or stop with a mistake.
            SystemExit: If a signal came.
        """
        finished = progress_of(self.study).finished
        signals = (signal.SIGTERM, signal.SIGHUP) if os.name == "posix" else (signal.SIGTERM,)
        handlers = {signum: signal.signal(signum, _interrupt) for signum in signals}
        try:
            self.processes = {i: self._start(i) for i in range(self.workers)}
            while self.processes:
                time.sleep(POLL_SECONDS)
                self._replace_dead()
                progress = progress_of(self.study)
                if progress.finished > finished:
                    finished, self.deaths = progress.finished, 0
                    notice(progress.said(self.workers))
        except (KeyboardInterrupt, SystemExit):
            notice("Stopping after the steps under way.")
            self._stop()
            raise
        except PromptError:
            self._stop()
            raise
        finally:
            for signum, handler in handlers.items():
                signal.signal(signum, handler)

    def _start(self, number: int) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "lightning_prompts", "study", "--worker"]
        command += ["--config", str(self.config.folder / STUDY)]
        environment = dict(os.environ)
        environment[THREADS] = str(_threads(self.workers))
        if (devices := torch.cuda.device_count()) > 1:
            environment.setdefault("CUDA_VISIBLE_DEVICES", str(number % devices))
        with self._log(number).open("ab") as log:
            # In a session of its own, so that Ctrl-C comes once, from here.
            return subprocess.Popen(
                command, stdout=log, stderr=log, env=environment, start_new_session=True
            )

    def _replace_dead(self) -> None:
        for number, process in list(self.processes.items()):
            code = process.poll()
            if code is None:
                continue
            del self.processes[number]
            if code == 0:
                continue
            log = short_path(self._log(number))
            if code == 2:
                raise PromptError(f"Worker {number}: {_last_line(self._log(number))} ({log})")
            self.deaths += 1
            if self.deaths > MOST_DEATHS:
                raise PromptError(
                    f"Workers died {self.deaths} times and no run was finished between; the log "
                    f"of the last one is {log}. Memory may be short: give fewer --workers."
                )
            notice(f"Worker {number} died ({_ending(code)}); another one goes on with its run.")
            self.processes[number] = self._start(number)

    def _stop(self) -> None:
        """End all workers as a signal would, which saves their checkpoints; wait for them."""
        for process in self.processes.values():
            process.terminate()
        try:
            for process in self.processes.values():
                process.wait()
        except KeyboardInterrupt:  # once more: at once
            for process in self.processes.values():
                process.kill()

    def _log(self, number: int) -> Path:
        folder = self.config.folder / "workers"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"worker-{number}.log"


@contextlib.contextmanager
def _going_on() -> Iterator[None]:
    """Say of a study that is stopped how it goes on."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        notice("Stopped; the same command goes on where it was.")
        raise


def _interrupt(signum: int, frame: Any) -> None:
    raise SystemExit(128 + signum)


def _estimated(config: StudyConfig, measured: Mapping[str, Cost], workers: int) -> Iterator[str]:
    """What the study will cost."""
    plan = planned_runs(config)
    drawn = fmean(cost.seconds for cost in measured.values())
    first = next(iter(config.variants))
    total = 0.0
    for planned in plan:
        name = None if planned.params is None else planned.params.get(VARIANT, first)
        total += drawn if name is None else measured[str(name)].seconds
    for name, cost in measured.items():
        yield (
            f"  {name or 'a run'}: {count(cost.steps, 'step')} of "
            f"{cost.training / cost.steps:.2f} s, {count(cost.batches, 'batch', 'batches')} of "
            f"evaluation of {cost.evaluation / cost.batches:.2f} s: "
            f"about {duration(cost.seconds)}"
        )
    several = f" with {workers} workers, if there are cores for each" if workers > 1 else ""
    whole = duration(total / min(workers, len(plan)))
    yield f"All {count(len(plan), 'run')}: about {whole}{several}."


def _show(config: StudyConfig, study: optuna.Study) -> None:
    """The table, and where everything is."""
    progress = progress_of(study)
    console.print()
    console.print(findings(config, study))
    if progress.failed:
        console.print(
            Text(
                f"{progress.failed} of {count(progress.total, 'run')} failed; error.txt in the "
                "folder of each says why; the same command with --retry_failed tries them again."
            )
        )
    folder = short_path(config.folder)
    console.print(Text(f"Files: {folder}"), soft_wrap=True)
    console.print(Text(f"Figures: {command('report', folder)}"), soft_wrap=True)
    if progress.failed == progress.total:
        raise SystemExit(1)


def _threads(workers: int) -> int:
    """Threads of each of several workers: with all cores they would only take turns."""
    return int(os.environ.get(THREADS) or max(1, len(_cores()) // workers))


@contextlib.contextmanager
def _threads_of_one(workers: int) -> Iterator[None]:
    """Compute with as many threads as each of several workers will have."""
    own = torch.get_num_threads()
    if workers > 1:
        torch.set_num_threads(min(own, _threads(workers)))
    try:
        yield
    finally:
        torch.set_num_threads(own)


def _cores() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def _ending(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit status {code}"


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"
