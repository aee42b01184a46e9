"""A study in Optuna: opened or begun, with all its runs planned, and read back."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import yaml
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from lightning_prompts.files.atomic_files import write_text
from lightning_prompts.files.drawing import seed_at
from lightning_prompts.files.errors import PromptError, first_line
from lightning_prompts.report.load import JOURNAL, STUDY
from lightning_prompts.studies.config import StudyConfig
from lightning_prompts.studies.plan import planned_runs

# What may grow when a study goes on; anything else would mix runs that cannot be compared.
MAY_CHANGE = ("description", "seeds", "trials")
# Names of user attributes.
CONFIG, PLAN, GROUP, SEED, ATTEMPT = "config", "plan", "group", "seed", "attempt"


def open_storage(config: StudyConfig) -> BaseStorage:
    """The study's storage: Optuna's URL, or a journal in the study's folder.

    Raises:
        PromptError: If it cannot be opened.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    url = config.settings.storage
    try:
        if url and "://" in url:
            return optuna.storages.get_storage(url)
        path = Path(url) if url else config.folder / JOURNAL
        path.parent.mkdir(parents=True, exist_ok=True)
        _mend(path)
        return JournalStorage(JournalFileBackend(str(path)))
    except OSError as error:
        raise PromptError(f"study.storage {url or path}: {error.strerror or error}.") from error
    except Exception as error:  # whatever the database's driver raises
        raise PromptError(
            f"study.storage {url}: Optuna cannot open it ({first_line(error)}); give an Optuna "
            "URL, for example sqlite:///study.db, or null for a journal in the study's folder."
        ) from error


def open_study(config: StudyConfig, storage: BaseStorage) -> optuna.Study:
    """Begin the study, or find it again, with every run planned once.

    Raises:
        PromptError: If a study of this name has another configuration.
    """
    objectives = config.settings.objectives
    _forget_untouched(config, storage)
    study = optuna.create_study(
        study_name=config.name,
        storage=storage,
        directions=[StudyDirection[name.upper()] for name in objectives.values()],
        sampler=optuna.samplers.RandomSampler(),  # each trial brings its own
        pruner=make_pruner(config),
        load_if_exists=True,
    )
    before = study.user_attrs.get(CONFIG)
    if before is not None:
        _refuse_another(config, before)
    elif [d.name.lower() for d in study.directions] != list(objectives.values()):
        raise PromptError(f"{config.name}: the storage has another study of this name; rename it.")
    known = {trial.user_attrs.get(PLAN) for trial in study.get_trials(deepcopy=False)}
    if before != config.content:
        study.set_metric_names(list(objectives))
        study.set_user_attr("name", config.name)
        study.set_user_attr("description", config.settings.description)
        study.set_user_attr(CONFIG, config.content)
    for run in planned_runs(config):
        if run.key not in known:
            attributes = {PLAN: run.key, GROUP: run.group, SEED: run.seed}
            study.enqueue_trial(dict(run.params or {}), user_attrs=attributes)
    config.folder.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(dict(config.content), sort_keys=False, allow_unicode=True)
    write_text(config.folder / STUDY, text)
    return study


def planned(study: optuna.Study) -> list[FrozenTrial]:
    """The study's runs, by their numbers."""
    found: dict[str, FrozenTrial] = {}
    for trial in study.get_trials(deepcopy=False):
        if (key := trial.user_attrs.get(PLAN)) is None:
            continue
        # Two machines that began the study at one moment have each planned all of it; of those
        # the first counts. Of a run that failed and is tried again, the last.
        if key not in found or _attempt(trial) > _attempt(found[key]):
            found[key] = trial
    return sorted(found.values(), key=lambda trial: trial.number)


def retry_failed(study: optuna.Study) -> int:
    """Plan every failed run once more, with what it drew; how many there are.

    Optuna changes no trial that has ended, so that each gets another number and folder.
    """
    failed = [trial for trial in planned(study) if trial.state == TrialState.FAIL]
    for trial in failed:
        attributes = {name: trial.user_attrs[name] for name in (PLAN, GROUP, SEED)}
        attributes[ATTEMPT] = _attempt(trial) + 1
        study.enqueue_trial(dict(trial.params or _fixed(trial)), user_attrs=attributes)
    return len(failed)


def make_sampler(config: StudyConfig, number: int) -> optuna.samplers.BaseSampler:
    """The sampler of a trial; its draws follow from the study's seed and the trial's number."""
    # One seed for all trials would draw the same values in each new process.
    seed = seed_at(config.settings.sampler_seed, number) % 2**32
    if config.settings.sampler == "tpe":
        return optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True)
    if config.settings.sampler == "nsga2":
        return optuna.samplers.NSGAIISampler(seed=seed)
    return optuna.samplers.RandomSampler(seed=seed)


def make_pruner(config: StudyConfig) -> optuna.pruners.BasePruner:
    """Of single-objective studies."""
    if config.settings.pruner == "median":
        return optuna.pruners.MedianPruner()
    if config.settings.pruner == "hyperband":
        return optuna.pruners.HyperbandPruner()
    return optuna.pruners.NopPruner()


def _attempt(trial: FrozenTrial) -> int:
    return int(trial.user_attrs.get(ATTEMPT, 0))


def _fixed(trial: FrozenTrial) -> dict[str, Any]:
    """The values that a trial was planned with, which it has not drawn yet."""
    return dict(trial.system_attrs.get("fixed_params", {}))


def _forget_untouched(config: StudyConfig, storage: BaseStorage) -> None:
    """Drop a study of another configuration that was planned, or only estimated, and never run."""
    for known in storage.get_all_studies():
        if known.study_name != config.name or known.user_attrs.get(CONFIG) == config.content:
            continue
        trials = storage.get_all_trials(known._study_id, deepcopy=False)
        if CONFIG in known.user_attrs and all(t.state == TrialState.WAITING for t in trials):
            storage.delete_study(known._study_id)


def _refuse_another(config: StudyConfig, before: Any) -> None:
    """Compare with the configuration that the study began with."""
    old, new = (dict(_flat(content)) for content in (before, config.content))
    for key in sorted(old.keys() | new.keys()):
        name = key.removeprefix("study.").partition(".")[0]
        if old.get(key) != new.get(key) and not (key[:6] == "study." and name in MAY_CHANGE):
            raise PromptError(
                f"The study {config.name} began with {key} {old.get(key)!r}, which is now "
                f"{new.get(key)!r}; its runs could not be compared. Give the old value, or the "
                f"study another name (--study.name), or remove {config.folder}."
            )


def _flat(content: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if not isinstance(content, dict) or not content:
        yield prefix, list(content) if isinstance(content, tuple) else content
        return
    for key, value in content.items():
        yield from _flat(value, f"{prefix}.{key}" if prefix else str(key))


def _mend(path: Path) -> None:
    """Cut off what a killed process left half written at a journal's end."""
    if not path.is_file():
        return
    with _locked(path), path.open("rb+") as file:
        size = file.seek(0, os.SEEK_END)
        if size == 0:
            return
        file.seek(size - 1)
        if file.read(1) == b"\n":
            return
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """The journal's own lock, which every writer takes."""
    lock = JournalFileSymlinkLock(str(path))
    lock.acquire()
    try:
        yield
    finally:
        lock.release()
