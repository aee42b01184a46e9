"""`prompts.jsonl`: which of the many prompts that a tuner wrote are the best?"""

from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger

from lightning_prompts.callbacks.prompt_text import code
from lightning_prompts.files.atomic_files import write_lines
from lightning_prompts.files.stages import fitting
from lightning_prompts.runs.folder import PROMPTS, run_folder
from lightning_prompts.tuners.base import PromptTuner

SHOWN = 20  # rows of the table; the file has all that the tuner lists


class PromptList(Callback):
    """Writes the best distinct prompts at every validation of `fit`, the best first.

    A line of `prompts.jsonl` for each, and a table in TensorBoard's text, for tuners that know more
    than one prompt.
    """

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write; on every rank the folder is asked for, the first one writes."""
        if not fitting(trainer) or getattr(trainer, "fast_dev_run", False):
            return
        assert isinstance(pl_module, PromptTuner)
        listed, folder = pl_module.listed_prompts(), run_folder(trainer)
        if not listed or not trainer.is_global_zero:
            return
        write_lines(folder / PROMPTS, listed)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                table = markdown_table(listed[:SHOWN])
                logger.experiment.add_text("prompts", table, trainer.global_step)


def markdown_table(rows: Sequence[Mapping[str, Any]]) -> str:
    r"""The rows, with their numbers as columns but for the losses; a prompt cannot break its cell.

    >>> print(markdown_table([{"text": " a|b", "ids": [1], "times": 3, "val_reward": 2.0}]))
    | text | times | val reward |
    | --- | --- | --- |
    | `' a\|b'` | 3 | 2.0 |
    """
    named = dict.fromkeys(name for row in rows for name in row)
    columns = [n for n in named if n not in ("text", "ids") and not n.endswith("loss")]
    # With spaces a heading can break between its words.
    lines = [["text", *(name.replace("_", " ") for name in columns)], ["---"] * (1 + len(columns))]
    for row in rows:
        text = code(row["text"]).replace("|", "\\|")
        lines.append([text, *(_number(row.get(name)) for name in columns)])
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _number(value: float | None) -> str:
    """Shares to three digits, larger numbers to one, counts as they are."""
    if value is None or isinstance(value, int):
        return "" if value is None else str(value)
    return f"{value:.3f}" if abs(value) < 1 else f"{value:.1f}"
