"""A worker of a study: takes runs until none is left, and writes down what each one found."""

import gc
import math
import os
import time
import traceback
from collections.abc import Callable
from typing import Any

import optuna
import torch
from lightning.pytorch import Callback
from optuna.samplers import PartialFixedSampler
from optuna.trial import Trial, TrialState

from lightning_prompts.files.console import notice
from lightning_prompts.files.errors import PromptError
from lightning_prompts.runs.folder import PROMPT
from lightning_prompts.runs.reading import read_run
from lightning_prompts.runs.record import VARIANT, RunRecord
from lightning_prompts.studies.claims import Claims
from lightning_prompts.studies.config import StudyConfig
from lightning_prompts.studies.plan import label, name_of, trial_args, trial_folder
from lightning_prompts.studies.shared import SharedBaselines, SharedLM
from lightning_prompts.studies.space import Choice, Scalar, suggest
from lightning_prompts.studies.storage import GROUP, SEED, make_sampler, planned
from lightning_prompts.studies.trial import Reports, run_trial

# Names of user attributes of a trial.
RECORD, ERROR, SECONDS, SETTINGS = "record", "error", "seconds", "settings"
ERROR_FILE = "error.txt"
# A sibling's values are there as soon as it has begun; one that was killed before leaves none.
SIBLING_SECONDS = 30.0


class Worker:
    """Runs trials of a study in this process.

    Args:
        config: The study's.
        study: Optuna's.
        lm: Gives the language model, shared with whatever else this process runs.
        said: Called after each trial.
    """

    def __init__(
        self,
        config: StudyConfig,
        study: optuna.Study,
        lm: SharedLM | None = None,
        said: Callable[[], None] = lambda: None,
    ) -> None:
        self.config, self.study, self.said = config, study, said
        self.lm, self.baselines = lm or SharedLM(), SharedBaselines()

    def work(self, goes_on: Callable[[], bool] = lambda: True) -> None:
        """Take runs until none waits.

        Args:
            goes_on: Asked before each run.

        Raises:
            SystemExit: If a signal ended a run, which is given back.
        """
        with Claims(self.study, self.config.folder) as claims:
            while goes_on() and (trial := claims.next()) is not None:
                with claims.signs(trial):
                    self._run(claims, trial)
                gc.collect()
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()
                self.said()

    def _run(self, claims: Claims, trial: Trial) -> None:
        """One run, whose outcome is told, or which is given back."""
        folder = trial_folder(self.config.folder, trial.number)
        start, before = time.monotonic(), float(trial.user_attrs.get(SECONDS, 0.0))
        attributes: dict[str, Any] = {}
        values: list[float] | None = None
        try:
            variant, point = self._draw(trial)
            seed = int(trial.user_attrs[SEED])
            shown = label(variant, point, self.config.space_of(variant))
            notice(f"Run {trial.number}: {shown}, seed {seed}")
            trial.set_user_attr(SETTINGS, {VARIANT: variant, **point, "seed_everything": seed})
            args = trial_args(self.config, variant, point, seed)
            test, reports = self.config.settings.test, self._reports(trial)
            record = run_trial(args, folder, test, self.lm, self.baselines, reports)
            attributes[RECORD] = record.to_json()
            state, values = TrialState.COMPLETE, self._values(record)
        except optuna.TrialPruned as pruned:
            state = TrialState.PRUNED
            notice(f"Run {trial.number} {pruned}.")
            if (folder / PROMPT).is_file():
                attributes[RECORD] = read_run(folder).to_json()
        except Exception as error:
            state, attributes[ERROR] = TrialState.FAIL, _sentence(error)
            notice(f"Run {trial.number} failed: {attributes[ERROR]}")
            folder.mkdir(parents=True, exist_ok=True)
            (folder / ERROR_FILE).write_text(traceback.format_exc(), encoding="utf-8")
        except BaseException:  # stopped: by a signal, or with the whole process
            if claims.owns(trial):
                trial.set_user_attr(SECONDS, before + time.monotonic() - start)
            claims.release(trial)
            raise
        if not claims.owns(trial):
            notice(f"Run {trial.number} was taken over by another worker.")
            return
        attributes[SECONDS] = before + time.monotonic() - start
        for name, value in attributes.items():
            trial.set_user_attr(name, value)
        self.study.tell(trial, values, state)

    def _draw(self, trial: Trial) -> tuple[str, dict[str, Scalar]]:
        """The trial's variant and its values, drawn unless planned, by the names of options."""
        sampler = make_sampler(self.config, trial.number)
        if self.config.settings.sampler != "grid" and (known := self._of_siblings(trial)):
            sampler = PartialFixedSampler(known, sampler)
        self.study.sampler = sampler
        variants = tuple(self.config.variants)
        # One that is made after the sampler is set: it asks for values when it begins.
        own = Trial(self.study, trial._trial_id)
        chosen = suggest(own, VARIANT, Choice(variants)) if len(variants) > 1 else variants[0]
        variant = str(chosen)
        space = self.config.space_of(variant)
        point = {
            key: suggest(own, name_of(self.config, variant, key), domain)
            for key, domain in space.items()
        }
        return variant, point

    def _of_siblings(self, trial: Trial) -> dict[str, Any]:
        """Values of the runs that differ only in their seed, the first of which draws them."""
        deadline = time.monotonic() + SIBLING_SECONDS
        while True:
            group = trial.user_attrs[GROUP]
            others = [t for t in planned(self.study) if t.user_attrs[GROUP] == group]
            drawn = [t for t in others if SETTINGS in t.user_attrs]
            if drawn:
                return drawn[0].params
            first = others[0]
            if first.number == trial.number or time.monotonic() > deadline:
                return {}
            time.sleep(0.2)

    def _reports(self, trial: Trial) -> list[Callback]:
        metrics = list(self.config.settings.objectives)
        return [Reports(trial, metrics[0])] if self.config.settings.pruner else []

    def _values(self, record: RunRecord) -> list[float]:
        """The objectives' values.

        Raises:
            PromptError: If one was not measured.
        """
        values = [record.metrics.get(name, math.nan) for name in self.config.settings.objectives]
        for name, value in zip(self.config.settings.objectives, values, strict=True):
            if not math.isfinite(value):
                known = ", ".join(n for n in sorted(record.metrics) if n.startswith("val/"))
                raise PromptError(
                    f"study.objectives.{name} was not measured; there are {known or 'none'}."
                )
        return values


def parent_lives() -> Callable[[], bool]:
    """Asks whether the process that started this one is still there."""
    parent = os.getppid()
    return lambda: os.getppid() == parent


def _sentence(error: Exception) -> str:
    """A failure in one line."""
    if isinstance(error, torch.OutOfMemoryError):
        return "The device's memory is full; lower --data.batch_size or max_tokens."
    known: BaseException | None = error
    # jsonargparse wraps what a constructor raises.
    if isinstance(error, ValueError) and isinstance(error.__cause__, PromptError):
        known = error.__cause__
    text = " ".join(str(known).split())
    return text if isinstance(known, PromptError) else f"{type(known).__name__}: {text}"[:500]
