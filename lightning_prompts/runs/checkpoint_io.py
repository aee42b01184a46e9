"""How checkpoints reach the disk: whole or not at all, with the last one's predecessor kept."""

import io
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.plugins import TorchCheckpointIO

from lightning_prompts.files.atomic_files import replace
from lightning_prompts.runs.folder import LAST, PREVIOUS

Location = str | Path


class WholeCheckpoints(TorchCheckpointIO):
    """Replaces checkpoints in one step, and keeps the last.ckpt that is replaced as previous.ckpt.

    Lightning's own writes a temporary file too, but does not bring it to the disk before it takes
    the old one's place, and leaves it behind when the process is killed.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Location, storage_options: Any = None
    ) -> None:
        """Write a checkpoint.

        Raises:
            OSError: If the disk does not take it, with the file's name.
        """
        if storage_options is not None or "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        # In memory first: torch's own writer tells a full disk as an error of its format.
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        place = Path(path)
        before = place.with_name(PREVIOUS) if place.name == LAST else None
        replace(place, lambda file: file.write(buffer.getbuffer()), before)


def use_whole_checkpoints(trainer: Trainer) -> None:
    """Let a trainer write its checkpoints this way, unless it was given a way of its own."""
    # On the strategy, where no list of `trainer.plugins` can lose it.
    if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
        trainer.strategy.checkpoint_io = WholeCheckpoints()
