"""`predict`: one line for each row, in predictions.jsonl of the run or in a file of one's own."""

import contextlib
import hashlib
import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import ModelParallelStrategy

from lightning_prompts.callbacks.base import gathered, task_of
from lightning_prompts.files.atomic_files import write_lines
from lightning_prompts.files.console import notice
from lightning_prompts.files.errors import PromptError
from lightning_prompts.files.option_types import ChecksOptions, Count
from lightning_prompts.files.text import short_path
from lightning_prompts.files.version import __version__
from lightning_prompts.runs.answers_of import NEAREST, TEXT, AnswersOf, columns_of
from lightning_prompts.runs.folder import require_writable, run_folder
from lightning_prompts.runs.lock import locked
from lightning_prompts.runs.prediction_files import PredictionFile, ending_of, parts_folder
from lightning_prompts.tasks.base import PromptTask
from lightning_prompts.tasks.rows import Rows
from lightning_prompts.tasks.windows import WINDOW, WindowRows, Windows
from lightning_prompts.tuners.base import PromptTuner

PREDICTIONS = "predictions.jsonl"


class Predictions(ChecksOptions, Callback):
    """Writes a line for each row that was to be predicted, in the rows' own order.

    Without `path` all rows are read first and their lines go to predictions.jsonl of the run. With
    it, rows are read while they are predicted, in the memory of one window of them whatever the
    file's size, and what is done stays: after a kill, `resume` goes on.

    Args:
        path: A file for the predictions, whose ending is the format: .jsonl, .csv or .parquet. One
            that is there and whole is left alone and refused.
        resume: Go on with a file that was begun, with the same options; or begin it.
        nearest_tokens: Answer with the tokens nearest to the prompt as well.
        pasted_text: Answer with the prompt's text as well, pasted into the template.
        calibrate: Add calibrated answers: less the mean log-probability of each class over 256
            training texts, whose labels are not looked at. It supposes classes of equal frequency.
        window: Rows that are read, sorted by length and written together, where there is a `path`;
            a kill loses at most so many.

    Raises:
        PromptError: If `path` has another ending, or `resume` has no path.
    """

    def __init__(
        self,
        path: str | None = None,
        resume: bool = False,
        nearest_tokens: bool = False,
        pasted_text: bool = False,
        calibrate: bool = False,
        window: Count = 2048,
    ) -> None:
        self._own = Path(path) if path else None
        if self._own is not None:
            ending_of(self._own)
        elif resume:
            raise PromptError("--predictions.resume goes on with a file: give --predictions.path.")
        self.resume, self.window = resume, window
        self._asked = {
            "nearest_tokens": nearest_tokens,
            "pasted_text": pasted_text,
            "calibrate": calibrate,
        }
        self.path: Path | None = None
        """Where they were written."""
        self.num_rows = 0
        """How many there are."""
        self.kept_rows = 0
        """Those of a file that went on."""
        self.num_cut: int | None = None
        """Rows of the file whose text was cut to fit; None where there is no `path`."""
        self._answers: AnswersOf | None = None
        self._scored: dict[int, dict[str, Any]] = {}
        self._windows: Windows | None = None
        """None until a file of one's own was begun."""
        self._held = contextlib.ExitStack()

    @property
    def streams(self) -> bool:
        """Whether rows are read while they are predicted."""
        return self._own is not None

    # ---- Lightning's hooks

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Look through the rows of a file of one's own, and find what of it is done."""
        if stage != "predict":
            return
        assert isinstance(pl_module, PromptTuner)
        if not pl_module.classifies and (self._own or any(self._asked.values())):
            raise PromptError(
                "--predictions has options for answers with a label, which this task has not; "
                "leave them out, and its records go to predictions.jsonl."
            )
        if self._own is None or getattr(trainer, "fast_dev_run", False):
            return
        task = task_of(trainer)
        if task is None:
            raise PromptError(
                "--predictions.path reads the rows of a task; give one in place of loaders, or "
                "leave it out."
            )
        if isinstance(trainer.strategy, ModelParallelStrategy):
            raise PromptError(
                "--predictions.path: processes that divide a model read the same rows; leave it "
                "out, or predict with --trainer.strategy auto."
            )
        self._begin(trainer, pl_module, task, self._own)

    def _begin(self, trainer: Trainer, tuner: PromptTuner, task: PromptTask, path: Path) -> None:
        require_writable(path.absolute().parent, "choose another with --predictions.path")
        if path.is_dir():
            raise PromptError(f"--predictions.path {path}: a folder; give the name of a file.")
        windows = task.windows = Windows(task, self.window)
        windows.look(trainer.is_global_zero)
        ways = [
            n for n, o in ((NEAREST, "nearest_tokens"), (TEXT, "pasted_text")) if self._asked[o]
        ]
        columns = columns_of(tuner.verbalizer.labels, ways, self._asked["calibrate"])
        named = windows.kinds if getattr(task, "id_column", None) else None
        self._file = PredictionFile(path, columns, named)
        self._digests = [window.digest for window in windows.plan]
        if trainer.is_global_zero:
            fix = "or give another --predictions.path"
            self._held.enter_context(locked(parts_folder(path), "predict", fix))
            self._file.begin(self._settings(trainer, tuner, task), self.resume)
        trainer.strategy.barrier("predictions")
        done = self._file.parts(self._digests)
        missing = [index for index in range(len(self._digests)) if index not in done]
        self.kept_rows = sum(windows.plan[index].rows for index in done)
        if done and trainer.is_global_zero:
            notice(f"{self.kept_rows:,} of {windows.num_rows:,} rows are there; going on")
        windows.want(missing[trainer.global_rank :: trainer.world_size])
        self._windows = windows
        if trainer.is_global_zero:
            for of_window in windows.without_rows:
                if of_window.index in missing:
                    self._write(of_window)
        # No text comes back, so what is kept of it would only take room.
        tuner.lm.text_cache.clear()
        tuner.lm.text_cache.gib = 0.0

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin anew."""
        assert isinstance(pl_module, PromptTuner)
        self._scored = {}
        self._answers = None
        if pl_module.classifies:
            self._answers = AnswersOf(trainer, pl_module, **self._asked)

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *args: Any, **kwargs: Any
    ) -> None:
        """Keep `rows` [B] with `probabilities` [B, C] of a batch, or B `records`."""
        batch = args[0] if args else kwargs["batch"]
        records = outputs.get("records")
        if records is None:
            assert self._answers is not None
            records = self._answers.records(outputs["probabilities"], batch)
        self._scored |= zip(outputs["rows"].tolist(), records, strict=True)
        of_window = batch.get(WINDOW)
        if of_window is not None and all(n in self._scored for n in of_window.numbers):
            self._write(of_window)

    def on_predict_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Gather and write, where no file of one's own is written already."""
        if self._windows is not None:
            return
        parts = gathered(trainer, self._scored)
        self.path = run_folder(trainer) / PREDICTIONS
        if not trainer.is_global_zero or getattr(trainer, "fast_dev_run", False):
            return
        records = dict(itertools.chain.from_iterable(part.items() for part in parts))
        self.num_rows = len(records)
        task = getattr(trainer, "datamodule", None)
        rows = task.rows("predict") if isinstance(task, PromptTask) else None
        # What was not predicted stays null under the names that other rows have.
        empty: dict[str, Any] = dict.fromkeys(next(iter(records.values()), {}))
        write_lines(self.path, _lines(records, rows, empty))

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Join the parts once all are there; also where none was missing, and no batch was read."""
        if self._windows is None or stage != "predict":
            return
        trainer.strategy.barrier("predictions")
        if trainer.is_global_zero:
            done = self._file.parts(self._digests)
            self.num_rows = sum(self._windows.plan[index].rows for index in done)
            self.num_cut = sum(part.cut for part in done.values())
            if len(done) == len(self._digests):
                self._file.join([done[index] for index in range(len(done))])
                self.path = self._file.path
        self._held.close()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Say how to go on."""
        if self._windows is not None and trainer.is_global_zero:
            done = self._file.parts(self._digests)
            kept = sum(self._windows.plan[index].rows for index in done)
            notice(
                f"{kept:,} of {self._windows.num_rows:,} rows are kept in "
                f"{short_path(self._file.folder)}; --predictions.resume true goes on"
            )
        self._held.close()

    # ---- details

    def _write(self, of_window: WindowRows) -> None:
        """Write a window, all of whose rows have their records."""
        records = {number: self._scored.pop(number) for number in of_window.numbers}
        empty = dict.fromkeys(("label", "probabilities"))
        digest = self._digests[of_window.index]
        lines = _lines(records, of_window, next(map(dict.fromkeys, records.values()), empty))
        self._file.write(of_window.index, digest, of_window.cut, lines)

    def _settings(self, trainer: Trainer, tuner: PromptTuner, task: PromptTask) -> dict[str, Any]:
        """All that decides what is predicted but for the rows, by names for a message."""
        prompt = tuner.prompt_embeddings().detach().float().cpu().numpy().tobytes()
        asked = [name for name, wanted in self._asked.items() if wanted]
        return {
            "version of lightning-prompts": __version__,
            "model (--lm.name)": tuner.lm.fingerprint,
            "prompt (--ckpt_path)": hashlib.sha256(prompt).hexdigest()[:16],
            "--data.template": tuner.template.text,
            "--data.verbalizer": repr(tuner.verbalizer),
            "--data.max_tokens": [task.report.max_tokens, task.truncate],
            "--data.val_batch_size": task.val_batch_size,
            "--data.id_column": getattr(task, "id_column", None),
            "--trainer.precision": str(trainer.precision),
            "device (--trainer.accelerator)": tuner.device.type,
            "--predictions.window": self.window,
            "--predictions (nearest_tokens, pasted_text, calibrate)": asked,
        }


def _lines(
    records: Mapping[int, dict[str, Any]], rows: Rows | WindowRows | None, empty: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """A line for each row, by number: its record, or why it has none.

    Args:
        records: By number of a row, what was predicted.
        rows: Of the task.
        empty: What stands in place of a record.
    """
    left_out, ids = (rows.left_out, rows.ids) if rows else ({}, {})
    for number in sorted({*records, *left_out}):
        called = {"id": ids.get(number)} if ids else {}
        why = {"left_out": left_out[number]} if number in left_out else {}
        yield {"row": number, **called, **records.get(number, empty), **why}
