"""Rewrites of sentences: sampled from the language model, and scored for content and style."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from torch import Tensor

from lightning_prompts.files.errors import PromptError
from lightning_prompts.lm.batch import Batch
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.lm.generation.sampling import TransferBatch, clean, sample_texts
from lightning_prompts.tuners.rewards.style.scorers import StyleScorer


class Rewrites(NamedTuple):
    """N rewrites of each of R pairs of a prompt and a source.

    Attributes:
        texts: R lists of N cleaned rewrites.
        content: [R, N] 0 to 100.
        style: [R, N] 0 to 100, by the classifier that rewards.
    """

    texts: list[list[str]]
    content: Tensor
    style: Tensor

    @property
    def score(self) -> Tensor:
        """[R, N] 0 to 100: what the reward is made of."""
        return (self.content + self.style) / 2


@dataclass(frozen=True)
class Rewriter:
    """Samples rewrites and scores them.

    Attributes:
        lm: Writes.
        labels: Names of the task's classes.
        top_k: Tokens that sampling may choose among.
        content: Content of outputs against their sources, 0 to 100.
        rewarding: The classifier that rewards style.
        judging: The classifier of the test, if there is one.
    """

    lm: FrozenLM
    labels: Sequence[str]
    top_k: int
    content: Callable[[Sequence[str], Sequence[str]], Tensor]
    rewarding: StyleScorer
    judging: StyleScorer | None

    def __call__(
        self,
        prompts: Tensor,
        batch: Batch,
        pairs: Sequence[tuple[int, int]],
        num_samples: int,
        seed: int,
    ) -> Rewrites:
        """N rewrites of each (prompt, row of the batch)."""
        transfer = transfer_batch(batch)
        sampled = sample_texts(
            self.lm, prompts, transfer, pairs, num_samples, seed, top_k=self.top_k
        )
        texts = [[clean(text) for text in samples] for samples in sampled]
        flat = [text for samples in texts for text in samples]
        rows = [b for _, b in pairs for _ in range(num_samples)]
        sources = [transfer["sources"][b] for b in rows]
        labels = transfer["labels"].tolist()
        targets = [labels[b] for b in rows]
        shape = (len(pairs), num_samples)
        content = self.content(flat, sources).to(prompts.device).view(shape)
        style = style_scores(self.rewarding, flat, targets, self.labels)
        style = style.to(prompts.device).view(shape)
        return Rewrites(texts, content, style)


def transfer_batch(batch: Batch) -> TransferBatch:
    """The batch, if it is of a task that rewrites.

    Raises:
        PromptError: If it has no sources.
    """
    if "sources" not in batch:
        raise PromptError(
            "The reward is for rewriting sentences, but the task has none to rewrite; use a task "
            "such as --config configs/task/yelp.yaml."
        )
    return cast(TransferBatch, batch)


def style_column(scorer: StyleScorer, labels: Sequence[str], target: int) -> int:
    """Which of a classifier's columns stands for a class of the task: by name, else by place.

    Raises:
        PromptError: If it has other styles than the task.
    """
    if labels[target] in scorer.labels:
        return scorer.labels.index(labels[target])
    if len(scorer.labels) != len(labels) or set(labels) & set(scorer.labels):
        raise PromptError(
            f"Style classifier {scorer.name} tells {', '.join(map(repr, scorer.labels))} apart, "
            f"not {', '.join(map(repr, labels))} as the task does; name the task's labels alike "
            "with --data.verbalizer, or use another classifier."
        )
    return target


def style_scores(
    scorer: StyleScorer, texts: Sequence[str], targets: Sequence[int], labels: Sequence[str]
) -> Tensor:
    """Probability of the wanted style, 0 to 100; 0 for an empty text, which has none.

    Args:
        scorer: Reads each distinct text once.
        texts: N texts.
        targets: The class that each should have.
        labels: Names of the task's classes.

    Returns:
        [N] float32.
    """
    distinct = {text: i for i, text in enumerate(dict.fromkeys(text for text in texts if text))}
    if not distinct:
        return torch.zeros(len(texts))
    columns = {target: style_column(scorer, labels, target) for target in set(targets)}
    shares = scorer(list(distinct)).float()  # (n, C)
    shares = torch.cat([shares, shares.new_zeros(1, shares.shape[1])])  # the last row: no text
    rows = torch.tensor([distinct.get(text, -1) for text in texts], device=shares.device)
    wanted = torch.tensor([columns[target] for target in targets], device=shares.device)
    return 100 * shares[rows, wanted]
