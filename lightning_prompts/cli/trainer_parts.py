"""Which of Lightning's own callbacks, loggers and plugins a run does not go with, and why.

docs/trainer.md says of every one whether it works, is refused, or what differs.
"""

import re
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import Any

from lightning_prompts.files.errors import PromptError
from lightning_prompts.files.public_names import find_class

_BASE = "a base class that does nothing by itself; give a class that extends it"
# Refused alone: what extends one of these may be of use.
ALONE: Mapping[str, str] = {
    **dict.fromkeys(
        ("Callback", "Checkpoint", "ProgressBar", "BaseFinetuning", "BasePredictionWriter"), _BASE
    ),
    "SpikeDetection": (
        "Lightning 2.6 saves its state and cannot read it again, so no checkpoint of the run could "
        "be used; leave it out (numbers that are not finite stop a run by themselves)"
    ),
}
_WITH_ITS_STRATEGY = (
    "it belongs to a strategy that divides models, which a frozen one does not go with; leave it "
    "out, and choose numbers with --trainer.precision"
)
# By name, with what extends them.
REFUSED: Mapping[str, str] = {
    "BackboneFinetuning": (
        "the language model stays frozen, so there is no backbone to train later; leave it out"
    ),
    "ModelPruning": (
        "it would set weights of the frozen language model to 0, which no checkpoint says; "
        "leave it out"
    ),
    "BatchSizeFinder": (
        "what it finds depends on the machine, and a run's rows a step are part of its result and "
        "of its config.yaml; give --data.batch_size, and try one with --trainer.fast_dev_run 3"
    ),
    "LearningRateFinder": (
        "the rate that it finds would be in no config.yaml, and its schedule would take the place "
        "of the run's; give --model.optimizer.lr, and compare rates with lightning-prompts study"
    ),
    "DeepSpeedPrecision": _WITH_ITS_STRATEGY,
    "FSDPPrecision": _WITH_ITS_STRATEGY,
    "LitLogger": (
        "Lightning's trainer does not take it from a configuration (it is Fabric's kind of "
        "logger); give TensorBoardLogger or CSVLogger"
    ),
}
# Options, with the value that is refused.
VALUES: Mapping[str, tuple[Any, str]] = {
    "barebones": (
        True,
        "it leaves out checkpoints and logs, which a run is made of; measure a run's parts with "
        "--trainer.profiler simple",
    ),
    "enable_checkpointing": (
        False,
        "the best prompt of a run is a checkpoint; leave it out, or try every part without saving "
        "with --trainer.fast_dev_run true",
    ),
}
_XLA = "torch_xla"  # without it the profiler fails twice, the second time in its own end
FIELDS = ("callbacks", "logger", "plugins", "profiler", "strategy", "accelerator")
_OWN = "lightning."  # where Lightning's modules begin


def refuse_parts(trainer: Mapping[str, Any]) -> None:
    """Refuse the first of Lightning's parts that a run does not go with.

    Args:
        trainer: The trainer's options, as parsed.

    Raises:
        PromptError: With its name and the reason.
    """
    for option, (value, why) in VALUES.items():
        if trainer.get(option) is value:
            raise PromptError(f"--trainer.{option} {str(value).lower()}: {why}.")
    if trainer.get("model_registry") is not None:
        raise PromptError(
            f"--trainer.model_registry {trainer['model_registry']}: only the checkpoint callback "
            "of the package litmodels uploads to it, which no run has; leave it out."
        )
    profiler = trainer.get("profiler")
    names = [path.rpartition(".")[2] for path in _class_paths(profiler)]
    if (profiler == "xla" or "XLAProfiler" in names) and find_spec(_XLA) is None:
        raise PromptError(f"--trainer.profiler XLAProfiler: {_missing(_XLA)}.")
    for option in FIELDS:
        for class_path in _class_paths(trainer.get(option)):
            own = class_path.rpartition(".")[2]
            for kind in getattr(find_class(class_path), "__mro__", ()):
                name = kind.__name__
                reason = REFUSED.get(name) or (ALONE.get(name) if name == own else None)
                if reason and kind.__module__.startswith(_OWN):
                    raise PromptError(f"--trainer.{option} {own}: {reason}.")


def refused_by_name(text: str) -> str | None:
    """Why a refused part that a text names as its value is refused: one that cannot be parsed."""
    found = re.search(r"value: \S*?(\w+)$", text, re.MULTILINE)
    name = found[1] if found else ""
    return f"{name}: {REFUSED[name]}." if name in REFUSED else None


def unbuilt(error: BaseException) -> str | None:
    """One sentence on a part of the trainer that could not be built, None for another error.

    Args:
        error: What jsonargparse raised while it built what was parsed.
    """
    text = str(error)
    if not isinstance(error, ValueError) or "Errors:" not in text:
        return None
    found = re.search(r"given class_path '(lightning\.[\w.]+)':\s+(.+)", text)
    if found is not None:
        name, reason = found[1].rpartition(".")[2], found[2]
        wanted = re.match(r"Requirement '([^']+)' not met", reason)
        if wanted:
            reason = _missing(wanted[1])
        return f"--trainer: {name}: {reason.rstrip('.')}."
    if "class_path='lightning." in text and error.__cause__ is not None:
        names = re.findall(r"class_path='lightning\.[\w.]+\.(\w+)'", text)
        reason = str(error.__cause__).splitlines()[0].partition(". Got value")[0]
        return f"--trainer: {names[-1]}: {reason}."
    return None


def said_by_lightning(error: BaseException) -> str | None:
    """What Lightning itself found wrong with options that do not go together, None otherwise.

    Args:
        error: As raised. One that another library raised further down is no answer to the user.
    """
    if not isinstance(error, ValueError | RuntimeError | ImportError) or not str(error):
        return None
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    raised_in = trace.tb_frame.f_globals.get("__name__", "") if trace is not None else ""
    if not raised_in.startswith("lightning.pytorch."):
        return None
    return f"{' '.join(str(error).split()).rstrip('.')} (--debug shows where)."


def _missing(package: str) -> str:
    return f"it needs a package that is not installed; pip install '{package}'"


def _class_paths(value: Any) -> Iterator[str]:
    """Paths of the classes that an option names, one or a list."""
    for part in value if isinstance(value, list) else [value]:
        class_path = part.get("class_path") if isinstance(part, Mapping) else None
        if class_path:
            yield str(class_path)
