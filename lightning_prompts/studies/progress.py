"""How far a study is, and how long the rest will take."""

from collections import Counter
from dataclasses import dataclass
from statistics import fmean

import optuna
from optuna.trial import FrozenTrial, TrialState

from lightning_prompts.files.amounts import count
from lightning_prompts.runs.record import VARIANT
from lightning_prompts.studies.storage import planned
from lightning_prompts.studies.worker import SECONDS, SETTINGS


@dataclass(frozen=True)
class Progress:
    """Runs of a study by their state.

    Attributes:
        total: All runs.
        finished: Those that ended, failed and hopeless ones among them.
        failed: Those that ended with an error.
        running: Those under way.
        seconds: What those that are left will take one worker, None where none has finished.
    """

    total: int
    finished: int
    failed: int
    running: int
    seconds: float | None

    def said(self, workers: int) -> str:
        """One line, with the time left."""
        failed = f" ({self.failed} failed)" if self.failed else ""
        line = f"{self.finished} of {count(self.total, 'run')} done{failed}"
        if self.finished == self.total or self.seconds is None:
            return line + "."
        left = self.seconds / max(1, min(workers, self.total - self.finished))
        return f"{line}, about {duration(left)} left."


def progress_of(study: optuna.Study) -> Progress:
    """Count the runs; those that are left are taken to last as long as others of their variant."""
    trials = planned(study)
    states = Counter(trial.state for trial in trials)
    known: dict[str | None, list[float]] = {}
    for trial in trials:
        if trial.state == TrialState.COMPLETE and SECONDS in trial.user_attrs:
            known.setdefault(_variant(trial), []).append(float(trial.user_attrs[SECONDS]))
    seconds: float | None = None
    if known:
        every = fmean(value for values in known.values() for value in values)
        left = [trial for trial in trials if not trial.state.is_finished()]
        seconds = sum(fmean(known.get(_variant(trial), [every])) for trial in left)
    finished = sum(count for state, count in states.items() if state.is_finished())
    failed, running = states[TrialState.FAIL], states[TrialState.RUNNING]
    return Progress(len(trials), finished, failed, running, seconds)


def duration(seconds: float) -> str:
    """A time for people.

    >>> duration(40), duration(600), duration(9000), duration(500000)
    ('40 s', '10 min', '2.5 h', '5.8 days')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    if seconds < 172800:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.1f} days"


def _variant(trial: FrozenTrial) -> str | None:
    """The variant of a run, planned or begun; None where it is not drawn yet."""
    settings = trial.user_attrs.get(SETTINGS)
    if settings is not None:
        return str(settings[VARIANT])
    fixed = trial.system_attrs.get("fixed_params", {})
    return str(fixed[VARIANT]) if VARIANT in fixed else None
