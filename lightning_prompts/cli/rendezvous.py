"""Where the processes of a run meet: checked before they are started, which would wait for long."""

import os
import socket

from lightning.fabric.plugins.environments import LightningEnvironment
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import ParallelStrategy

from lightning_prompts.files.errors import PromptError

ADDRESS, PORT = "MASTER_ADDR", "MASTER_PORT"
PORTS = range(1, 1 << 16)


def check_rendezvous(trainer: Trainer) -> None:
    """Refuse an address or a port where the processes cannot meet, and a way they cannot start.

    Only where this process starts the others; a launcher such as torchrun or SLURM has made its own
    arrangements.

    Raises:
        PromptError: With the variable or the option to change.
    """
    strategy = trainer.strategy
    if getattr(strategy, "_start_method", None) in ("spawn", "forkserver"):
        raise PromptError(
            "--trainer.strategy ddp_spawn would pickle what a configuration is made into, which "
            "cannot be pickled; take --trainer.strategy ddp."
        )
    if not isinstance(strategy, ParallelStrategy) or trainer.world_size == 1:
        return
    environment = strategy.cluster_environment
    if not isinstance(environment, LightningEnvironment):
        return
    if environment.creates_processes_externally or environment.node_rank() > 0:
        return
    address = os.environ.get(ADDRESS)
    if address is not None:
        try:
            socket.getaddrinfo(address, None)
        except (OSError, UnicodeError) as error:
            raise PromptError(
                f"{ADDRESS} is {address!r}, a host that is not known here; set it to the first "
                "node's address, or unset it where there is one node."
            ) from error
    port = os.environ.get(PORT)
    if port is None:  # a free one is looked for
        return
    if not port.isdecimal() or int(port) not in PORTS:
        raise PromptError(
            f"{PORT} is {port!r}; set it to a free port from {PORTS[0]} to {PORTS[-1]}, or unset "
            "it where there is one node."
        )
    if not _free(int(port)):
        raise PromptError(
            f"{PORT} is {port}, where another program listens already; set it to a free port, or "
            "unset it where there is one node."
        )


def _free(port: int) -> bool:
    """Whether this machine lets a program listen at a port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True
