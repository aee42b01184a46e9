"""The prompt itself in TensorBoard: its tokens as text, its vectors, its hyperparameters."""

import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from lightning_prompts.callbacks.base import task_of
from lightning_prompts.callbacks.tensorboard import OF_BEST, charts, tensorboard
from lightning_prompts.files.numbers import wide
from lightning_prompts.files.option_types import ChecksOptions, Count
from lightning_prompts.files.stages import fitting
from lightning_prompts.lm.nearest import distance
from lightning_prompts.tuners.base import PromptTuner
from lightning_prompts.tuners.prompt_init import RECORD

COLUMNS = ["token", "kind", "distance"]
TAG = "prompt"  # in the projector's files


class PromptText(ChecksOptions, Callback):
    """Writes the prompt to TensorBoard; does nothing where the run has no TensorBoard logger.

    At the start of `fit` the charts of *Custom Scalars*. At every validation the hard prompt as
    text, each token with the cosine distance of the soft prompt to it. At the end, and of the best
    prompt, its vectors among their nearest tokens (the projector's files are too large to write at
    each validation) and its hyperparameters with its metrics, under `val_best/...`, so that no
    `val/...` curve gets a point that no validation made.

    Args:
        neighbours: Nearest tokens of each prompt vector to show in the projector.
    """

    def __init__(self, neighbours: Count = 8) -> None:
        self.neighbours = neighbours

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say which charts TensorBoard shows together."""
        if (logger := tensorboard(trainer)) is not None:
            classifies = cast(PromptTuner, pl_module).classifies
            logger.experiment.add_custom_scalars(charts(classifies))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the tokens as text."""
        if fitting(trainer):
            # On every process: a language model that is divided over them takes them all to read.
            table = prompt_table(cast(PromptTuner, pl_module))
            if (logger := tensorboard(trainer)) is not None:
                logger.experiment.add_text("prompt", table, trainer.global_step)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the best prompt's vectors and hyperparameters."""
        self.write_best(trainer, cast(PromptTuner, pl_module))

    @torch.no_grad()
    def write_best(self, trainer: Trainer, tuner: PromptTuner) -> None:
        """Write vectors and hyperparameters of the best prompt, or where none was saved, the last.

        Also for whoever ends a run otherwise, where Lightning does not call `on_fit_end`.
        """
        if (logger := tensorboard(trainer)) is None:
            return
        best = _best_checkpoint(trainer)
        record = best[RECORD] if best else {}
        metrics = record.get("metrics", trainer.callback_metrics)
        step = record.get("step", trainer.global_step)
        with holding(tuner, best["state_dict"] if best else {}):
            vectors, labels = prompt_neighbourhood(tuner, self.neighbours)
        # A resumed run whose best is an earlier one writes it anew; the writer would take that for
        # a step that was forgotten, and say so.
        shutil.rmtree(Path(str(logger.log_dir), f"{step:05d}", TAG), ignore_errors=True)
        logger.experiment.add_embedding(
            vectors, labels, metadata_header=COLUMNS, tag=TAG, global_step=step
        )
        logger.log_hyperparams(
            hyperparameters(trainer, tuner),
            {
                f"{OF_BEST}/{name.removeprefix('val/')}": float(value)
                for name, value in sorted(metrics.items())  # the table begins with accuracy
                if name.startswith("val/")
            },
            step,
        )


@torch.no_grad()
def prompt_table(tuner: PromptTuner) -> str:
    """The hard prompt in Markdown: the whole text, then a token a row with what is known of it.

    That is its surprise in nats, after the tokens before it, and where there are vectors behind
    the tokens their cosine distance.
    """
    ids = tuner.hard_prompt()
    columns = {"surprise, nats": [f"{x:.2f}" for x in tuner.lm.token_nll(ids[None])[0].tolist()]}
    if tuner.has_soft_prompt:
        columns["cosine distance"] = [f"{x:.4f}" for x in token_distances(tuner, ids).tolist()]
    tokens = [code(token) for token in tuner.lm.token_strings(ids.tolist())]
    rows = zip(tokens, *columns.values(), strict=True)
    lines = [("token", *columns), ("---",) * (1 + len(columns)), *rows]
    table = ["| " + " | ".join(line) + " |" for line in lines]
    return "\n".join([code(tuner.lm.decode(ids.tolist())), "", *table])


def code(text: str) -> str:
    """A string as Python would write it, between backticks that it cannot break.

    Line breaks and control characters come out as escapes; the fence is longer than any run of
    backticks inside.

    >>> print(code("a ` b"))
    ``'a ` b'``
    """
    shown = repr(text)
    fence = "`" * (1 + max(map(len, re.findall("`+", shown)), default=0))
    return f"{fence}{shown}{fence}"


def prompt_neighbourhood(tuner: PromptTuner, neighbours: int) -> tuple[Tensor, list[list[str]]]:
    """The prompt's vectors and their nearest tokens' rows, for the embedding projector.

    Args:
        tuner: Its projection decides what is near.
        neighbours: Tokens for each vector; one that is near to several is shown once.

    Returns:
        vectors: [P + n, H] The prompt's vectors, then the tokens' rows.
        labels: For each vector, values of `COLUMNS`: the token (a vector's own nearest one), the
            kind, and the cosine distance from the vector to its token, or from the token to the
            nearest vector.
    """
    soft, ids = wide(tuner.soft_prompt().detach()), tuner.hard_prompt()
    nearness = tuner.lm.index.nearness(soft, tuner.projection)  # (P, V)
    near = nearness.topk(min(neighbours, nearness.shape[1])).indices.unique()
    rows = wide(tuner.lm.embed(near))
    to_prompt = distance(rows[:, None], soft[None], "cosine").amin(1)
    kinds = ["prompt"] * len(ids) + ["token"] * len(near)
    tokens = tuner.lm.token_strings([*ids.tolist(), *near.tolist()])
    distances = [*token_distances(tuner, ids).tolist(), *to_prompt.tolist()]
    # `repr`: a line break or a tab inside a token would break the file's rows.
    labels = [
        [repr(token), kind, f"{value:.4f}"]
        for token, kind, value in zip(tokens, kinds, distances, strict=True)
    ]
    return torch.cat([soft, rows]).cpu(), labels


def hyperparameters(trainer: Trainer, tuner: PromptTuner) -> dict[str, Any]:
    """What tells one run from another in TensorBoard's table."""
    defaults = trainer.optimizers[0].defaults if trainer.optimizers else {}
    return {
        "tuner": tuner.slug,
        "task": getattr(task_of(trainer), "slug", None),
        "lm": tuner.lm.label,
        "template": tuner.template.text,
        "prompt_length": tuner.prompt_length,
        "perplexity_weight": tuner.perplexity_weight,
        "projection": tuner.projection,
        "seed": tuner.seed,
        "lr": defaults.get("lr") if tuner.learns else None,
    }


def token_distances(tuner: PromptTuner, ids: Tensor) -> Tensor:
    """[P] Cosine distance of the soft prompt to its tokens."""
    soft = wide(tuner.soft_prompt().detach())
    return distance(soft, wide(tuner.lm.embed(ids)), "cosine")


@contextmanager
def holding(tuner: PromptTuner, state: Mapping[str, Tensor]) -> Iterator[None]:
    """Let the tuner hold another prompt for a while."""
    own = {name: value.clone() for name, value in tuner.state_dict().items() if name in state}
    tuner.load_state_dict(state, strict=False)  # the language model is not in a checkpoint
    try:
        yield
    finally:
        tuner.load_state_dict(own, strict=False)


def _best_checkpoint(trainer: Trainer) -> dict[str, Any] | None:
    """The saved checkpoint with the best prompt, or None."""
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.monitor is not None:
            path = Path(callback.best_model_path)
            if path.is_file():
                return torch.load(path, map_location="cpu", weights_only=True)
    return None
