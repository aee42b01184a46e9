"""What prompt.json says of a run's prompt."""

import platform
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import torch
from lightning.pytorch import Trainer

from lightning_prompts.callbacks.base import callback_of, task_of
from lightning_prompts.callbacks.baselines import Baselines
from lightning_prompts.callbacks.prompt_text import token_distances
from lightning_prompts.files.option_types import symbols
from lightning_prompts.files.stages import SPLIT_OF, Stage
from lightning_prompts.files.version import __version__
from lightning_prompts.tuners.base import PromptTuner


def scored_rows(trainer: Trainer, stage: Stage) -> int | None:
    """Rows of an evaluation, of which `limit_val_batches` may leave some out; None if not known."""
    task = task_of(trainer)
    split = SPLIT_OF[stage]
    rows: int | None = None if task is None else task.report.rows.get(split)
    # A run with nothing left to do has no batches.
    batches = sum(trainer.num_val_batches if stage == "val" else trainer.num_test_batches)
    if task is None or not rows or not batches:
        return rows
    return int(task.scored_rows(split, int(batches)))


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
        "averaged_by": tuner.averaged_by,
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
        "label": tuner.label,
        "symbols": symbols(tuner, "model."),
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
