"""What tests with two processes share: a witness in each, and that both saw the same."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.patience import PATIENCE

# Imported by the processes from their working directory.
WITNESS = """
import json
from lightning.pytorch import Callback

class Witness(Callback):
    def on_train_batch_end(self, trainer, module, *args):
        self.write(trainer, module, "train")

    def on_validation_end(self, trainer, module):
        self.write(trainer, module, "val")

    def write(self, trainer, module, stage):
        # Padding is of each process's own rows.
        logged = [(k, v) for k, v in trainer.callback_metrics.items() if k != "train/padding"]
        seen = {
            "metrics": {k: float(v) for k, v in logged if k.startswith(stage)},
            "prompt": module.hard_prompt().tolist(),
            "ledger": module.listed_prompts(),
            %s
        }
        with open(f"{stage}-{trainer.global_rank}-{trainer.global_step}.json", "w") as file:
            json.dump(seen, file)
"""


def assert_two_agree(
    args: Sequence[str], folder: Path, seen: str, moments: Sequence[tuple[str, int]]
) -> None:
    """Run a command in two processes, which see the same at each moment.

    Args:
        args: Of `lightning-prompts`, without devices and strategy.
        folder: To run in.
        seen: More items of what a witness writes down, as source code over `module`.
        moments: Stage and step.
    """
    (folder / "witness.py").write_text(WITNESS % seen)
    two = ["--trainer.devices", "2", "--trainer.strategy", "ddp"]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "lightning_prompts", *args, *two),
            "--trainer.callbacks+=witness.Witness",
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for stage, step in moments:
        first, second = (
            json.loads((folder / f"{stage}-{rank}-{step}.json").read_text()) for rank in (0, 1)
        )
        assert first == second
        assert first["metrics"]
