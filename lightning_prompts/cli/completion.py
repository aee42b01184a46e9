"""What follows from a parsed configuration: seed, precision, run folder, checkpoint."""

import itertools
import random
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jsonargparse import Namespace

from lightning_prompts.files.errors import PromptError
from lightning_prompts.files.public_names import find_class
from lightning_prompts.runs.folder import (
    BEST,
    LAST,
    PREVIOUS,
    find_checkpoint,
    next_version,
    run_of_checkpoint,
    run_of_config,
)
from lightning_prompts.tasks.files import suffix

LOGS = "logs"
HALF = ("16", "16-mixed", "16-true")


def complete(
    config: Namespace,
    command: str,
    given: set[str],
    configs: Sequence[Path],
    new_run: Path | None = None,
) -> None:
    """Fill in, in place, what was left open and depends on machine, folder or other options.

    Args:
        config: Of one command, parsed.
        command: fit, validate, test or predict.
        given: Names of the options that were given, without `init_args`.
        configs: The configurations that were given.
        new_run: Folder of a run that begins; by default the next version of its experiment.

    Raises:
        PromptError: If a checkpoint is missing, unreadable or needed.
    """
    _seed(config, given)
    if config.trainer.logger in (True, None):  # Lightning's words for its default
        config.trainer.logger = Namespace(
            class_path="lightning.pytorch.loggers.TensorBoardLogger",
            init_args=Namespace(save_dir=LOGS, name="", version=None, default_hp_metric=False),
        )
    if config.trainer.precision is None and not config.trainer.plugins:
        config.trainer.precision = native_precision(str(config.trainer.accelerator))
    folder = logs_folder(config) / experiment(config)
    run = _resolve_checkpoint(config, command, configs, folder) or new_run
    _place(config, command, folder, run)


def reusable(config: Namespace, completed: Namespace, given: set[str]) -> Namespace:
    """The configuration to save: what a later run with it should decide anew is left out.

    Args:
        config: As parsed.
        completed: The same after `complete`.
        given: Names of the options that were given.
    """
    config = config.clone()
    config.trainer.precision = completed.trainer.precision
    config.seed_everything = completed.seed_everything
    config.pop("ckpt_path", None)
    for name in ("model", "data"):
        if f"{name}.seed" not in given:
            config[name].init_args.pop("seed", None)
    for logger in file_loggers(config):
        logger.init_args.pop("name", None)
        logger.init_args.pop("version", None)
    return config


def native_precision(accelerator: str) -> str:
    """`bf16-mixed` on a GPU with bfloat16 and on a processor with AMX, else `32-true`.

    A Xeon with AVX512-BF16 but without AMX multiplied matrices of bfloat16 at half its speed in
    float32 (160 against 310 GFLOP/s, two cores, torch 2.13).
    """
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    elif accelerator == "cpu" or (accelerator == "auto" and not torch.backends.mps.is_available()):
        fast = bool(torch.cpu.get_capabilities().get("amx_bf16", False))
    else:
        fast = False
    return "bf16-mixed" if fast else "32-true"


def refuse_half_on_cpu(precision: Any, device: torch.device) -> None:
    """Refuse float16 where Lightning would compute in another precision, or lose small gradients.

    Raises:
        PromptError: If so.
    """
    if device.type == "cpu" and str(precision) in HALF:
        raise PromptError(
            f"--trainer.precision {precision} is for GPUs: on a CPU float16 loses small gradients, "
            "and mixed it is not there; give bf16-mixed, 32-true, or null for the fastest here."
        )


def refuse_own_clocks(interval: Any, num_processes: int) -> None:
    """Refuse a time between validations on several processes.

    Raises:
        PromptError: If so: each would go by its own clock, and wait for those that do not validate.
    """
    if num_processes > 1 and not isinstance(interval, int | float | None):
        raise PromptError(
            f"--trainer.val_check_interval {interval}: {num_processes} processes have as many "
            "clocks, which would not ask for a validation at the same step; give a number of steps."
        )


def experiment(config: Namespace) -> str:
    """`--experiment`, else <tuner>-<task>."""
    if config.experiment:
        given = Path(config.experiment)
        if given.is_absolute() or ".." in given.parts:
            raise PromptError(
                f"--experiment {given}: it names a folder in the log folder; choose the log folder "
                "with --trainer.logger.save_dir, and give a plain name here."
            )
        return str(config.experiment)
    tuner: Any = find_class(config.model.class_path)
    task: Any = find_class(config.data.class_path)
    init_args = config.data.init_args
    name = init_args.get("name") or getattr(task, "slug", None)
    if not isinstance(name, str):  # a property: only an instance could tell
        last = Path(init_args.get("path") or task.__name__.lower()).name
        name = last.removesuffix(".gz").removesuffix(suffix(Path(last)))
    return f"{tuner.slug}-{name}"


def logs_folder(config: Namespace) -> Path:
    """Where experiments lie: the logger's folder, else the trainer's, else `logs`."""
    folders = [logger.init_args.save_dir for logger in file_loggers(config)]
    return Path((folders or [config.trainer.default_root_dir])[0] or LOGS)


def place(config: Namespace) -> Path:
    """Folder that a completed configuration's run is written to, its version aside if it is new."""
    for logger in file_loggers(config):
        names = (logger.init_args.name, logger.init_args.version)
        return Path(logger.init_args.save_dir, *(str(name) for name in names if name is not None))
    return Path(config.trainer.default_root_dir)


def file_loggers(config: Namespace) -> list[Namespace]:
    """The loggers that write into a run's folder."""
    loggers = config.trainer.logger
    loggers = loggers if isinstance(loggers, list) else [loggers]
    names = ("TensorBoardLogger", "CSVLogger")
    return [logger for logger in loggers if any(_writes(logger, name) for name in names)]


def _seed(config: Namespace, given: set[str]) -> None:
    """One seed for all parts that were not given their own."""
    if config.seed_everything is None:
        raise PromptError(
            "--seed_everything is null; give a number, true for one that is drawn, or false."
        )
    if config.seed_everything is True:
        config.seed_everything = random.SystemRandom().randrange(2**31)
    if config.seed_everything is False:
        return
    for name in ("model", "data"):
        init_args = config[name].init_args
        if "seed" in init_args and f"{name}.seed" not in given:
            init_args.seed = config.seed_everything


def _resolve_checkpoint(
    config: Namespace, command: str, configs: Sequence[Path], folder: Path
) -> Path | None:
    """Turn best, last, previous into a file; return the run to write into, None for a new one."""
    if config.ckpt_path is None:
        if command != "fit" and getattr(find_class(config.model.class_path), "learns", True):
            raise PromptError(
                f"{command} needs a learned prompt: give --ckpt_path best, last or a .ckpt file."
            )
        return None if command == "fit" else run_of_config(configs)
    checkpoint = find_checkpoint(str(config.ckpt_path), configs, folder)
    read_step(checkpoint)
    config.ckpt_path = str(checkpoint)
    return run_of_checkpoint(checkpoint)


def read_checkpoint(checkpoint: Path) -> dict[str, Any]:
    """All that a checkpoint holds, read without pickle.

    Raises:
        PromptError: If the file is no checkpoint; one that is before it and whole is offered.
    """
    try:
        content: Any = torch.load(checkpoint, weights_only=True, map_location="cpu")
        int(content["global_step"])
        content["pytorch-lightning_version"], content["state_dict"]
        with zipfile.ZipFile(checkpoint) as archive:  # torch does not look at the check sums
            if (damaged := archive.testzip()) is not None:
                raise zipfile.BadZipFile(damaged)
    # A damaged byte may raise anything.
    except Exception as error:
        raise PromptError(
            f"--ckpt_path {checkpoint}: not a checkpoint that lightning-prompts saved, or "
            f"damaged{_offered(checkpoint)}."
        ) from error
    return dict(content)


def read_step(checkpoint: Path) -> int:
    """The training step of a checkpoint.

    Raises:
        PromptError: As `read_checkpoint`.
    """
    return int(read_checkpoint(checkpoint)["global_step"])


def _offered(checkpoint: Path) -> str:
    """The end of a sentence on a checkpoint that cannot be read."""
    for name in (PREVIOUS, BEST):
        other = checkpoint.with_name(name)
        if checkpoint.name in (LAST, PREVIOUS) and other != checkpoint and other.is_file():
            try:
                step = read_step(other)
            except PromptError:
                continue
            return f"; go on from {other} (step {step}) with --ckpt_path {other.stem}"
    return ""


def _place(config: Namespace, command: str, folder: Path, run: Path | None) -> None:
    """Point the loggers at the run: a given one, or a new version of the experiment."""
    loggers = config.trainer.logger if isinstance(config.trainer.logger, list) else None
    first = (loggers or [config.trainer.logger])[0]
    shared = run
    if not _writes(first, "TensorBoardLogger"):
        config.trainer.default_root_dir = str(run or next_version(folder))
        if loggers:  # or a second one would count on, and make a folder of its own
            shared = Path(config.trainer.default_root_dir)
    for logger in file_loggers(config):
        place = shared
        if _writes(logger, "CSVLogger"):
            # It empties a folder that it is pointed at again, so each command has its own.
            place = run and _first_free(run, command)
            place = place or Path(config.trainer.default_root_dir or next_version(folder))
        if place is None:  # the logger counts the versions itself
            logger.init_args.name = str(folder.relative_to(logs_folder(config)))
        else:
            logger.init_args.save_dir = str(place.parent.parent)
            name, version = place.parent.name, place.name
            if version.isdigit():  # a version of digits alone would be read as the number of one
                name, version = f"{name}/{version}", ""
            logger.init_args.name, logger.init_args.version = name, version


def _writes(logger: Any, name: str) -> bool:
    return isinstance(logger, Namespace) and logger.class_path.endswith(name)


def _first_free(run: Path, command: str) -> Path:
    return next(p for n in itertools.count() if not (p := run / f"{command}_{n}").exists())
