"""What tests of guided search share: few rows, where the prompt stands, a quiet trainer."""

from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer

from tests.tiny import reviews

FIRST, LAST = "{prompt} {text} It was", "{text}{prompt}"
WORDS = {"negative": " bad", "positive": " good"}
ROWS = list(reviews(14))
SPLITS = {"train": ROWS[:8], "validation": ROWS[8:11], "test": ROWS[11:]}


def trainer_in(folder: Path, steps: int = 2, **options: Any) -> Trainer:
    quiet = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False}
    quiet |= {"enable_model_summary": False, "num_sanity_val_steps": 0}
    quiet |= {"enable_checkpointing": False, "log_every_n_steps": 1, "max_steps": steps}
    return Trainer(default_root_dir=folder, **(quiet | options))
