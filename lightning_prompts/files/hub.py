"""Whether the Hugging Face hub can be reached, asked once and quickly.

Its libraries retry for 20 seconds and more before they say that it cannot.
"""

import functools
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit
from urllib.request import getproxies

from huggingface_hub import constants

PROBE_SECONDS = 2.0


def hub_reachable() -> bool:
    """Whether a connection to the hub can be opened, in at most two seconds.

    The endpoint is the library's own (`HF_ENDPOINT`). Behind a proxy only the library itself knows
    how to connect, so the answer is yes without a probe; with `HF_HUB_OFFLINE=1` it is no.
    """
    if constants.HF_HUB_OFFLINE:
        return False
    if getproxies().keys() & {"http", "https", "all"}:
        return True
    address = urlsplit(constants.ENDPOINT)
    port = address.port or (80 if address.scheme == "http" else 443)
    return _connects(address.hostname or "", port)


@contextmanager
def offline_unless_reachable() -> Iterator[bool]:
    """Let the hub's libraries look into their caches alone where the hub cannot be reached.

    Yields:
        Whether it can be reached.
    """
    reachable = hub_reachable()
    # `datasets` copies the setting at import, so an imported one needs its copy set as well.
    modules = [constants, *filter(None, [sys.modules.get("datasets.config")])]
    before = [module.HF_HUB_OFFLINE for module in modules]
    try:
        if not reachable:
            for module in modules:
                module.HF_HUB_OFFLINE = True  # type: ignore[attr-defined]
        yield reachable
    finally:
        for module, value in zip(modules, before, strict=True):
            module.HF_HUB_OFFLINE = value  # type: ignore[attr-defined]


@functools.cache
def _connects(host: str, port: int) -> bool:
    """Whether a TCP connection opens; remembered, so that model and data ask once."""
    opened = threading.Event()

    def connect() -> None:
        try:
            socket.create_connection((host, port), timeout=PROBE_SECONDS).close()
        except OSError:
            return
        opened.set()

    # A thread, because resolving a name has no timeout of its own.
    probe = threading.Thread(target=connect, daemon=True)
    probe.start()
    probe.join(PROBE_SECONDS)
    return opened.is_set()
