"""What a report is of: studies read from their storage, runs from their folders."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from lightning_prompts.files.amounts import count
from lightning_prompts.files.errors import PromptError, first_line
from lightning_prompts.runs.folder import CONFIG, PROMPT
from lightning_prompts.runs.reading import read_run
from lightning_prompts.runs.record import VARIANT, RunRecord

JOURNAL, STUDY = "journal.log", "study.yaml"
WHAT = "give a study's folder, a run's folder, or a folder with runs, such as logs"


@dataclass
class Unfinished:
    """A run that has nothing to compare."""

    name: str
    outcome: str
    """`failed`, `pruned` or `not finished`."""
    settings: str
    reason: str = ""
    seconds: float | None = None


@dataclass
class Material:
    """All that the paths hold."""

    titles: list[str] = field(default_factory=list)
    descriptions: list[str] = field(default_factory=list)
    records: list[RunRecord] = field(default_factory=list)
    unfinished: list[Unfinished] = field(default_factory=list)
    studies: int = 0

    @property
    def title(self) -> str:
        """What the report is of, in a few words."""
        return " and ".join(dict.fromkeys(self.titles))

    @property
    def outcomes(self) -> dict[str, int]:
        """How many runs ended how."""
        counts = {"finished": len(self.records), "failed": 0, "pruned": 0, "not finished": 0}
        for run in self.unfinished:
            counts[run.outcome] += 1
        return counts


def load(paths: Sequence[str]) -> Material:
    """Read everything that paths name.

    Args:
        paths: Folders of studies, of runs, or with some of them somewhere below; or Optuna's URLs,
            `sqlite:///study.db`, with `#NAME` at the end where the storage has several studies.

    Raises:
        PromptError: If one of them holds nothing, or nothing in them is finished.
    """
    material = Material()
    for path in dict.fromkeys(paths):
        if "://" in path:
            _add_study(material, *_storage_of_url(path), path)
            continue
        folder = Path(path)
        if not folder.exists():
            raise PromptError(f"{path}: no such file or folder; {WHAT}.")
        if folder.is_file():
            folder = folder.parent
        _add_folder(material, folder)
    if not material.records:
        raise PromptError(_nothing(material, paths))
    material.records = _each_once(material.records)
    return material


def _each_once(records: Sequence[RunRecord]) -> list[RunRecord]:
    """Without a run that was named twice, or both by itself and as a part of its study.

    The name alone does not say it: a study whose folder was moved away keeps those of its runs, and
    the next study of that name has the same.
    """
    found: dict[Any, RunRecord] = {}
    for record in records:
        measured = tuple(sorted(record.metrics.items()))
        key = record.name, record.task, record.lm, record.seed, tuple(record.ids), measured
        if key not in found or record.variant:  # which only a study knows
            found[key] = record
    return list(found.values())


def _add_folder(material: Material, folder: Path) -> None:
    if _is_study(folder):
        _add_study(material, *_storage_of_folder(folder), str(folder))
    elif _is_run(folder):
        material.records.append(read_run(folder))
        material.titles.append(material.records[-1].name)
    else:
        found = sorted(_below(folder))
        if not found:
            raise PromptError(f"{folder}: no study and no run is in it; {WHAT}.")
        for inner in found:
            if _is_study(inner):
                _add_study(material, *_storage_of_folder(inner), str(inner))
                continue
            try:
                material.records.append(read_run(inner))
            except PromptError as error:  # the others are still worth a report
                material.unfinished.append(Unfinished(str(inner), "not finished", "", str(error)))
        material.titles.append(str(folder))


def _is_study(folder: Path) -> bool:
    return (folder / STUDY).is_file() or (folder / JOURNAL).is_file()


def _is_run(folder: Path) -> bool:
    return (folder / PROMPT).is_file() or (folder / CONFIG).is_file()


def _below(folder: Path) -> Iterator[Path]:
    """Studies and runs below a folder; the runs of a study are the study's."""
    for inner in sorted(path for path in folder.iterdir() if path.is_dir()):
        if _is_study(inner) or _is_run(inner):
            yield inner
        else:
            yield from _below(inner)


def _storage_of_folder(folder: Path) -> tuple[Any, str]:
    """The storage that a study's configuration names, and the study's name; empty if not known."""
    settings: dict[str, Any] = {}
    if (folder / STUDY).is_file():
        try:
            content = yaml.safe_load((folder / STUDY).read_text(encoding="utf-8"))
            settings = dict(content["study"])
        except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError, ValueError) as e:
            raise PromptError(
                f"{folder / STUDY}: not as `study` writes it ({type(e).__name__}); remove it where "
                "the journal lies beside it, or run the study again."
            ) from e
    name = f"{settings.get('name') or ''}{settings.get('suffix') or ''}"
    url = settings.get("storage")
    if url and "://" in str(url):
        return _open_url(str(url)), name
    journal = folder / JOURNAL
    if url and not journal.is_file():
        journal = Path(str(url))
    if not journal.is_file():
        raise PromptError(f"{journal}: no such journal; the study has not run anything yet.")
    return _open_journal(journal), name


def _storage_of_url(path: str) -> tuple[Any, str]:
    url, _, name = path.partition("#")
    return _open_url(url), name


def _open_journal(path: Path) -> Any:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    with _quiet():
        try:
            return JournalStorage(JournalFileBackend(str(path)))
        except Exception as error:  # whatever a damaged line turns into
            raise PromptError(
                f"{path}: not a whole journal of Optuna ({first_line(error)}); take a copy of it "
                "from before the damage, or report the runs in trials/ one by one."
            ) from error


def _open_url(url: str) -> Any:
    import optuna

    file = Path(url.removeprefix("sqlite:///"))
    if url.startswith("sqlite:///") and not file.is_file():  # Optuna would make an empty one
        raise PromptError(f"{url}: no such database; give the storage that the study was run with.")
    with _quiet():
        try:
            return optuna.storages.get_storage(url)
        except Exception as error:  # whatever a database's driver raises
            raise PromptError(f"{url}: cannot be opened ({first_line(error)}).") from error


def _add_study(material: Material, storage: Any, name: str, path: str) -> None:
    """Add the finished runs of a study, and what became of the others."""
    with _quiet():
        names = {study.study_name: study._study_id for study in storage.get_all_studies()}
        if not names:
            raise PromptError(f"{path}: the study is empty, nothing has been run; run it first.")
        if not name and len(names) > 1:
            known = ", ".join(sorted(names))
            raise PromptError(f"{path}: the storage has several studies, {known}; add #NAME.")
        name = name or next(iter(names))
        if name not in names:
            known = ", ".join(sorted(names))
            raise PromptError(f"{path}: the storage has no study {name}; it has {known}.")
        trials = storage.get_all_trials(names[name], deepcopy=False)
        attributes = storage.get_study_user_attrs(names[name])
    before = len(material.records), len(material.unfinished)
    for trial in _once(trials):
        _add_trial(material, trial, name)
    if before == (len(material.records), len(material.unfinished)):
        raise PromptError(f"{path}: the study {name} has no runs; run it first.")
    material.studies += 1
    material.titles.append(str(attributes.get("name") or name))
    if attributes.get("description"):
        material.descriptions.append(str(attributes["description"]))


def _once(trials: Sequence[Any]) -> list[Any]:
    """One trial of each planned run, where several machines planned it or it was tried again."""
    found: dict[Any, Any] = {}
    for trial in trials:
        key = trial.user_attrs.get("plan", ("", trial.number))
        if key not in found or _standing(trial) > _standing(found[key]):
            found[key] = trial
    return list(found.values())


def _standing(trial: Any) -> tuple[bool, int, bool]:
    """What counts more: a run that was completed, a later attempt, one that has ended."""
    state = trial.state
    return state.name == "COMPLETE", int(trial.user_attrs.get("attempt", 0)), state.is_finished()


def _add_trial(material: Material, trial: Any, study: str) -> None:
    name, state = f"{study}/{trial.number:04d}", trial.state.name
    attributes = trial.user_attrs
    overrides = attributes.get("settings") or trial.params
    shown = ", ".join(f"{key} = {value}" for key, value in dict(overrides).items())
    seconds = attributes.get("seconds")
    if state == "COMPLETE" and attributes.get("record") is not None:
        try:
            variant = str(dict(overrides).get(VARIANT, ""))
            material.records.append(
                replace(RunRecord.from_json(attributes["record"]), variant=variant)
            )
        except PromptError as error:
            material.unfinished.append(Unfinished(name, "failed", shown, str(error), seconds))
        return
    outcome = {"FAIL": "failed", "PRUNED": "pruned", "COMPLETE": "failed"}.get(
        state, "not finished"
    )
    reasons = {"COMPLETE": "finished, and left no record", "RUNNING": "under way, or interrupted"}
    reason = attributes.get("error") or reasons.get(state, "")
    material.unfinished.append(Unfinished(name, outcome, shown, str(reason), seconds))


def _nothing(material: Material, paths: Sequence[str]) -> str:
    """Why there is nothing to report."""
    runs = count(len(material.unfinished), "run")
    counts = [f"{n} {kind}" for kind, n in material.outcomes.items() if n]
    first = next((run for run in material.unfinished if run.reason), None)
    why = f"; the first: {first.reason}" if first else ""
    return f"{', '.join(paths)}: none of the {runs} is finished ({', '.join(counts)}){why}"


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Optuna's own log and its notes on experimental parts."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield
