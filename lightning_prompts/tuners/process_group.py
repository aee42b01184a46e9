"""Leaving a group of processes cleanly, however a process ends."""

import atexit
import functools

import torch


@functools.cache
def leave_group_at_exit() -> None:
    """Leave gloo's group when Python ends, whatever ends it; Lightning does so for NCCL's alone.

    A process that ends within its group leaves gloo's threads running behind Python. Where another
    process has gone first, they now and then abort this one (status -6, "terminate called without
    an active exception") after all its work is done, and a scheduler takes that for a failed job.
    """
    atexit.register(leave_group)


def leave_group() -> None:
    """Stop gloo's threads, if there are any."""
    group = torch.distributed
    if group.is_available() and group.is_initialized() and group.get_backend() == "gloo":
        group.destroy_process_group()
