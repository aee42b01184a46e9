"""How a command ends that could not do what it was asked for: exit status, and one sentence."""

import os

import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lightning_prompts.cli.trainer_parts import said_by_lightning, unbuilt
from lightning_prompts.files.errors import PromptError, first_line

MISTAKE, STOPPED = 2, 130
# Processes that do not find one another; a build of torch for one process does not know it.
LOST = tuple(filter(None, [getattr(torch.distributed, "DistError", None)]))
GLOO = "gloo/transport"  # where its errors come from, which have no class of their own


def ending(error: BaseException, debug: bool) -> tuple[int, str] | None:
    """The exit status of a command that raised something, and what to say.

    Args:
        error: What was raised.
        debug: Whether the user asked for tracebacks of mistakes.

    Returns:
        None for what the user cannot mend, or wants to see in full: it is raised again.
    """
    if isinstance(error, KeyboardInterrupt):
        return STOPPED, "Stopped."
    if isinstance(error, SystemExit):
        # Lightning exits with 1 where it caught a Ctrl-C.
        interrupted = isinstance(error.__context__, KeyboardInterrupt)
        return (STOPPED, "Stopped.") if interrupted else None
    message = None if debug else _explained(error)
    return None if message is None else (MISTAKE, message)


def _explained(error: BaseException) -> str | None:
    """The sentence on a mistake, None for what is none."""
    # jsonargparse wraps what a constructor raises.
    known = error.__cause__ if isinstance(error, ValueError) else error
    if isinstance(known, PromptError | MisconfigurationException):
        return str(known)
    if (said := unbuilt(error) or said_by_lightning(error)) is not None:
        return said
    if isinstance(error, torch.OutOfMemoryError):
        return "The device's memory is full; lower --data.batch_size or max_tokens."
    if isinstance(error, OSError) and error.filename is not None:
        return f"{os.fsdecode(error.filename)}: {error.strerror} (--debug shows where)."
    if isinstance(error, LOST) or (isinstance(error, RuntimeError) and GLOO in str(error)):
        return f"The processes cannot meet, or lost one another ({first_line(error)})."
    return None
