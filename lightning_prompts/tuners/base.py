"""What every tuner is: a LightningModule around a frozen language model and one prompt."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol, Self

import torch
import torch.nn.functional as F
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torchmetrics import MetricCollection

from lightning_prompts.files.errors import PromptError, RunError
from lightning_prompts.files.lightning_internals import trainer_of
from lightning_prompts.files.option_types import ChecksOptions, Readability, Seed
from lightning_prompts.files.stages import Stage, fitting
from lightning_prompts.lm.batch import Batch
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.lm.nearest import Distance
from lightning_prompts.lm.quantised import parts_of
from lightning_prompts.lm.template import Template
from lightning_prompts.lm.verbalizer import Verbalizer
from lightning_prompts.metrics.task import add_answers, task_metrics
from lightning_prompts.tuners.answering import Answering
from lightning_prompts.tuners.optimization import Optimized
from lightning_prompts.tuners.process_group import leave_group_at_exit
from lightning_prompts.tuners.sharding import spread
from lightning_prompts.tuners.shares import share_of
from lightning_prompts.tuners.tuned import tuned


class Setting(Protocol):
    """What a tuner takes from a task."""

    lm: FrozenLM
    template: Template
    verbalizer: Verbalizer
    seed: int


class PromptTuner(ChecksOptions, Optimized, Answering):
    """Learns one prompt for one task on a frozen language model.

    A subclass says what the prompt is (`PromptViews`). Loss, in nats:
    (1 - w) * task_loss + w * log_perplexity, w = `perplexity_weight` (arXiv:2504.02144).

    Dimensions: B examples, P prompt tokens, H hidden size, C classes.

    Args:
        lm: The frozen language model; given by `--lm.*`.
        template: Where text and prompt sit; given by `--data.template`.
        verbalizer: The answers of each label; given by `--data.verbalizer`.
        optimizer: Made from the trainable parameters.
        lr_scheduler: Made from the optimizer and stepped every step, or after every validation
            where it goes by a metric; none keeps the rate constant.
        perplexity_weight: w in [0, 1], the weight of the prompt's log-perplexity in the loss.
        projection: Distance by which nearest tokens are chosen.
        exclude_special: Whether special tokens are kept out of the hard prompt.
        seed: Of everything that the tuner draws.

    Raises:
        PromptError: If `perplexity_weight` is not in [0, 1], or the tuner learns by gradients that
            the language model does not let through.
    """

    slug: ClassVar[str]
    """Short name, for folders and tables; where none is given, the class's in small letters."""
    label: ClassVar[str]
    """What reports call it; where none is given, the class's name."""
    learns: bool = True
    """Whether `fit` trains; where not, it validates once and leaves the same files."""
    differentiates: ClassVar[bool] = True
    """Whether it learns by gradients through the language model."""

    def __init__(
        self,
        lm: FrozenLM,
        template: Template,
        verbalizer: Verbalizer,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        lr_scheduler: LRSchedulerCallable | None = None,
        perplexity_weight: Readability = 0.0,
        projection: Distance = "cosine",
        exclude_special: bool = True,
        seed: Seed = 0,
    ) -> None:
        super().__init__()
        leave_group_at_exit()  # every run has a tuner, from the command line or not
        if not hasattr(self, "soft_in_use"):
            raise PromptError(
                f"{type(self).__name__} does not say whether the model reads its vectors; write "
                "`soft_in_use = True` in the class, or False where it reads tokens."
            )
        if self.differentiates:
            refuse_no_gradients(lm, type(self).__name__)
        self.lm, self.template, self.verbalizer = lm, template, verbalizer
        # Every process has read it; quantised weights cannot be sent as others are.
        quantised = [f"lm.{k}" for k, w in lm.named_parameters() if len(parts_of(w)) > 1]
        self._ddp_params_and_buffers_to_ignore = quantised
        self._make_optimizer, self._make_scheduler = optimizer, lr_scheduler
        self.perplexity_weight, self.projection = perplexity_weight, projection
        self.exclude_special, self.seed = exclude_special, seed
        # Not persistent: the verbalizer is the task's, and a checkpoint holds the prompt alone.
        self.keep_ids("class_ids", torch.tensor(verbalizer.token_ids))
        self.keep_ids("special_ids", torch.tensor(lm.special_ids).long())
        num_classes = len(verbalizer.labels)
        self.val_metrics, self.test_metrics = (task_metrics(num_classes) for _ in range(2))
        self.keep_ids("forward_tokens", torch.zeros((), dtype=torch.long))
        self.leaves_validation: Callable[[], bool] = lambda: False
        """Asks, on all processes, whether to leave a validation; a resumed run begins with it."""
        self.loss_parts: dict[str, Tensor] = {}
        """What the latest training step's loss was made of, by a name for messages."""
        self.comparisons: dict[str, dict[str, float]] = {}
        """Of the latest evaluation of a task without an accuracy: what the prompt has to beat."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Name a tuner that does not name itself."""
        super().__init_subclass__(**kwargs)
        cls.slug = getattr(cls, "slug", cls.__name__.lower())
        cls.label = vars(cls).get("label", cls.__name__)

    @classmethod
    def for_task(cls, task: Setting, **options: Any) -> Self:
        """A tuner for a task, tuned as the command line's is.

        Args:
            task: Says language model, template and answer words; and the seed, unless it is given.
            **options: Of the constructor; what is left out is as in the tuner's shipped
                configuration (configs/tuner/soft.yaml for `SoftPrompt`), which has the reasons.
        """
        options = {"seed": task.seed, **options}
        return cls(task.lm, task.template, task.verbalizer, **tuned(cls, options) | options)

    # ---- what it tells of itself

    def listed_prompts(self) -> list[dict[str, Any]]:
        """The best prompts of a tuner that knows several, the best first, for `prompts.jsonl`."""
        return []

    @property
    def classifies(self) -> bool:
        """Whether the task is answered with a verbalizer's word, so that it has an accuracy."""
        return True

    def columns(self, stage: Stage) -> Mapping[str, str]:
        """Heading to metric of the closing table where the task has no accuracy."""
        return {}

    def legend(self, stage: Stage) -> str:
        """What these headings mean."""
        return ""

    # ---- steps

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """One batch; returns the loss in nats."""
        hidden = self.answer_hidden(self.prompt_embeddings(), batch)
        logits = self.class_logits(hidden, self.trained_without_text)
        own_loss = F.cross_entropy(logits, batch["labels"])
        num_added = self.prompt_length + self.verbalizer.num_read
        num_tokens = num_added * len(batch["rows"]) + batch["num_real_tokens"]
        share = share_of(own_loss, batch, num_tokens, self._world_size, self._sum)
        # In the step itself: a checkpoint may be written before any later hook of this module.
        self.forward_tokens += share.num_tokens
        loss, mean, w = share.loss, share.mean, self.perplexity_weight
        if w > 0:
            nats = self.log_perplexity()
            parts = {"the task's loss": own_loss, "the log-perplexity": nats}
            self.loss_parts = {name: part.detach() for name, part in parts.items()}
            self.log("train/task_loss", mean)
            self.log("train/log_perplexity", nats)
            loss, mean = ((1 - w) * task + w * nats for task in (loss, mean))
        self.log("train/loss", mean, prog_bar=True)
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Log what is read at intervals, and validate at the last step whatever the interval."""
        trainer = self.trainer
        self._prompt_step = trainer.global_step
        every = max(1, trainer.log_every_n_steps)  # type: ignore[attr-defined]
        if trainer.global_step % every == 0:  # not each step: this waits for the device
            slots = batch["before_ids"].numel() + batch["after_ids"].numel()
            self.log("train/forward_tokens", self.forward_tokens.float())
            self.log("train/padding", 1 - batch["num_real_tokens"] / max(1, slots))
        if self.at_last_step:
            # Lightning validates whenever it is asked to stop.
            trainer.should_stop = True

    @property
    def at_last_step(self) -> bool:
        """At a training step's end, whether it is the run's last."""
        trainer = self.trainer
        last_step = 0 < trainer.max_steps <= trainer.global_step
        last_epoch = trainer.max_epochs is not None and (
            0 < trainer.max_epochs <= trainer.current_epoch + 1 and trainer.is_last_batch
        )
        return last_step or last_epoch or not self.learns

    def _count(self, num_tokens: int) -> None:
        """Add to `forward_tokens` what a step has read on this process; waits for no device."""
        self.forward_tokens += self._sum(torch.full_like(self.forward_tokens, num_tokens))

    @property
    def _world_size(self) -> int:
        return 1 if (trainer := trainer_of(self)) is None else int(trainer.world_size)

    def _sum(self, values: Tensor) -> Tensor:
        """Sum over processes."""
        if self._world_size == 1:
            return values
        return self.trainer.strategy.reduce(values, reduce_op="sum")

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Score the prompt in use; the callbacks reuse its `hidden` states and `logits` [B, C]."""
        return self._evaluate(batch, self.val_metrics)

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """As `validation_step`."""
        return self._evaluate(batch, self.test_metrics)

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Class probabilities [B, C] under the prompt in use, with the rows that they belong to."""
        logits = self.class_logits(self.answer_hidden(self.prompt_embeddings(), batch))
        return {"rows": batch["rows"], "probabilities": logits.softmax(-1)}

    def on_validation_epoch_end(self) -> None:
        """Log the task's metrics and the objective that chooses the best prompt."""
        self._log_metrics("val", self.val_metrics)
        if fitting(self.trainer):
            self.step_by_metric()

    def on_test_epoch_end(self) -> None:
        """As `on_validation_epoch_end`."""
        self._log_metrics("test", self.test_metrics)

    def configure_model(self) -> None:
        """Divide the language model over the devices, where the strategy says so."""
        spread(self)

    def _evaluate(self, batch: Batch, metrics: MetricCollection) -> dict[str, Tensor]:
        hidden = self.answer_hidden(self.prompt_embeddings(), batch)
        logits = self.class_logits(hidden)
        add_answers(metrics, logits, batch["labels"])
        return {"hidden": hidden, "logits": logits}

    def _evaluated(self, metrics: MetricCollection) -> dict[str, Tensor]:
        """The task's metrics of the evaluation that ends, equal on every rank."""
        values: dict[str, Tensor] = metrics.compute()
        metrics.reset()
        return values

    def _log_metrics(self, stage: Stage, metrics: MetricCollection) -> None:
        values = self._evaluated(metrics)
        objective = self._objective(values)
        if not torch.isfinite(objective):
            raise RunError(
                f"At step {self.prompt_step} {stage}/objective is {float(objective)}; lower "
                "--model.optimizer.lr or compute in --trainer.precision 32-true"
            )
        logged: dict[str, Tensor | float]
        logged = {f"{stage}/{name}": value for name, value in values.items()}
        logged[f"{stage}/objective"] = objective
        if self.trainer.state.fn == TrainerFn.FITTING:
            # Lightning would draw a validation one step early, apart from the prompt's own points.
            logged["step"] = float(self.global_step)
            # Also between two logged steps: what a validation found cost as much as this.
            logged["train/forward_tokens"] = self.forward_tokens.float()
        self.log_dict(logged, sync_dist=True)

    def _objective(self, values: Mapping[str, Tensor]) -> Tensor:
        """What decides between prompts, in nats: an evaluation's loss, and the readability."""
        w, loss = self.perplexity_weight, values["loss"]
        return (1 - w) * loss + w * self.hard_log_perplexity() if w > 0 else loss


def refuse_no_gradients(lm: FrozenLM, who: str) -> None:
    """Refuse a language model through which no gradient comes back to a prompt.

    Raises:
        PromptError: If there is none.
    """
    if not lm.gradients:
        raise PromptError(
            f"{who} learns by gradients, and none comes through {lm.label} to a prompt in front of "
            "a text, as a check at loading found; read the model unquantised or with --lm.quantize "
            "int8, or take RLPrompt, or GuidedSearch with --model.edits.proposals 1."
        )
