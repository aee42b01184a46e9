"""What a run's two checkpoints share: one file each, in the run's own folder."""

from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_prompts.files import lightning_internals as internals
from lightning_prompts.files.errors import PromptError
from lightning_prompts.runs.folder import CHECKPOINTS, run_folder

# One file each, overwritten: what `best` and `last` mean never depends on a counter.
_ONE_FILE: dict[str, Any] = {
    "save_top_k": 1,
    "enable_version_counter": False,
    "auto_insert_metric_name": False,
    "save_on_train_epoch_end": False,
}


class RunCheckpoint(ModelCheckpoint):
    """A checkpoint in the run's own folder, written after validations."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**_ONE_FILE, **kwargs)
        self.run: Path | None = None
        """The run's folder, known once it has begun."""
        # Or the only validation of a tuner that never steps would be skipped.
        internals.save_again(self)

    @property
    def folder(self) -> Path:
        """The run's folder.

        Raises:
            PromptError: If no run has begun.
        """
        if self.run is None:
            raise PromptError("No run has begun, so there is no folder; call Trainer.fit first.")
        return self.run

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find the run's folder."""
        self.run = run_folder(trainer)
        self.dirpath = str((self.run / CHECKPOINTS).absolute())
        super().setup(trainer, pl_module, stage)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the saved state, also where the run's folder has been moved."""
        here = Path(str(self.dirpath))
        moved = {k: _moved(v, here) for k, v in state_dict.items() if k.endswith("_path")}
        files = {_moved(k, here): v for k, v in state_dict["best_k_models"].items()}
        if all(Path(name).is_file() for name in files):
            super().load_state_dict(
                {**state_dict, **moved, "best_k_models": files, "dirpath": self.dirpath}
            )


def _moved(path: str, folder: Path) -> str:
    return str(folder / Path(path).name) if path else path
