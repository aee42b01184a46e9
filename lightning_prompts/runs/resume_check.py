"""Whether a fit goes on with the run that a checkpoint is of, or would quietly become another one.

What decides a run's result is written into its checkpoints: the options of the tuner and the task,
what of the trainer changes a step, and fingerprints of the rows. Any difference is refused before
anything is written. Free are options that do not change the result (`FREE`), the trainer's length,
intervals and logging, and where model, data and a first prompt lie: contents of the former two are
compared instead.
"""

import math
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import GradientAccumulationScheduler, WeightAveraging

from lightning_prompts.callbacks.base import find_callback
from lightning_prompts.files.errors import PromptError
from lightning_prompts.files.public_names import find_class, public_names
from lightning_prompts.tasks.base import PromptTask
from lightning_prompts.tuners.base import PromptTuner
from lightning_prompts.tuners.prompt_init import RECORD
from lightning_prompts.tuners.record import PromptRecord, refuse_other_setting

RUN = "run"  # its key in a checkpoint
SPLITS = ("train", "validation")
FREE = ("name", "num_workers", "test", "test_rows", "predict", "id_column", "task_kind")
# Free as well, unless only some of the validation's batches count.
VAL_BATCH = "val_batch_size"
# Options that only say which rows there are; the rows themselves are compared.
ROWS = (
    *("path", "subset", "data_revision", "text_column", "label_column", "split"),
    *("train", "validation", "shots", "train_rows", "validation_rows", "skip_bad_rows"),
    *("separator", "encoding", "header", "columns"),
)
# Where a run's first prompt lay, which what goes on has no use for.
START = "model.init.path"
# Where a prompt lies that is imitated, whose vectors the tuner compares.
MATCH = "model.match"
TRAINER = ("gradient_clip_val", "gradient_clip_algorithm", "precision", "overfit_batches")
ACCUMULATE = "accumulate_grad_batches"
LIMITS = ("limit_train_batches", "limit_val_batches")
ALL = "1.0"  # no limit, as it is written down
LM = ("dtype", "quantize", "add_bos")
BATCH = "batch_size"  # of each process; what counts is a step's


class SameRun(Callback):
    """Writes into every checkpoint what its run is.

    Args:
        config: Of the fit, completed.
    """

    def __init__(self, config: Namespace) -> None:
        self.config = config

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add it."""
        task = getattr(trainer, "datamodule", None)
        if isinstance(task, PromptTask):
            checkpoint[RUN] = run_record(self.config, trainer, task)


def run_record(config: Namespace, trainer: Trainer, task: PromptTask) -> dict[str, Any]:
    """What decides a run's result, in plain types that load without pickle.

    Args:
        config: Of the fit, completed.
        trainer: Of the fit.
        task: Of the fit; its rows are read.
    """
    options = {name: _plain(config[name]) for name in ("seed_everything", "model", "data")}
    options["lm"] = {name: _plain(config.lm[name]) for name in LM}
    options["trainer"] = {name: _plain(getattr(trainer, name)) for name in TRAINER}
    options["trainer"][ACCUMULATE] = _accumulation(trainer)
    # As texts: 1 is one batch, and 1.0 is all of them.
    options["trainer"] |= {name: str(getattr(trainer, name)) for name in LIMITS}
    options["trainer"]["callbacks"] = _averaging(config.trainer.callbacks)
    return {
        "options": options,
        "processes": trainer.world_size,
        "rows": {split: [len(task.rows(split)), task.rows(split).fingerprint] for split in SPLITS},
    }


def refuse_other_run(
    content: Mapping[str, Any], config: Namespace, trainer: Trainer, tuner: PromptTuner, task: Any
) -> None:
    """Compare what a checkpoint is of with what is about to go on from it.

    Args:
        content: Of the checkpoint. One that says nothing of its run has nothing to be compared.
        config: Of the fit, completed.
        trainer: About to go on.
        tuner: Of the fit.
        task: Of the fit.

    Raises:
        PromptError: At the first difference, with both values.
    """
    record = PromptRecord.from_json(content[RECORD]) if RECORD in content else None
    refuse_other_setting(record, tuner.record(), tuner.lengths)
    saved = content.get(RUN)
    if saved is None:
        return
    own = run_record(config, trainer, task)
    found = list(_differences(saved["options"], own["options"]))
    chosen = [(name, *values) for name, *values in found if name in _flags(ROWS)]
    all_batches = own["options"]["trainer"]["limit_val_batches"] == ALL
    free = _flags(ROWS, FREE, (BATCH,), (VAL_BATCH,) if all_batches else ()) | {START, MATCH}
    for name, then, now in found:
        if name not in free:
            before, after = (f"--{name} {_shown(value)}" for value in (then, now))
            _refuse(before, after, f"give --{name} as before")
    sizes = [(r["options"]["data"]["init_args"][BATCH], r["processes"]) for r in (saved, own)]
    if math.prod(sizes[0]) != math.prod(sizes[1]):
        then, now = (
            f"{size * count} rows a step (--data.{BATCH} {size}, processes: {count})"
            for size, count in sizes
        )
        _refuse(then, now, "give as many as before")
    for split in SPLITS:
        if saved["rows"][split] == own["rows"][split]:
            continue
        then, now = (
            f"{n} {split} rows (fingerprint {digest})"
            for n, digest in (saved["rows"][split], own["rows"][split])
        )
        fix = "put back the rows that it began with"
        if chosen:
            name, *values = chosen[0]
            before, after = (f"--{name} {_shown(value)}" for value in values)
            then, now = f"{then}, {before}", f"{now}, {after}"
            fix = f"give --{name} as before"
        _refuse(then, now, fix)


def _averaging(callbacks: Any) -> str | None:
    """The callbacks that average weights, which change what a run's prompt is, as a text."""
    found = []
    for callback in callbacks if isinstance(callbacks, list) else [callbacks]:
        kind = find_class(getattr(callback, "class_path", ""))
        if kind is not None and issubclass(kind, WeightAveraging):
            options = _plain({**callback.get("init_args", {}), **callback.get("dict_kwargs", {})})
            shown = ", ".join(f"{k} {v}" for k, v in options.items() if k != "device")
            found.append(f"{kind.__name__} ({shown})")
    return ", ".join(found) or None


def _accumulation(trainer: Any) -> int | dict[str, int]:
    """Batches of a step: a number, or one from each epoch on where a scheduler changes it."""
    scheduler = find_callback(trainer, GradientAccumulationScheduler)
    if scheduler is None:
        return int(trainer.accumulate_grad_batches)
    if len(scheduler.scheduling) > 1:  # Lightning's own has one number
        return {str(epoch): count for epoch, count in scheduler.scheduling.items()}
    return int(scheduler.scheduling[0])


def _refuse(then: str, now: str, fix: str) -> None:
    raise PromptError(
        f"The checkpoint's run has {then} but this one has {now}; {fix}, or start a new run "
        "without --ckpt_path."
    )


def _flags(*names: tuple[str, ...]) -> set[str]:
    return {f"data.{name}" for group in names for name in group} | {"data"}


def _differences(saved: Any, own: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Options whose values differ, by the names that they are given under.

    An option that only one side knows belongs to another version of this package.
    """
    if isinstance(saved, Mapping) and isinstance(own, Mapping):
        then, now = (public_names(str(each.get("class_path"))) for each in (saved, own))
        if then != now:
            yield name, then, now
            if name != "data":
                return
        for key, value in saved.items():
            if key in own and key != "class_path":
                inner = name if key == "init_args" else f"{name}.{key}".lstrip(".")
                yield from _differences(value, own[key], inner)
    elif saved != own:
        yield name, saved, own


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        value = value.get("class_path", dict(value))
    return "null" if value is None else str(value)


def _plain(value: Any) -> Any:
    """A configuration's value in types that JSON knows."""
    if isinstance(value, Namespace):
        return {key: _plain(inner) for key, inner in vars(value).items()}
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, Enum):  # Lightning's are texts as well, which `weights_only` refuses
        value = value.value
    return value if isinstance(value, str | int | float | bool | None) else str(value)
