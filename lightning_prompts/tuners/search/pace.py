"""How long a search takes, for a person."""

from lightning_prompts.files.amounts import count


def estimate(seconds: float, steps: int) -> str:
    """How long the rest of a search will take.

    Args:
        seconds: Of one step.
        steps: How many are left.

    >>> estimate(9.2, 80)
    'About 9 s a step, 12 min for the 80 steps left, and the validations.'
    """
    whole = seconds * steps
    shown = f"{whole / 60:.0f} min" if whole >= 100 else f"{whole:.2g} s"
    step = f"{seconds:.0f}" if seconds >= 2 else f"{seconds:.2g}"
    return (
        f"About {step} s a step, {shown} for the {count(steps, 'step')} left, and the validations."
    )
