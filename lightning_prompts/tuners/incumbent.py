"""What tuners share whose prompt is the best of many that were tried: the *incumbent*."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor

from lightning_prompts.files.errors import PromptError
from lightning_prompts.files.stages import fitting
from lightning_prompts.lm.batch import Batch
from lightning_prompts.tuners.rows import validation_batches
from lightning_prompts.tuners.search.ledger import Ids, Ledger
from lightning_prompts.tuners.search.scoring import PromptScorer
from lightning_prompts.tuners.tokens import TokenTuner

LEDGER = "prompts"  # its key in a checkpoint


class IncumbentTuner(TokenTuner):
    """Holds tokens; at each validation of `fit` new ones have to beat them on the validation rows.

    The best ever is the hard prompt, in use, saved and measured as any other tuner's. What it is
    measured on stays the same, so its objective never gets worse; a tie keeps the old one.

    A subclass makes `ledger` and `scorer`, keeps `token_ids`, and names contenders.
    """

    shards = False  # processes score what each of them has not yet seen

    ledger: Ledger
    scorer: PromptScorer

    @abstractmethod
    def _contenders(self) -> list[Ids]:
        """Prompts that are worth a validation, some of them perhaps validated before."""

    def setup(self, stage: str) -> None:
        """Refuse a fit that would throw its result away."""
        super().setup(stage)
        if stage == "fit" and self.trainer.limit_val_batches == 0:
            raise PromptError(
                f"--trainer.limit_val_batches is 0, but {type(self).__name__} chooses its prompt "
                "at validations, and would keep the one that it began with; leave them on."
            )

    # ---- validation: which prompt is the best?

    def on_validation_model_eval(self) -> None:
        """Choose the incumbent before the callbacks read it."""
        super().on_validation_model_eval()
        if fitting(self.trainer):
            with torch.no_grad(), self.trainer.precision_plugin.forward_context():
                self._choose()
                self._renew()

    def _choose(self) -> list[Ids]:
        """Score the best new prompts on the validation rows; keep the best ever.

        Returns:
            The incumbent and the contenders, the best first.
        """
        own = tuple(self.token_ids.tolist())
        # The incumbent first, which a tie keeps; it is new to the ledger at the first validation.
        wanted = [own, *self._contenders()]
        self.ledger.close_window()
        new = [ids for ids in dict.fromkeys(wanted) if not self.ledger[ids].validated]
        if new:
            self.scorer.validate(new, self._validation_batches(), self.device)
        ranked = sorted(
            dict.fromkeys(wanted),
            key=lambda ids: self.ledger.objective(ids, self.perplexity_weight),
        )
        best = ranked[0]
        if len(best) == len(own):
            self.token_ids.copy_(torch.tensor(best))
        else:
            self.token_ids = self.token_ids.new_tensor(best)
        return ranked

    def _objective(self, values: Mapping[str, Tensor]) -> Tensor:
        """In a fit what has chosen the prompt, so that the two never disagree.

        The evaluation that follows measures one prompt where the choice measured many at once,
        which is the same but for rounding; and rounding can turn a sampled rewrite.
        """
        own = tuple(self.token_ids.tolist())
        known = self.ledger.entries.get(own)
        if not fitting(self.trainer) or known is None or not known.validated:
            return self._evaluated_objective(values)
        return values["loss"].new_tensor(self.ledger.objective(own, self.perplexity_weight))

    def _evaluated_objective(self, values: Mapping[str, Tensor]) -> Tensor:
        """What an evaluation itself says."""
        return super()._objective(values)

    def _validation_batches(self) -> Iterator[Batch]:
        for batch in validation_batches(self.trainer):
            yield batch
            if self.leaves_validation():
                raise SIGTERMException

    # ---- checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the prompts seen so far: what is remembered must not make a resumed run differ."""
        super().on_save_checkpoint(checkpoint)
        checkpoint[LEDGER] = self.ledger.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the prompts back."""
        super().on_load_checkpoint(checkpoint)
        self.ledger.load_state_dict(checkpoint[LEDGER])
