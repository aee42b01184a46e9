"""Where a run lies, `logs/<experiment>/version_N`, and which run `best` and `last` mean.

And whether it can be written there: asked before any work that its end would waste.
"""

import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from lightning_prompts.files.checkpoints import BEST, CHECKPOINTS, LAST, PREVIOUS
from lightning_prompts.files.errors import PromptError

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

CONFIG = "config.yaml"
PROMPT = "prompt.json"
PROMPTS = "prompts.jsonl"
HISTORY = "history.jsonl"
TEST = "test.json"
ROOM = 1 << 16  # bytes below which a disk counts as full


# Of trainers whose loggers do not decide it, as this process would choose.
_chosen: "WeakKeyDictionary[Trainer, Path]" = WeakKeyDictionary()
RUNS = "lightning_logs"  # as Lightning's loggers call such folders


def run_folder(trainer: "Trainer") -> Path:
    """Folder of the trainer's run. Call it on every rank: the first one's is sent to all.

    It is what `choose_run_folder` said, else the folder of the first logger where that has one
    (TensorBoard, CSV), else the next free `lightning_logs/version_N` in `default_root_dir`: a run
    never takes the folder of an earlier one, whatever logs it.
    """
    folder = _chosen.get(trainer)
    if folder is None and trainer.logger is not None and trainer.logger.log_dir:
        folder = Path(trainer.logger.log_dir)
    if folder is None:
        folder = _chosen[trainer] = next_version(Path(trainer.default_root_dir) / RUNS)
    return Path(trainer.strategy.broadcast(str(folder)))


def choose_run_folder(trainer: "Trainer", folder: Path) -> None:
    """Decide where a trainer's run lies, whatever its loggers say."""
    _chosen[trainer] = folder


def next_version(experiment: Path) -> Path:
    """First free `version_N` of an experiment, counted as Lightning's loggers do."""
    taken = [_version(folder) for folder in _subfolders(experiment)]
    return experiment / f"version_{max(taken, default=-1) + 1}"


def newest_run(experiment: Path) -> Path | None:
    """The experiment's latest fit: the highest version that saved a configuration."""
    runs = [folder for folder in _subfolders(experiment) if (folder / CONFIG).is_file()]
    return max(runs, key=lambda run: (_version(run), run.stat().st_mtime), default=None)


def run_of_config(configs: Iterable[Path]) -> Path | None:
    """The run that a given configuration was saved by; the last one counts."""
    folders = [path.resolve().parent for path in configs]
    return next((f for f in reversed(folders) if (f / CHECKPOINTS).is_dir()), None)


def run_of_checkpoint(checkpoint: Path) -> Path | None:
    """The run that a checkpoint lies in, None for one that was copied elsewhere."""
    folder = checkpoint.resolve().parent
    return folder.parent if folder.name == CHECKPOINTS else None


def find_checkpoint(wanted: str, configs: Iterable[Path], experiment: Path) -> Path:
    """The file that `--ckpt_path` means.

    Args:
        wanted: `best`, `last`, `previous` (the one before `last`) or a file.
        configs: The configurations given; one inside a run decides which run is meant.
        experiment: Folder of the experiment, whose newest run is meant otherwise.

    Raises:
        PromptError: If there is no such run or file; another run's is never taken.
    """
    if f"{wanted}.ckpt" not in (BEST, LAST, PREVIOUS):
        if not Path(wanted).is_file():
            raise PromptError(
                f"--ckpt_path {wanted}: no such file; give best, last, previous or a .ckpt file."
            )
        return Path(wanted)
    run = run_of_config(configs) or newest_run(experiment)
    if run is None:
        raise PromptError(
            f"--ckpt_path {wanted}: no run in {experiment}; name one with "
            "--config logs/EXPERIMENT/version_N/config.yaml."
        )
    found = run / CHECKPOINTS / f"{wanted}.ckpt"
    if not found.is_file():
        raise PromptError(f"--ckpt_path {wanted}: the run {run} has not saved {found.name} yet.")
    return found


def require_writable(folder: Path, fix: str) -> None:
    """Refuse a folder that cannot be made or written, or whose disk is full.

    Args:
        folder: It need not be there yet.
        fix: What to do about it, as the end of a sentence.

    Raises:
        PromptError: If so.
    """
    try:
        cause = _cause(_existing(folder.absolute()))
    except (OSError, ValueError) as error:  # a name that no folder can have
        cause = getattr(error, "strerror", None) or str(error)
    if cause:
        raise PromptError(f"{folder} cannot be written ({cause}); {fix}.")


def _subfolders(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []


def _version(folder: Path) -> int:
    """N of `version_N`, -1 for a run that was named otherwise."""
    match = re.fullmatch(r"version_(\d+)", folder.name)
    return int(match[1]) if match else -1


def _existing(path: Path) -> Path:
    """The path itself, or the nearest above it that is there."""
    while True:
        try:
            path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            path = path.parent
        else:
            return path


def _cause(there: Path) -> str:
    """Why nothing can be written under a path that exists; empty where something can."""
    if not there.is_dir():
        return f"{there} is no folder"
    if not os.access(there, os.W_OK | os.X_OK):
        read_only = os.name == "posix" and os.statvfs(there).f_flag & os.ST_RDONLY
        return "its file system is read-only" if read_only else "its permissions forbid it"
    usage = shutil.disk_usage(there)
    if usage.total and usage.free < ROOM:  # some file systems tell no sizes at all
        return "no space is left on its disk"
    return ""
