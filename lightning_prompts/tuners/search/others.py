"""Other language models that a search scores its prompts on, by their own tokens of the texts."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from lightning_prompts.files.errors import PromptError
from lightning_prompts.lm.batch import Batch, Example, collate, on_device
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.lm.template import Template
from lightning_prompts.lm.verbalizer import Verbalizer
from lightning_prompts.tuners.rewards import ClassificationGap
from lightning_prompts.tuners.rewards.base import PromptMeasures, Reduce
from lightning_prompts.tuners.rewards.scrutability import log_perplexities
from lightning_prompts.tuners.rows import EncodesRows
from lightning_prompts.tuners.search.ledger import Ids, also

# Tokens of another model that the text of one token of ours may take, on the average of a prompt:
# room for them is kept beside the rows. A word is seldom more than eight of anybody's.
ROOM = 8
MEASURES = ("accuracy", "loss", "log_perplexity")


class AlsoLM(FrozenLM):
    """A language model that only scores the prompts of a search."""

    option = "--model.also_lm"


class OtherModel:
    """A model beside the tuned one; no module, so that no checkpoint and no optimizer has it.

    It reads a prompt's text by its own tokens, and the task's rows in the same template with the
    same answers, encoded by its own tokenizer.

    Args:
        name: What tables and metrics call it.
        lm: The model.
        own: The tuned model, whose tokens prompts are.
        template: Of the tuned model.
        verbalizer: Of the tuned model.
        prompt_length: Most tokens of a prompt.

    Raises:
        PromptError: If template or answers do not fit it.
    """

    def __init__(
        self,
        name: str,
        lm: FrozenLM,
        own: FrozenLM,
        template: Template,
        verbalizer: Verbalizer,
        prompt_length: int,
    ) -> None:
        self.name, self.lm, self._own = name, lm, own
        self.most = ROOM * prompt_length
        """Tokens of a prompt's text, at most."""
        words = dict(zip(verbalizer.labels, verbalizer.words, strict=True))
        self.reward = ClassificationGap()
        try:
            parts = Template(template.given, lm), Verbalizer(words, lm, verbalizer.score)
        except PromptError as error:
            raise PromptError(f"{AlsoLM.option} {lm.name}: {error}") from error
        self.reward.attach(lm, *parts)
        self._rows: dict[str, Mapping[int, Example]] = {}
        self._measures: PromptMeasures | None = None

    # ---- what it reads

    def read_rows(self, rows: EncodesRows, splits: Sequence[str]) -> None:
        """Encode the rows of some splits, in place of those before.

        Raises:
            PromptError: If no room is left for them, or a row cannot be cut to it.
        """
        room = self.lm.max_positions - self.most - self.reward.verbalizer.depth
        if room < 1:
            raise PromptError(
                f"{AlsoLM.option} {self.lm.name}: {self.most} tokens are kept for a prompt's text, "
                f"and {self.lm.label} has {self.lm.max_positions} positions; lower "
                "--model.max_length, or leave it out."
            )
        try:
            self._rows = {s: rows.encoded_by(self.reward.template, s, room) for s in splits}
        except PromptError as error:
            raise PromptError(f"{AlsoLM.option} {self.lm.name}: {error}") from error

    def batch(self, batch: Batch, split: str) -> Batch:
        """The same rows of a split as this model reads them."""
        numbers, labels = batch["rows"].tolist(), batch["labels"]
        examples = [self._rows[split][number] for number in numbers]
        own = collate(examples, labels.tolist(), numbers, batch["borrowed"])
        return on_device(own, labels.device)

    def tokens(self, prompts: Sequence[Ids]) -> list[Ids]:
        """What this model reads of the texts of prompts, which may be of unequal lengths."""
        texts = [self._own.decode(list(ids)) for ids in prompts]
        return [tuple(ids) for ids in self.lm.encode_all(texts)]

    def reads(self, prompt: Sequence[int]) -> bool:
        """Whether it has a row for each token of a prompt's text, and room for all of them."""
        (ids,) = self.lm.tokenize([self._own.decode(list(prompt))])
        return 0 < len(ids) <= self.most and self.lm.reads(ids)

    # ---- what it measures of the prompt in use

    def begin(self, reduce: Reduce) -> None:
        """Begin an evaluation; `reduce` sums over processes."""
        self._measures = self.reward.measures("val", reduce)

    def update(self, prompt: Ids, batch: Batch, split: str) -> None:
        """Take in one batch."""
        assert self._measures is not None, "no evaluation was begun"
        ids = torch.tensor(self.tokens([prompt]), device=batch["labels"].device)
        self._measures.update(ids, self.batch(batch, split))

    def measured(self, prompt: Ids, device: torch.device) -> dict[str, Tensor]:
        """Of the evaluation that ends: `also_accuracy/NAME` and so on."""
        assert self._measures is not None, "no evaluation was begun"
        ids = torch.tensor(self.tokens([prompt]), device=device)
        values = {**self._measures.compute(), "log_perplexity": log_perplexities(self.lm, ids)}
        return {self.key(measure): values[measure][0] for measure in MEASURES}

    def key(self, measure: str) -> str:
        """A measure's name, as it is logged."""
        return also(measure, self.name)
