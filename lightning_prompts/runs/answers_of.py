"""What `predict` asks of each row: the prompt in use, its nearest tokens, its pasted text."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from lightning_prompts.callbacks.base import EvaluationCallback, task_of
from lightning_prompts.callbacks.baselines import mean_log_probabilities
from lightning_prompts.callbacks.faithfulness import whole_rows
from lightning_prompts.files.errors import PromptError
from lightning_prompts.lm.batch import Batch, on_device
from lightning_prompts.lm.class_scores import without_text
from lightning_prompts.tuners.base import PromptTuner

NEAREST, TEXT = "nearest_tokens", "pasted_text"
CALIBRATED = "calibrated_"
ANSWER = ("label", "probabilities")
TINY = torch.finfo(torch.float32).tiny

Scores = Callable[[Batch], Tensor]
"""B examples to log-probabilities [B, C], NaN where the model cannot read a row."""


class AnswersOf:
    """Answers a batch in every way that was asked for.

    Args:
        trainer: About to predict.
        tuner: Holds the prompt.
        nearest_tokens: Whether to answer with the prompt's nearest tokens as well.
        pasted_text: The same with its text, pasted into the template and tokenized as a whole.
        calibrate: Whether to add calibrated answers to each: less the mean log-probability of each
            class over training texts, whose labels are not looked at. That supposes that the
            classes are about equally frequent.

    Raises:
        PromptError: If there are no training texts to calibrate on.
    """

    def __init__(
        self,
        trainer: Trainer,
        tuner: PromptTuner,
        nearest_tokens: bool = False,
        pasted_text: bool = False,
        calibrate: bool = False,
    ) -> None:
        self._trainer, self._tuner = trainer, tuner
        ids = tuner.hard_prompt()
        self._ways: dict[str, Scores] = {}
        if nearest_tokens:
            hard = tuner.lm.embed(ids)
            prior = tuner.scored_without_text(hard)
            self._ways[NEAREST] = lambda batch: tuner.class_logits(
                tuner.answer_hidden(hard, batch), prior
            ).log_softmax(-1)
        if pasted_text:
            self._ways[TEXT] = pasted(trainer, tuner, tuner.lm.decode(ids.tolist()))
        self._priors: dict[str, Tensor] = {}
        if calibrate:
            in_use: Scores = lambda batch: tuner.class_logits(  # noqa: E731
                tuner.answer_hidden(tuner.prompt_embeddings(), batch)
            ).log_softmax(-1)
            task = task_of(trainer)
            if task is None or not task.has("train"):
                raise PromptError(
                    "--predictions.calibrate reads training texts (not their labels), and there "
                    "are none; name a file: --data.train FILE."
                )
            for name, way in {"": in_use, **self._ways}.items():
                self._priors[name] = mean_log_probabilities(trainer, task, way)

    @property
    def columns(self) -> list[str]:
        """What a row's record has, nested names with dots."""
        return columns_of(
            self._tuner.verbalizer.labels, list(self._ways), calibrated=bool(self._priors)
        )

    def records(self, probabilities: Tensor, batch: Batch) -> list[dict[str, Any]]:
        """A record a row.

        Args:
            probabilities: [B, C] Of the prompt in use.
            batch: B examples.
        """
        records = self._answers("", probabilities.float().clamp_min(TINY).log(), probabilities)
        for name, way in self._ways.items():
            with EvaluationCallback.precision(self._trainer):
                scores = way(batch)
            for record, answer in zip(records, self._answers(name, scores), strict=True):
                record[name] = answer
        return records

    def _answers(
        self, name: str, scores: Tensor, probabilities: Tensor | None = None
    ) -> list[dict[str, Any]]:
        labels = self._tuner.verbalizer.labels
        shares = scores.exp() if probabilities is None else probabilities
        found = [_answer(labels, row) for row in shares.float().tolist()]
        if name in self._priors:
            calibrated = (scores - self._priors[name]).softmax(-1).float().tolist()
            for record, row in zip(found, calibrated, strict=True):
                record |= {CALIBRATED + key: v for key, v in _answer(labels, row).items()}
        return found


def columns_of(labels: tuple[str, ...], ways: list[str], calibrated: bool) -> list[str]:
    """What a record has, nested names with dots."""
    own = [f"{kind}{name}" for kind in ("", CALIBRATED)[: 1 + calibrated] for name in ANSWER]
    one = [
        column
        for name in own
        for column in ([f"{name}.{label}" for label in labels] if "prob" in name else [name])
    ]
    return [f"{prefix}{column}" for prefix in ("", *(f"{way}." for way in ways)) for column in one]


def _answer(labels: tuple[str, ...], shares: list[float]) -> dict[str, Any]:
    """The likeliest label, and how likely each one is; neither where that is not known."""
    if any(share != share for share in shares):
        return {"label": None, "probabilities": dict.fromkeys(labels)}
    by_label: Mapping[str, float] = dict(zip(labels, shares, strict=True))
    return {"label": max(by_label, key=by_label.__getitem__), "probabilities": by_label}


def pasted(trainer: Trainer, tuner: PromptTuner, text: str) -> Scores:
    """Answers with the prompt's text pasted into the template."""
    lm, nothing = tuner.lm, tuner.lm.embedding_table[:0]

    def scores(batch: Batch) -> tuple[Tensor, list[list[int]]]:
        rows = tuner.template.paste(text, batch["texts"])
        hidden = tuner.answer_hidden(nothing, whole_rows(tuner, rows, batch))
        return tuner.verbalizer.scores(lm, hidden, tuner.class_ids), rows

    prior: Tensor | float = 0.0
    if tuner.verbalizer.score == "pmi":
        with EvaluationCallback.precision(trainer), torch.no_grad():
            empty = without_text(lm, tuner.template, tuner.prompt_length)
            prior = scores(on_device(empty, tuner.device))[0][0]

    def way(batch: Batch) -> Tensor:
        found, rows = scores(batch)
        found = (found - prior).log_softmax(-1)
        if not all(map(lm.reads, rows)):
            readable = torch.tensor([*map(lm.reads, rows)], device=found.device)
            found = found.masked_fill(~readable[:, None], torch.nan)
        return found

    return way
