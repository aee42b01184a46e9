"""What a checkpoint has of a tuner: the prompt and what it belongs to, never a language model."""

from contextlib import nullcontext
from typing import Any, ClassVar

from lightning.pytorch.trainer.states import TrainerFn, TrainerStatus
from torch import Tensor

from lightning_prompts.files.lightning_internals import trainer_of
from lightning_prompts.tuners.averaging import Averages
from lightning_prompts.tuners.prompt_init import RECORD
from lightning_prompts.tuners.record import LMRecord, PromptRecord, refuse_other_setting

FORWARD_TOKENS = "forward_tokens"  # its key in a checkpoint


class Saved(Averages):
    """Writes a prompt with its record, and takes back none of another setting."""

    frozen: ClassVar[tuple[str, ...]] = ("lm.",)
    """Prefixes of the names of weights that belong to language models, which no checkpoint has."""
    forward_tokens: Tensor
    """Tokens read in training so far, over all processes: each (prompt, row) pair counts as a whole
    sequence, whatever is reused, and backward passes do not count. In a checkpoint they stand by
    themselves."""
    _prompt_step = 0

    def record(self) -> PromptRecord:
        """The present prompt and its setting, as every checkpoint says them."""
        lm, verbalizer, ids = self.lm, self.verbalizer, self.hard_prompt().tolist()
        measured = {} if (trainer := trainer_of(self)) is None else trainer.callback_metrics
        return PromptRecord(
            tuner=type(self).__name__,
            lm=LMRecord.of(lm),
            template=self.template.given,
            rendered=self.template.text if self.template.is_chat else None,
            verbalizer=dict(zip(verbalizer.labels, verbalizer.words, strict=True)),
            answer_score=verbalizer.score,
            text=lm.decode(ids),
            ids=ids,
            tokens=lm.token_strings(ids),
            in_use="vectors" if self.soft_in_use else "tokens",
            averaged_by=self.averaged_by,
            step=self.prompt_step,
            metrics={name: float(value) for name, value in measured.items()},
        )

    @property
    def prompt_step(self) -> int:
        """Training steps that made the present prompt, wherever it was trained."""
        trainer = trainer_of(self)
        if trainer is None or trainer.state.fn != TrainerFn.FITTING:
            return self._prompt_step
        running = trainer.state.status == TrainerStatus.RUNNING
        # After a fit the best prompt may have been taken back.
        return int(trainer.global_step) if running else self._prompt_step

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Drop the language model's weights and add what the prompt belongs to."""
        state = checkpoint["state_dict"]
        checkpoint["state_dict"] = {k: v for k, v in state.items() if not k.startswith(self.frozen)}
        # Of the prompt that the state holds, also between validations.
        with nullcontext() if self.averaging is None else self.averaging.in_place():
            checkpoint[RECORD] = self.record().to_json()
        checkpoint[FORWARD_TOKENS] = int(self.forward_tokens)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse another setting's prompt; put this module's own language model back.

        Raises:
            PromptError: If the checkpoint is of another tuner, template, verbalizer, language model
                or prompt length.
        """
        saved = PromptRecord.from_json(checkpoint[RECORD]) if RECORD in checkpoint else None
        known = refuse_other_setting(saved, self.record(), self.lengths)
        self.averaged_by = known.averaged_by
        self._prompt_step = int(checkpoint["global_step"])
        self.forward_tokens.fill_(checkpoint.get(FORWARD_TOKENS, 0))
        # Loading stays strict, so that a missing or misspelt prompt cannot go unnoticed.
        own = {k: v for k, v in self.state_dict().items() if k.startswith(self.frozen)}
        checkpoint["state_dict"] |= own
