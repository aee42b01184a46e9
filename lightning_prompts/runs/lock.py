"""One fit at a time in a run's folder: two would overwrite each other's checkpoints."""

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from lightning.pytorch import Trainer

from lightning_prompts.files.atomic_files import remove_drafts
from lightning_prompts.files.errors import PromptError
from lightning_prompts.files.locks import lock
from lightning_prompts.files.text import short_path
from lightning_prompts.runs.folder import run_folder

LOCK = ".lock"
NAMED_AT = 1  # where the holder's name begins: Windows lets nobody read what is locked


@contextlib.contextmanager
def run_locked(trainer: Trainer) -> Iterator[None]:
    """Hold the folder of a trainer's run, and clear away what a killed fit left half written there.

    The first process holds it for all. The system frees it however the process ends.

    Args:
        trainer: About to fit.

    Raises:
        PromptError: If another fit holds it; the message names the process.
    """
    if getattr(trainer, "fast_dev_run", False):
        yield
        return
    folder = run_folder(trainer)  # on every rank: they may be connected, by an earlier fit
    if not trainer.is_global_zero:
        yield
        return
    with locked(folder):
        remove_drafts(folder)
        yield


@contextlib.contextmanager
def locked(
    folder: Path, what: str = "fit", fix: str = "or start a new run without --ckpt_path"
) -> Iterator[None]:
    """Hold a folder, which is made; one that stays empty is removed again.

    Args:
        folder: The folder.
        what: Is held, for a message.
        fix: What else to do than to wait.

    Raises:
        PromptError: If another holder has it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK
    handle = _acquire(path, what, fix)
    try:
        yield
    finally:
        if os.name == "nt":  # which removes no open file
            os.close(handle)
        with contextlib.suppress(OSError):  # a file system that has become read-only
            path.unlink(missing_ok=True)  # while it is held: nobody else can have it
            folder.rmdir()
        if os.name != "nt":
            os.close(handle)


def _acquire(path: Path, what: str, fix: str) -> int:
    """An open lock file that no one else holds and that still lies in the folder."""
    while True:
        # Read-only, so that the file system may be made so while a run goes on.
        handle = os.open(path, os.O_RDONLY | os.O_CREAT, 0o644)
        try:
            if lock(handle) is False:
                os.lseek(handle, NAMED_AT, os.SEEK_SET)
                holder = os.read(handle, 200).decode(errors="replace") or "another process"
                raise PromptError(
                    f"Another {what} is running in {short_path(path.parent)} ({holder}); wait for "
                    f"it, stop it, {fix}."
                )
            if _is(handle, path):
                with path.open("r+b") as file:
                    file.seek(NAMED_AT)
                    file.write(f"process {os.getpid()} on {socket.gethostname()}".encode())
                    file.truncate()
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # its holder has just removed it


def _is(handle: int, path: Path) -> bool:
    """Whether a path still means the open file."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False
