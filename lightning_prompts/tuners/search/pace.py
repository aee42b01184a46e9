"""How long a search takes, for a person."""

from typing import Any

from lightning.pytorch.callbacks import Timer

from lightning_prompts.files.amounts import count


def estimate(seconds: float, steps: int, limit: float | None = None) -> str:
    """How long the rest of a search will take.

    Args:
        seconds: Of one step.
        steps: How many are left.
        limit: Seconds that are left of `--trainer.max_time`, None where there is no limit.

    >>> estimate(9.2, 80)
    'About 9 s a step, 12 min for the 80 steps left, and the validations.'
    >>> estimate(9.2, 80, 460)
    'About 9 s a step, some 50 of the 80 steps left in the 8 min until --trainer.max_time.'
    """
    whole = seconds * steps
    step = f"{seconds:.0f}" if seconds >= 2 else f"{seconds:.2g}"
    left = f"the {count(steps, 'step')} left"
    if limit is not None and whole > limit:
        fit = int(max(0.0, limit) / seconds)
        return (
            f"About {step} s a step, some {fit} of {left} in the {_time(limit)} until "
            "--trainer.max_time."
        )
    return f"About {step} s a step, {_time(whole)} for {left}, and the validations."


def seconds_left(trainer: Any) -> float | None:
    """Seconds until the first `Timer` of a trainer ends its training, None where none does."""
    timers = [each for each in trainer.callbacks if isinstance(each, Timer)]
    left = [timer.time_remaining() for timer in timers]
    return min((seconds for seconds in left if seconds is not None), default=None)


def _time(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 100 else f"{seconds:.2g} s"
