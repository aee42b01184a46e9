"""Locks on files that the system frees however a process ends, by `kill -9` too."""

import errno

from filelock import lock_descriptor

# What a file system says that has no locks, and a Python without them.
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)


def lock(handle: int, wait: bool = False) -> bool | None:
    """Lock an open file for this process, until it is closed.

    Args:
        handle: On Windows nobody else can read the file's first byte then.
        wait: Until it is free.

    Returns:
        False where another process has it, None where files cannot be locked.
    """
    try:
        return lock_descriptor(handle, blocking=wait)
    except OSError as error:
        if error.errno in NO_LOCKS:
            return None
        raise
