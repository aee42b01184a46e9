"""SIGTERM and Ctrl-C: the first ends a fit after its step, another one at once."""

import os
import signal
import threading
from types import FrameType

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException


class StopSignals(Callback):
    """Notes the first signal in a fit, to be ended where nothing is lost; tests end at once."""

    stopped_by: int | None = None

    def listen(self) -> None:
        """From now on; Lightning puts its caller's handlers back when it ends."""
        if threading.current_thread() is threading.main_thread():
            for signum in (signal.SIGINT, signal.SIGTERM):
                signal.signal(signum, self._on_signal)

    def came(self, trainer: Trainer) -> bool:
        """Whether a signal came to any process; all of them ask."""
        return trainer.strategy.reduce_boolean_decision(self.stopped_by is not None, all=False)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave an evaluation that is not part of a fit to the signal."""
        die_of_sigterm()

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """As for a test."""
        die_of_sigterm()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Give the first process the exit status of its signal, or a script would end with 0."""
        # Lightning kills the first process where another one ends with an error first.
        if isinstance(exception, SIGTERMException) and trainer.is_global_zero:
            exception.code = 128 + (self.stopped_by or signal.SIGTERM)

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        self.stopped_by = signum
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        # Not through Python's buffers, which the signal may have interrupted.
        os.write(2, b"\nStopping after this step; once more to stop at once.\n")


def die_of_sigterm() -> None:
    """Undo Lightning's handler, which only notes the signal and lets an evaluation run on."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
