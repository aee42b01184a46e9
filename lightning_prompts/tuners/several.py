"""A tuner that tries many prompts, and may score them on several language models at once."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torchmetrics import MetricCollection

from lightning_prompts.files.amounts import count
from lightning_prompts.files.errors import PromptError
from lightning_prompts.files.lightning_internals import trainer_of
from lightning_prompts.files.stages import SPLIT_OF, fitting
from lightning_prompts.lm.batch import Batch
from lightning_prompts.lm.sources import find_model
from lightning_prompts.tuners.incumbent import IncumbentTuner
from lightning_prompts.tuners.rows import EncodesRows
from lightning_prompts.tuners.search.others import AlsoLM, OtherModel

log = logging.getLogger(__name__)

FINGERPRINTS = "also_lm"  # of the other models, in a checkpoint


class SeveralModels(IncumbentTuner):
    """Prompts have the mean of their objectives over the tuned model and others.

    A model's objective is (1 - w) * loss + w * log_perplexity, by that model's own tokens of the
    prompt's text and of the rows. The tuned model alone proposes prompts. (The mean is ours; that
    prompts found on several models serve others better is Zou et al. 2023, arXiv:2307.15043.)

    A subclass calls `_also` in its constructor.
    """

    others: list[OtherModel]
    """The models beside the tuned one, once `setup` has read them."""

    def _also(self, names: Sequence[str] | str | None) -> None:
        """Note which models score as well; what cannot be found is refused here."""
        self.also_lm = [names] if isinstance(names, str) else list(names or ())
        if twice := [name for i, name in enumerate(self.also_lm) if name in self.also_lm[:i]]:
            raise PromptError(f"{AlsoLM.option} names {twice[0]} twice; leave one of them out.")
        for name in self.also_lm:
            find_model(name, option=AlsoLM.option)
        # A plain list: a module in it is none of this one's.
        self.others = []

    def setup(self, stage: str) -> None:
        """Read the other models and, as they read them, the rows.

        Raises:
            PromptError: If a model does not fit, is the tuned one, or there are no rows to encode.
        """
        super().setup(stage)
        if stage == "predict" or not self.also_lm:
            return
        rows = getattr(self.trainer, "datamodule", None)
        if not isinstance(rows, EncodesRows):
            raise PromptError(
                f"{AlsoLM.option}: another model encodes the task's rows anew, and plain loaders "
                "have none; give the trainer the task itself, as its datamodule."
            )
        if not self.others:
            self.others.extend(self._read())
        splits = [SPLIT_OF["test" if stage == "test" else "val"]]
        splits += ["train"] if stage == "fit" else []
        for other in self.others:
            self.trainer.precision_plugin.convert_module(other.lm)
            other.lm.to(self.trainer.strategy.root_device)
            other.read_rows(rows, splits)

    def _read(self) -> list[OtherModel]:
        found: list[OtherModel] = []
        known = {self.lm.fingerprint: self.lm.label}
        for given in self.also_lm:
            log.info("Loading %s, which scores prompts as well.", given)
            lm = AlsoLM(given)
            if lm.fingerprint in known:
                raise PromptError(
                    f"{AlsoLM.option} {given} has the weights of {known[lm.fingerprint]}, which "
                    "scores prompts already; name another model, or leave it out."
                )
            # Two folders of one name.
            name = f"{lm.label} ({given})" if lm.label in known.values() else lm.label
            known[lm.fingerprint] = name
            parts = self.lm, self.template, self.verbalizer, self.prompt_length
            found.append(OtherModel(name, lm, *parts))
        return found

    def _refuse_unread(self, prompt: Sequence[int]) -> None:
        """Refuse a start that another model cannot read: hardly an edit of it could be kept."""
        for other in self.others:
            if not other.reads(prompt):
                raise PromptError(
                    f"{AlsoLM.option} {other.lm.name}: the text of the start, "
                    f"{self.lm.decode(list(prompt))!r}, is nothing to it, more than {other.most} "
                    "tokens, or has one that it knows no embedding for; start from another text "
                    "(--model.init)."
                )

    # ---- evaluation

    def on_validation_epoch_start(self) -> None:
        """Begin to measure on the other models as well."""
        super().on_validation_epoch_start()
        for other in self.others:
            other.begin(self._sum)

    def on_test_epoch_start(self) -> None:
        """As `on_validation_epoch_start`."""
        super().on_test_epoch_start()
        for other in self.others:
            other.begin(self._sum)

    def _evaluate(self, batch: Batch, metrics: MetricCollection) -> dict[str, Tensor]:
        split = SPLIT_OF["test" if self.trainer.testing else "val"]
        for other in self.others:
            other.update(tuple(self.token_ids.tolist()), batch, split)
        return super()._evaluate(batch, metrics)

    def _evaluated(self, metrics: MetricCollection) -> dict[str, Tensor]:
        values = super()._evaluated(metrics)
        for other in self.others:
            values |= other.measured(tuple(self.token_ids.tolist()), self.device)
        return values

    def _evaluated_objective(self, values: Mapping[str, Tensor]) -> Tensor:
        total, w = super()._evaluated_objective(values), self.perplexity_weight
        for other in self.others:
            loss, nats = (values[other.key(term)] for term in ("loss", "log_perplexity"))
            total = total + ((1 - w) * loss + w * nats if w > 0 else loss)
        return total / (1 + len(self.others))

    # ---- checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add which models have scored; none of their weights."""
        super().on_save_checkpoint(checkpoint)
        if self.others:
            checkpoint[FINGERPRINTS] = [other.lm.fingerprint for other in self.others]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse to go on with a search whose prompts other models have scored.

        Raises:
            PromptError: If there are such.
        """
        super().on_load_checkpoint(checkpoint)
        then = checkpoint.get(FINGERPRINTS, [])
        now = [other.lm.fingerprint for other in self.others]
        if then != now and fitting(trainer_of(self)):
            raise PromptError(
                f"The checkpoint's prompts were scored on {count(len(then), 'other model')} "
                f"({', '.join(then) or 'none'}), and this run has {count(len(now), 'other')} "
                f"({', '.join(now) or 'none'}); give {AlsoLM.option} as before, or start a new run "
                "without --ckpt_path."
            )
