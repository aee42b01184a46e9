"""Whether a run's folder can be written: asked before any work that its end would waste."""

import os
import shutil
from pathlib import Path

from lightning_prompts.files.errors import PromptError

ROOM = 1 << 16  # bytes below which a disk counts as full


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
