"""`predict`: one line of predictions.jsonl for each row, whichever process scored it."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_prompts.callbacks.base import gathered
from lightning_prompts.files.atomic_files import write_lines
from lightning_prompts.runs.folder import run_folder
from lightning_prompts.tasks.base import PromptTask
from lightning_prompts.tasks.rows import Rows
from lightning_prompts.tuners.base import PromptTuner

PREDICTIONS = "predictions.jsonl"


class Predictions(Callback):
    """Collects the predictions of all processes and writes them, sorted by row, into the run."""

    def __init__(self) -> None:
        self.path: Path | None = None
        """Where they were written."""
        self.num_rows = 0
        """How many there are."""
        self._scored: list[tuple[int, dict[str, Any]]] = []

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin anew."""
        self._scored = []

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *args: Any, **kwargs: Any
    ) -> None:
        """Keep `rows` [B] with `probabilities` [B, C] of a batch, or B `records`."""
        assert isinstance(pl_module, PromptTuner)
        records = outputs.get("records")
        if records is None:
            labels, shares = pl_module.verbalizer.labels, outputs["probabilities"].float().tolist()
            records = [_answer(dict(zip(labels, row, strict=True))) for row in shares]
        self._scored += zip(outputs["rows"].tolist(), records, strict=True)

    def on_predict_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Gather and write."""
        parts = gathered(trainer, self._scored)
        self.path = run_folder(trainer) / PREDICTIONS
        if not trainer.is_global_zero or getattr(trainer, "fast_dev_run", False):
            return
        records = dict(itertools.chain.from_iterable(parts))
        self.num_rows = len(records)
        task = getattr(trainer, "datamodule", None)
        rows = task.rows("predict") if isinstance(task, PromptTask) else None
        write_lines(self.path, _lines(records, rows))


def _lines(records: dict[int, dict[str, Any]], rows: Rows | None) -> Iterator[dict[str, Any]]:
    """A line for each row, by number: its record, or why it has none.

    Args:
        records: By number of a row, what was predicted.
        rows: Of the task.
    """
    left_out, ids = (rows.left_out, rows.ids) if rows else ({}, {})
    # What was not predicted stays null under the names that other rows have.
    empty: dict[str, Any] = dict.fromkeys(next(iter(records.values()), {}))
    for number in sorted({*records, *left_out}):
        called = {"id": ids.get(number)} if ids else {}
        why = {"left_out": left_out[number]} if number in left_out else {}
        yield {"row": number, **called, **records.get(number, empty), **why}


def _answer(by_label: dict[str, float]) -> dict[str, Any]:
    """The likeliest label, and how likely each one is."""
    return {"label": max(by_label, key=by_label.__getitem__), "probabilities": by_label}
