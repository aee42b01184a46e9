"""Every attribute that Lightning keeps to itself and this package reads or writes, in one place.

tests/test_lightning_internals.py says for each function whether Lightning still has what it touches
and still means the same by it. Nothing here imports Lightning: its objects are handed in.
"""

import signal
from typing import Any

# ---- the training loop


def within_step(trainer: Any) -> bool:
    """Whether the step under way has batches left, whose gradients are accumulated."""
    return bool(trainer.fit_loop._should_accumulate())


def step_metrics(trainer: Any) -> dict[str, Any]:
    """What the latest training step logged, by name, also where no callback has asked for it."""
    return dict(trainer.fit_loop.epoch_loop._results.metrics(on_step=True)["callback"])


def number_logged_steps(trainer: Any, step: int) -> None:
    """Let what is logged next stand at a step; Lightning counts apart from `global_step`."""
    trainer.fit_loop.epoch_loop._batches_that_stepped = step


def logged_step(trainer: Any) -> int:
    """The step that what is logged next stands at, without one of its own."""
    return int(trainer.fit_loop.epoch_loop._batches_that_stepped)


def validates_after_step(trainer: Any) -> bool:
    """At a training step's end, whether Lightning will validate."""
    fetcher = trainer.fit_loop._data_fetcher
    return fetcher is not None and bool(trainer.fit_loop.epoch_loop._should_check_val_fx(fetcher))


def stop_after_step(trainer: Any) -> None:
    """End the fit as SIGTERM does, when the step's bookkeeping is done, without a validation."""
    trainer.fit_loop.epoch_loop._skip_next_val = True
    trainer._signal_connector.received_sigterm = True


# ---- the trainer


def ignore_after_fit(trainer: Any, signum: int) -> None:
    """Let a signal that comes once a fit has ended do nothing: Lightning restores handlers then."""
    trainer._signal_connector._original_handlers[signum] = signal.SIG_IGN


def cluster_of(trainer: Any) -> Any:
    """The cluster's environment that the trainer runs in, or Lightning's own."""
    return trainer._accelerator_connector.cluster_environment


def adds_sampler(trainer: Any) -> bool:
    """Whether Lightning divides rows over the processes with a sampler of its own."""
    connector = getattr(trainer, "_accelerator_connector", None)
    return bool(getattr(connector, "use_distributed_sampler", False))


def trainer_of(module: Any) -> Any:
    """The trainer that a module was last given to, None where there is none."""
    return module._trainer


# ---- callbacks


def save_now(checkpoint: Any, trainer: Any) -> bool:
    """Let a `ModelCheckpoint` save, unless it has saved this step; whether it did."""
    if checkpoint._should_skip_saving_checkpoint(trainer):
        return False
    checkpoint._save_topk_checkpoint(trainer, checkpoint._monitor_candidates(trainer))
    return True


def save_again(checkpoint: Any) -> None:
    """Let a `ModelCheckpoint` save at this step too, also where nothing was trained."""
    checkpoint._last_global_step_saved = -1


def acts_at_epochs(callback: Any) -> bool:
    """Whether an `EarlyStopping` or a `ModelCheckpoint` acts where epochs, not validations, end."""
    name = "check" if hasattr(callback, "_check_on_train_epoch_end") else "save"
    return bool(getattr(callback, f"_{name}_on_train_epoch_end"))


def saves_between_validations(checkpoint: Any) -> bool:
    """Whether a `ModelCheckpoint` saves by steps or time, before the validation of its step."""
    return checkpoint._every_n_train_steps > 0 or checkpoint._train_time_interval is not None


def seconds_of(timer: Any) -> float | None:
    """Seconds that a `Timer` gives, None where it only measures."""
    return None if timer._duration is None else float(timer._duration)


def averaged(averaging: Any) -> Any:
    """The `AveragedModel` of a `WeightAveraging`, None before it is set up."""
    return averaging._average_model


def last_averaged_epoch(averaging: Any, known: int | None = None) -> int:
    """The last epoch that a `WeightAveraging` took, set first where it is known."""
    if known is not None:
        averaging._latest_update_epoch = known
    return int(averaging._latest_update_epoch)
