"""RLPrompt's reward for classification: by how much the right word beats the best wrong one."""

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_prompts.files.numbers import in_double, wide
from lightning_prompts.files.option_types import NotNegative
from lightning_prompts.files.stages import Stage
from lightning_prompts.lm.batch import Batch, picked
from lightning_prompts.lm.class_scores import class_scores, without_text
from lightning_prompts.tuners.rewards.base import PromptMeasures, Reduce, Reward, Scores


def probability_gap(logits: Tensor, labels: Tensor) -> Tensor:
    """p(label) - max of the others, softmax over the verbalizer's words alone.

    The label is left out by its index: found by its probability, a tie would leave out two.

    Args:
        logits: [..., B, C] Class logits.
        labels: [B] Class indices.

    Returns:
        [..., B] in [-1, 1]; 0 on an exact tie.
    """
    probabilities = wide(logits).softmax(-1)
    index = labels.expand(probabilities.shape[:-1])[..., None]
    others = probabilities.scatter(-1, index, -torch.inf).amax(-1)
    return probabilities.gather(-1, index)[..., 0] - others


def label_nats(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of each row: [K, B, C] class logits and [B] labels to [K, B] nats."""
    targets = labels.expand(logits.shape[:2])
    nats = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
    return nats.view(logits.shape[:2])


class ClassificationGap(Reward):
    """Mean over the examples of 200 * gap where the answer is right and 180 * gap where not.

    Deng et al. 2022 (arXiv:2205.12548). All K prompts are scored on all B examples in batched
    passes; where the prompt comes last, the language model keeps the texts' keys and values.

    Args:
        right: Factor of a positive gap.
        wrong: Factor of a negative gap.
    """

    deterministic = True
    classifies = True
    low, high = 0.0, 5.0

    def __init__(self, right: NotNegative = 200.0, wrong: NotNegative = 180.0) -> None:
        self.right, self.wrong = right, wrong

    def __call__(self, prompts: Tensor, batch: Batch, seed: int, reduce: Reduce) -> Scores:
        """Score K prompts on a training batch."""
        measures = GapMeasures(self, reduce)
        measures.update(prompts, in_order(batch))
        values = measures.compute()
        components = {"accuracy": values["accuracy"], "task_loss": values["loss"]}
        return Scores.of_same_rows(values["reward"], components)

    def measures(self, stage: Stage, reduce: Reduce) -> "GapMeasures":
        """Loss, accuracy and reward of K prompts."""
        return GapMeasures(self, reduce)

    def num_tokens(self, prompts: Tensor, batch: Batch) -> int:
        """With the answers behind each row; and with `pmi` each prompt's row without a text."""
        words, (count, length) = self.verbalizer, prompts.shape
        behind = words.num_read * len(batch["rows"])
        if words.score == "pmi":
            empty = without_text(self.lm, self.template, length)["num_tokens"]
            behind += length + empty + words.num_read
        return super().num_tokens(prompts, batch) + count * behind

    def class_logits(self, prompts: Tensor, batch: Batch) -> Tensor:
        """[K, P] token ids and B examples to [K, B, C] scores, float32 or wider."""
        return class_scores(self.lm, self.template, self.verbalizer, prompts, batch)

    def row_losses(self, logits: Tensor, batch: Batch) -> Tensor:
        """[K, B, C] class logits of B rows to what a search lowers, [K, B] nats."""
        return label_nats(logits, batch["labels"])


class GapMeasures(PromptMeasures):
    """Loss in nats, accuracy as a share, and the raw reward, of K prompts over all rows.

    Args:
        reward: Reads the class logits.
        reduce: Sums over processes.
    """

    def __init__(self, reward: ClassificationGap, reduce: Reduce) -> None:
        self.reward, self.reduce = reward, reduce
        self._sums: Tensor | None = None  # (M + 1, K): of each measure, and examples
        self._names: list[str] = []
        self._dtype = torch.float32

    @torch.no_grad()
    def update(self, prompts: Tensor, batch: Batch) -> None:
        """Take in one batch."""
        found = self.of_rows(self.reward.class_logits(prompts, batch), batch)
        # (M, K); float64, so that the order of batches and processes hardly matters.
        sums = in_double(torch.stack(list(found.values()))).sum(-1)
        sums = torch.cat([sums, torch.full_like(sums[:1], len(batch["rows"]))])
        if batch["borrowed"]:
            sums = torch.zeros_like(sums)
        self._names, self._dtype = list(found), found["loss"].dtype
        self._sums = sums if self._sums is None else self._sums + sums

    def of_rows(self, logits: Tensor, batch: Batch) -> dict[str, Tensor]:
        """What is measured of each row, from class logits [K, B, C]; each [K, B]."""
        labels = batch["labels"]
        gap = probability_gap(logits, labels)
        return {
            "loss": label_nats(logits, labels),
            "accuracy": (logits.argmax(-1) == labels).to(gap.dtype),
            "reward": torch.where(gap > 0, self.reward.right, self.reward.wrong).mul(gap),
        }

    def compute(self) -> dict[str, Tensor]:
        """[K] each: `loss`, `accuracy`, `reward`."""
        assert self._sums is not None, "no batch was measured"
        *sums, count = self.reduce(self._sums)
        means = dict(zip(self._names, sums, strict=True))
        return {name: (value / count).to(self._dtype) for name, value in means.items()}


def in_order(batch: Batch) -> Batch:
    """The batch with its rows in the order of their numbers, whatever the loader shuffled."""
    order = batch["rows"].argsort(stable=True)
    if bool((order[1:] > order[:-1]).all()):
        return batch
    return picked(batch, order.tolist())
