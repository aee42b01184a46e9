"""SLURM's warning before a job's time is over: save, stop, and put the job back into the queue."""

import os
import signal
import subprocess
import threading
from types import FrameType

from lightning.fabric.plugins.environments import SLURMEnvironment
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException

from lightning_prompts.callbacks.base import find_callback
from lightning_prompts.files.console import notice
from lightning_prompts.files.lightning_internals import cluster_of, ignore_after_fit
from lightning_prompts.runs.last_prompt import LastPrompt


class Requeue(Callback):
    """Takes SLURM's signal (SIGUSR1) as it takes SIGTERM, and remembers that it was SLURM's.

    Lightning's own handler saves at once, wherever the step stands: a run that goes on from there
    is not the run without the stop, several processes may each wait for another one's exchange, and
    any later fit from the same folder would begin with that file.
    """

    def __init__(self) -> None:
        self._signum: int | None = None
        self.asked = False
        """Whether the signal came to any process; known to all of them once the run has stopped."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen where SLURM runs the job and Lightning is to requeue it."""
        environment = cluster_of(trainer)
        if not isinstance(environment, SLURMEnvironment) or not environment.auto_requeue:
            return
        if threading.current_thread() is not threading.main_thread():
            return
        if (last := find_callback(trainer, LastPrompt)) is None:
            return  # nothing would be saved to go on from
        signum = self._signum = environment.requeue_signal
        assert signum is not None

        def handle(signum: int, frame: FrameType | None) -> None:
            self.asked = True
            last.stopped_by = last.stopped_by or signum
            # Not through Python's buffers, which the signal may have interrupted.
            os.write(2, b"\nStopping after this step, to go on when SLURM starts the job again.\n")

        signal.signal(signum, handle)
        # It may reach a process that has stopped already, and would end it.
        ignore_after_fit(trainer, signum)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Tell all processes, which stop after the same step, where one was asked."""
        if self._signum is not None and isinstance(exception, SIGTERMException):
            self.asked = trainer.strategy.reduce_boolean_decision(self.asked, all=False)
            if self.asked and (last := find_callback(trainer, LastPrompt)) is not None:
                last.stopped_by = self._signum


def requeue_job() -> None:
    """Ask SLURM to queue this job again, which ends it."""
    job = os.environ.get("SLURM_JOB_ID", "")
    if array := os.environ.get("SLURM_ARRAY_JOB_ID"):
        job = f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    try:
        done = subprocess.run(
            ["scontrol", "requeue", job], capture_output=True, text=True, check=False
        )
        failed = done.stderr.strip() or f"status {done.returncode}" if done.returncode else None
    except OSError as error:
        failed = str(error)
    if failed is None:
        notice(f"SLURM has job {job} in its queue again.")
    else:
        notice(f"SLURM did not queue job {job} again ({failed}); start it anew to go on.")
