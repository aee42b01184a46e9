"""A run's two checkpoints, best.ckpt with its prompt.json and last.ckpt, and how it stops."""

import json
import math
import os
import platform
import signal
import threading
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any, Literal, TypeVar

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from lightning_prompts import __version__
from lightning_prompts.callbacks.base import task_of
from lightning_prompts.callbacks.baselines import Baselines
from lightning_prompts.callbacks.prompt_text import token_distances
from lightning_prompts.errors import PromptError
from lightning_prompts.inert import json_text
from lightning_prompts.run_folder import CHECKPOINTS, PROMPT, run_folder
from lightning_prompts.tuners.base import PromptTuner, Stage

C = TypeVar("C", bound=Callback)
SPLITS: dict[Stage, str] = {"val": "validation", "test": "test"}
# One file each, overwritten: what `best` and `last` mean never depends on a counter.
_ONE_FILE: dict[str, Any] = {
    "save_top_k": 1,
    "enable_version_counter": False,
    "auto_insert_metric_name": False,
    "save_on_train_epoch_end": False,
}


class _RunCheckpoint(ModelCheckpoint):
    """A checkpoint in the run's own folder, written after validations."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**_ONE_FILE, **kwargs)
        self.run: Path | None = None
        """The run's folder, known once it has begun."""
        # Lightning starts at 0, which would skip the only validation of a tuner that never steps.
        self._last_global_step_saved = -1

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


class BestPrompt(_RunCheckpoint):
    """Keeps the prompt of the best validation as best.ckpt, and describes it in prompt.json.

    A tie goes to the earlier validation.

    Args:
        monitor: Logged name of the value that decides.
        mode: Whether the lowest (min) or the highest (max) value is the best.
    """

    def __init__(self, monitor: str = "val/objective", mode: Literal["min", "max"] = "min") -> None:
        super().__init__(monitor=monitor, mode=mode, filename="best")
        self.history: list[list[float]] = []
        """[step, value] of every validation so far."""
        self._old_metrics: dict[str, Tensor] = {}

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember what is logged already: it belongs to an earlier prompt."""
        self._old_metrics = dict(trainer.callback_metrics)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save where this validation is the best so far.

        Raises:
            PromptError: If nothing of the monitored name is logged.
        """
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            value = trainer.callback_metrics.get(str(self.monitor))
            if value is None:
                names = ", ".join(k for k in sorted(trainer.callback_metrics) if k[:4] == "val/")
                raise PromptError(
                    f"--checkpoint.monitor {self.monitor} is not logged; there are {names}."
                )
            self.history.append([trainer.global_step, float(value)])
        super().on_validation_end(trainer, pl_module)

    def _save_checkpoint(self, trainer: Trainer, filepath: str) -> None:
        """Write the checkpoint, then the description of the same prompt."""
        super()._save_checkpoint(trainer, filepath)
        metrics = {
            name: float(value)
            for name, value in trainer.callback_metrics.items()
            # Callbacks may skip validations: their last values are of another prompt.
            if name.startswith("val/") and value is not self._old_metrics.get(name)
        }
        assert isinstance(trainer.lightning_module, PromptTuner)
        description = describe(trainer, trainer.lightning_module, metrics)
        description["rows"] = {"validation": scored_rows(trainer, "val")}
        if trainer.is_global_zero:
            write_json(Path(filepath).parents[1] / PROMPT, description)

    def state_dict(self) -> dict[str, Any]:
        """Lightning's state and the history."""
        return {**super().state_dict(), "history": self.history}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As saved."""
        super().load_state_dict(state_dict)
        self.history = [list(entry) for entry in state_dict["history"]]


class LastPrompt(_RunCheckpoint):
    """Keeps last.ckpt: after every validation, and where the run is stopped.

    The first SIGTERM or Ctrl-C ends the run after the step under way; another one at once.
    """

    def __init__(self) -> None:
        super().__init__(filename="last")
        self.stopped_by: int | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen for signals; Lightning puts its caller's handlers back when it ends."""
        super().on_train_start(trainer, pl_module)
        if threading.current_thread() is threading.main_thread():
            for signum in (signal.SIGINT, signal.SIGTERM):
                signal.signal(signum, self._on_signal)

    def on_train_batch_start(self, trainer: Trainer, *args: Any) -> None:
        """Log a resumed run's steps under the numbers of an uninterrupted one."""
        # Lightning is one behind where the last validation was not a regular one.
        trainer.fit_loop.epoch_loop._batches_that_stepped = trainer.global_step

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        """Where a signal came to any process, save and stop all of them after the same step."""
        stop = self.stopped_by is not None
        if trainer.strategy.reduce_boolean_decision(stop, all=False):
            # Here and not in `on_exception`: that comes after a finished epoch has been counted,
            # and a run resumed from there counts it again.
            self._save_topk_checkpoint(trainer, self._monitor_candidates(trainer))
            self._last_global_step_saved = -1  # a validation due now is saved as well
            # Lightning raises SIGTERMException when the step's bookkeeping is done.
            trainer._signal_connector.received_sigterm = True

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave an evaluation that is not part of a fit to the signal."""
        if trainer.state.fn != TrainerFn.FITTING:
            _die_of_sigterm()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """As for `validate`."""
        _die_of_sigterm()

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """As for `validate`."""
        _die_of_sigterm()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save a run that ends without a validation."""
        if not self._should_skip_saving_checkpoint(trainer):
            self._save_topk_checkpoint(trainer, self._monitor_candidates(trainer))

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        self.stopped_by = signum
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        # Not through Python's buffers, which the signal may have interrupted.
        os.write(2, b"\nStopping after this step; once more to stop at once.\n")


def _die_of_sigterm() -> None:
    """Undo Lightning's handler, which only notes the signal and lets an evaluation run on."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def scored_rows(trainer: Trainer, stage: Stage) -> int | None:
    """Rows of an evaluation, of which `limit_val_batches` may leave some out; None if not known."""
    task = task_of(trainer)
    rows = None if task is None else task.report.rows.get(SPLITS[stage])
    # A run with nothing left to do has no batches.
    batches = trainer.num_val_batches if stage == "val" else trainer.num_test_batches
    scored = 0 if rows is None else sum(batches) * task.val_batch_size * trainer.world_size
    return int(scored) if rows is not None and 0 < scored < rows else rows


@torch.no_grad()
def describe(trainer: Trainer, tuner: PromptTuner, metrics: Mapping[str, float]) -> dict[str, Any]:
    """What prompt.json says of the tuner's present prompt.

    Args:
        trainer: At the validation that measured the prompt.
        tuner: Holds the prompt.
        metrics: Of this validation, by the names they are logged under.
    """
    token_ids, lm, verbalizer = tuner.hard_prompt(), tuner.lm, tuner.verbalizer
    ids: list[int] = token_ids.tolist()
    distances = token_distances(tuner, token_ids).tolist() if tuner.has_soft_prompt else None
    baselines = callback_of(trainer, Baselines).results
    return {
        "text": lm.decode(ids),
        "ids": ids,
        "tokens": lm.token_strings(ids),
        "token_nats": lm.token_nll(token_ids[None])[0].tolist(),
        "token_distances": distances,
        "in_use": "vectors" if tuner.soft_in_use else "tokens",
        "step": trainer.global_step,
        "metrics": dict(sorted(metrics.items())),
        "baselines": {name: dict(values) for name, values in baselines.items()},
        "lm": {
            "name": lm.name,
            "revision": lm.revision,
            "label": lm.label,
            "fingerprint": lm.fingerprint,
        },
        "tuner": type(tuner).__name__,
        "perplexity_weight": tuner.perplexity_weight,
        "task": getattr(task_of(trainer), "slug", None),
        "data": getattr(task_of(trainer), "origin", None),
        "template": tuner.template.text,
        "verbalizer": dict(zip(verbalizer.labels, verbalizer.words, strict=True)),
        "seed": tuner.seed,
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "lightning", "transformers")},
            "lightning_prompts": __version__,
        },
    }


def callback_of(trainer: Any, kind: type[C]) -> C:
    """The trainer's callback of a class."""
    return next(found for found in trainer.callbacks if isinstance(found, kind))


def load_prompt(tuner: PromptTuner, checkpoint: Path) -> None:
    """Put a checkpoint's prompt into the tuner, wherever it was trained."""
    content = torch.load(checkpoint, weights_only=True, map_location="cpu")
    tuner.on_load_checkpoint(content)
    tuner.load_state_dict(content["state_dict"])


def write_json(path: Path, content: Any) -> None:
    """Replace a JSON file, with null for what is no number."""
    write_text(path, _dumps(content, indent=2) + "\n")


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """The same for a JSONL file, an object a line."""
    write_text(path, "".join(_dumps(row) + "\n" for row in rows))


def _dumps(content: Any, indent: int | None = None) -> str:
    text = json.dumps(_finite(content), ensure_ascii=False, allow_nan=False, indent=indent)
    return json_text(text)


def write_text(path: Path, text: str) -> None:
    """Replace a file in one step, so that a reader never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)


def _finite(content: Any) -> Any:
    """The content with null for inf and NaN, which JSON does not know."""
    if isinstance(content, Mapping):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def _moved(path: str, folder: Path) -> str:
    return str(folder / Path(path).name) if path else path
