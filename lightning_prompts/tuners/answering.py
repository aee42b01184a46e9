"""How a tuner's prompt is answered: hidden states, the classes' scores, and `pmi`'s second part.

That part is what a class scores under the same prompt without a text. It is computed anew before
each evaluation, and for training before the first step and at each validation; between them it is a
constant, which no gradient passes, and checkpoints have it.
"""

from typing import Any

import torch
from torch import Tensor

from lightning_prompts.lm.batch import Batch
from lightning_prompts.lm.class_scores import scores_without_text
from lightning_prompts.tuners.batches import ReadsBatches
from lightning_prompts.tuners.saved import Saved

WITHOUT_TEXT = "scores_without_text"  # its key in a checkpoint


class Answering(ReadsBatches, Saved):
    """Reads a task's answers behind its rows."""

    without_text: Tensor | None = None
    """[C] Scores without a text of the prompt that is evaluated; None but for `pmi`."""
    trained_without_text: Tensor | None = None
    """[C] The same of the prompt that is trained, which is another where one is averaged."""
    class_ids: Tensor

    def answer_hidden(self, prompt: Tensor, batch: Batch) -> Tensor:
        """[P, H] prompt and B examples to the hidden states that the answers are read from.

        Returns:
            [B, H]; [B, N, H] where answers have several tokens, see `FrozenLM.answer_hidden`.
        """
        return self.lm.answer_hidden(prompt, batch, self.verbalizer.tree)

    def class_logits(self, hidden: Tensor, without_text: Tensor | None = None) -> Tensor:
        """Scores of the classes, which are logits for softmax and cross-entropy.

        Args:
            hidden: [B, H] or [B, N, H], of `answer_hidden`.
            without_text: [C] What to subtract; by default that of the prompt in use.

        Returns:
            [B, C] float32 or wider.
        """
        scores = self.verbalizer.scores(self.lm, hidden, self.class_ids)
        found = self.without_text if without_text is None else without_text
        return scores if found is None else scores - found.to(scores.device)

    def scored_without_text(self, prompt: Tensor) -> Tensor | None:
        """[C] What a class scores under a prompt [P, H] without a text; None but for `pmi`."""
        if self.verbalizer.score != "pmi":
            return None
        with self.trainer.precision_plugin.forward_context():
            prompts = prompt.detach()[None]
            found = scores_without_text(self.lm, self.template, self.verbalizer, prompts)
        with torch.inference_mode(False):
            return None if found is None else found[0].clone()  # training has a use for it

    # ---- when

    def on_train_start(self) -> None:
        """Score without a text, unless a checkpoint says what it was."""
        super().on_train_start()
        if self.trained_without_text is None or not self.trainer.ckpt_path:
            self._renew()

    def on_validation_model_eval(self) -> None:
        """Score without a text, before callbacks measure."""
        super().on_validation_model_eval()
        self._renew()

    def on_test_model_eval(self) -> None:
        """As `on_validation_model_eval`."""
        super().on_test_model_eval()
        self._renew()

    def on_predict_model_eval(self) -> None:
        """As `on_validation_model_eval`."""
        super().on_predict_model_eval()
        self._renew()

    def _renew(self) -> None:
        if self.verbalizer.score != "pmi":
            return
        self.without_text = self.scored_without_text(self.prompt_embeddings())
        self.trained_without_text = self.without_text
        if self.averaging is not None:
            with self.averaging.in_place(False):
                self.trained_without_text = self.scored_without_text(self.prompt_embeddings())

    # ---- checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what training goes on with."""
        super().on_save_checkpoint(checkpoint)
        if self.trained_without_text is not None:
            checkpoint[WITHOUT_TEXT] = self.trained_without_text

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take it back."""
        super().on_load_checkpoint(checkpoint)
        self.trained_without_text = checkpoint.get(WITHOUT_TEXT)
