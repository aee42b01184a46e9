"""What TensorBoard opens on: the run's logger, its charts, and the tag of the baselines."""

from collections.abc import Sequence
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger

# Tags are shown in the order of their names, and these stand last: behind `val/`, whose points are
# the run's own curves, come the best prompt's single points and the level lines.
OF_BEST = "val_best"
OF_BASELINES = "vs_baseline"

Charts = dict[str, dict[str, list[Any]]]


def tensorboard(trainer: Trainer) -> TensorBoardLogger | None:
    """The run's TensorBoard logger on the first process, None elsewhere."""
    loggers: Sequence[Any] = trainer.loggers if trainer.is_global_zero else ()
    return next((each for each in loggers if isinstance(each, TensorBoardLogger)), None)


def charts(classifies: bool) -> Charts:
    """The layout of *Custom Scalars*, the same for all runs of a kind, which TensorBoard merges.

    Args:
        classifies: Whether the task has classes; texts have content and style instead.
    """
    performance = {
        "accuracy and the baselines": _lines(
            "val/(hard_|soft_|round_trip_)?accuracy", f"{OF_BASELINES}/val_.*_accuracy"
        )
    }
    if not classifies:
        performance = {"content, style, reward": _lines("val/(content|style|reward)")}
    differentials = {
        "distance differential": "val/distance_differential_.*",
        "output differential, logits²": "val/output_differential",
        "loss and accuracy differential": "val/(loss|accuracy)_differential",
    }
    return {
        "Performance": performance
        | {"loss, nats": _lines("train/(task_)?loss", "val/(hard_|soft_)?loss")},
        "Scrutability": {"perplexity of the tokens": _lines("val/perplexity")},
        "Faithfulness": {title: _lines(tags) for title, tags in differentials.items()},
    }


def _lines(*tags: str) -> list[Any]:
    """A chart of all tags that match in whole."""
    return ["Multiline", [f"{tag}$" for tag in tags]]
