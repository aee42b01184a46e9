"""What a guided search aims at beside or in place of the task: answers, a meaning, floors."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torchmetrics import MetricCollection

from lightning_prompts.files.errors import PromptError
from lightning_prompts.files.lightning_internals import trainer_of
from lightning_prompts.files.option_types import NotNegative
from lightning_prompts.files.stages import fitting
from lightning_prompts.lm.batch import Batch
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.lm.template import Template
from lightning_prompts.lm.verbalizer import Verbalizer
from lightning_prompts.metrics.agreement import MATCH_KL, AnswerAgreement
from lightning_prompts.tuners.rewards import ClassificationGap
from lightning_prompts.tuners.rows import task_facts
from lightning_prompts.tuners.search.floors import Floors
from lightning_prompts.tuners.search.ledger import Ids
from lightning_prompts.tuners.search.match import OPTION, AnswerMatch, read_target
from lightning_prompts.tuners.search.near import NearText
from lightning_prompts.tuners.search.others import AlsoLM
from lightning_prompts.tuners.several import SeveralModels

MATCH = "match"  # its key in a checkpoint


class AimedSearch(SeveralModels):
    """A search whose objective may be a soft prompt's answers, and may have a text's meaning in it.

    A subclass calls `_aim` once it has its first prompt, and asks `_holds` of prompts to keep.

    Args:
        match: A run's folder or a checkpoint (or what `FromCheckpoint` reads) whose prompt is
            imitated, most often vectors: the loss is then the KL from its answers to the
            candidate's, in nats, mean over rows, in place of the task's. Null is the task's loss.
        keep_near: A text to whose meaning prompts keep near; null is none. Measured as the cosine
            of mean token embeddings, less the table's mean.
        keep_near_weight: Nats that the objective rises by for each 1 that this cosine is below 1.
        floors: Least values of the panel of scrutability that a prompt must have to be kept, by
            name: natural_percentile, grammar, real_words, task_margin and its kin. Null is none.
        lm, template, verbalizer, **kwargs: Of `PromptTuner`.
    """

    reward: ClassificationGap

    def __init__(
        self,
        lm: FrozenLM,
        template: Template,
        verbalizer: Verbalizer,
        match: str | None = None,
        keep_near: str | None = None,
        keep_near_weight: NotNegative = 1.0,
        floors: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(lm, template, verbalizer, **kwargs)
        self.match = match
        self.near = None if keep_near is None else NearText(keep_near, keep_near_weight, lm)
        self.floors = Floors(floors, lm) if floors else None
        self.agreement = None if match is None else AnswerAgreement()

    def _aim(self) -> ClassificationGap:
        """The reward whose loss is searched by."""
        found = ClassificationGap()
        if self.match is not None:
            if self.also_lm:
                raise PromptError(
                    f"{OPTION} with {AlsoLM.option}: another model has no vectors whose answers "
                    "its prompts could match; leave one of the two out."
                )
            found = AnswerMatch(read_target(self.match, self.lm, self.record()))
        found.attach(self.lm, self.template, self.verbalizer)
        return found

    @property
    def target(self) -> AnswerMatch | None:
        """The answers that are imitated; None where the loss is the task's."""
        return self.reward if isinstance(self.reward, AnswerMatch) else None

    def _holds(self, ids: Ids) -> bool:
        """Whether a prompt is above the floors."""
        return self.floors is None or self.floors.hold(ids)

    def _read_target(self, batch: Batch, own: range, count: int) -> int:
        """Score a step's rows with the vectors; returns how many tokens that has read here.

        Args:
            batch: This process's rows.
            own: Their places among those of all processes.
            count: Rows of all processes.
        """
        if self.target is None:
            return 0
        num_tokens = self.target.read(batch) if own else 0
        if self._world_size > 1:  # also where one process has all rows: the others wait for it
            self.target.share(batch, own, count, self._sum)
        return num_tokens

    def on_fit_start(self) -> None:
        """Refuse a start below the floors, on the device where prompts are read."""
        super().on_fit_start()
        if self.floors is not None:
            rows = getattr(self.trainer, "datamodule", None)
            self.floors.begin(task_facts(rows, self.verbalizer), self.hard_prompt().tolist())

    # ---- evaluation

    def _evaluate(self, batch: Batch, metrics: MetricCollection) -> dict[str, Tensor]:
        found = super()._evaluate(batch, metrics)
        if self.target is not None and self.agreement is not None:
            self.agreement.update(self.target.log_shares(batch), found["logits"].log_softmax(-1))
        return found

    def _evaluated(self, metrics: MetricCollection) -> dict[str, Tensor]:
        values = super()._evaluated(metrics)
        if self.agreement is not None:
            values |= self.agreement.compute()
            self.agreement.reset()
        if self.near is not None:
            cosine = self.near.cosine(self.hard_prompt().tolist())
            values["keep_near"] = values["loss"].new_tensor(cosine)
        return values

    def _evaluated_objective(self, values: Mapping[str, Tensor]) -> Tensor:
        if self.agreement is not None:
            values = {**values, "loss": values[MATCH_KL]}
        found = super()._evaluated_objective(values)
        return found if self.near is None else found + self.near(self.hard_prompt().tolist())

    # ---- checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what is imitated: the vectors and their answers so far."""
        super().on_save_checkpoint(checkpoint)
        if self.target is not None:
            checkpoint[MATCH] = self.target.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the answers back, for a search that goes on.

        Raises:
            PromptError: If it would imitate another prompt than before, or none.
        """
        super().on_load_checkpoint(checkpoint)
        then = checkpoint.get(MATCH)
        now = None if self.target is None else self.target.vectors
        same = _equal(None if then is None else then["vectors"], now)
        if not same and fitting(trainer_of(self)):
            raise PromptError(
                f"The checkpoint's search had another prompt to match than {OPTION} "
                f"{self.match or 'null'} is now; give {OPTION} as before, or start a new run "
                "without --ckpt_path."
            )
        if same and self.target is not None:
            self.target.load_state_dict(checkpoint[MATCH])


def _equal(one: Tensor | None, other: Tensor | None) -> bool:
    if one is None or other is None:
        return one is other
    return torch.equal(one, other)
