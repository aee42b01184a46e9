"""Who works on which run, so that a worker that dies leaves its run to the others."""

import contextlib
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from lightning_prompts.files.locks import lock
from lightning_prompts.studies.storage import planned

WORKER, ALIVE = "worker", "alive"
LOCKS = "workers"
# Another machine's worker that has given no sign for this long is taken for dead.
SIGN_SECONDS, GRACE_SECONDS = 60.0, 300.0


class Claims:
    """Takes runs of a study, one at a time, and gives back those of dead workers.

    On one machine a worker is known to live by its lock, which the system releases however the
    process ends, by `kill -9` too. Of other machines' workers only the signs of life in the
    storage are seen, one a minute while a run is under way.

    Args:
        study: Optuna's.
        folder: The study's.
    """

    def __init__(self, study: optuna.Study, folder: Path) -> None:
        self.study = study
        self.locks = (folder / LOCKS).absolute()
        self.locks.mkdir(parents=True, exist_ok=True)
        self.path = self.locks / f"{os.getpid()}-{uuid.uuid4().hex[:8]}.lock"
        self._file: IO[str] | None = None

    def __enter__(self) -> "Claims":
        self._file = self.path.open("w", encoding="utf-8")
        lock(self._file.fileno(), wait=True)
        return self

    def __exit__(self, *_: Any) -> None:
        assert self._file is not None
        with contextlib.suppress(PermissionError):  # of Windows, where it is open
            self.path.unlink(missing_ok=True)
        self._file.close()
        self.path.unlink(missing_ok=True)

    @property
    def identity(self) -> dict[str, str]:
        """What the storage says of this worker."""
        return {"host": socket.gethostname(), "lock": str(self.path)}

    def next(self) -> Trial | None:
        """Take the first run that waits; None where there is none."""
        storage = self.study._storage
        with self._alone():
            self._reclaim()
            for trial in planned(self.study):
                if trial.state != TrialState.WAITING:
                    continue
                # Both before, so that a run under way always names its worker, and after, because
                # another machine may have written between.
                self._sign(trial._trial_id)
                if storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING):
                    self._sign(trial._trial_id)
                    return Trial(self.study, trial._trial_id)
        return None

    def owns(self, trial: Trial) -> bool:
        """Whether the run is still this worker's: a machine that slept may have lost it."""
        found = self.study._storage.get_trial(trial._trial_id)
        mine = found.user_attrs.get(WORKER) == self.identity
        return mine and found.state == TrialState.RUNNING

    def release(self, trial: Trial) -> None:
        """Let others go on with a run that was stopped."""
        if self.owns(trial):
            self.study._storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)

    @contextlib.contextmanager
    def signs(self, trial: Trial) -> Iterator[None]:
        """Give signs of life while a run is under way."""
        done = threading.Event()

        def sign() -> None:
            while not done.wait(SIGN_SECONDS):
                try:
                    trial.set_user_attr(ALIVE, time.time())
                except Exception:
                    return  # finished or taken away; whoever owns it tells

        thread = threading.Thread(target=sign, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def _sign(self, trial_id: int) -> None:
        storage = self.study._storage
        storage.set_trial_user_attr(trial_id, ALIVE, time.time())
        storage.set_trial_user_attr(trial_id, WORKER, self.identity)

    def _reclaim(self) -> None:
        for trial in planned(self.study):
            if trial.state == TrialState.RUNNING and _is_dead(trial):
                self.study._storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """No other worker of this machine takes or gives back runs meanwhile."""
        with (self.locks / "claims").open("w", encoding="utf-8") as file:
            lock(file.fileno(), wait=True)
            yield


def _is_dead(trial: FrozenTrial) -> bool:
    """Whether nobody works on a run that is said to be under way."""
    worker = trial.user_attrs.get(WORKER) or {}
    if worker.get("host") == socket.gethostname():
        path = Path(worker["lock"])
        if not path.exists():
            return True
        with path.open("r+", encoding="utf-8") as file:
            if (free := lock(file.fileno())) is not None:
                return free
    return time.time() - float(trial.user_attrs.get(ALIVE, 0.0)) > GRACE_SECONDS
