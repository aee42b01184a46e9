"""The configuration of a fit, saved beside what came of it."""

from jsonargparse import Namespace
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser

from lightning_prompts.files.atomic_files import write_text
from lightning_prompts.runs.folder import CONFIG, run_folder


class SaveConfig(Callback):
    """Saves the configuration of a fit as config.yaml of its run.

    Args:
        parser: Knows how to write it.
        config: What to write.
    """

    def __init__(self, parser: LightningArgumentParser, config: Namespace) -> None:
        self.parser, self.config = parser, config

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Save on the first rank; a resumed run replaces its own."""
        path = run_folder(trainer) / CONFIG
        if stage == "fit" and trainer.is_global_zero and not getattr(trainer, "fast_dev_run", 0):
            # With its nulls: a null may stand against another value of default.yaml.
            write_text(path, self.parser.dump(self.config, skip_unset=False))
