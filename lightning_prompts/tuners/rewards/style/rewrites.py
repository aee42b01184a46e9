"""Rewrites of sentences as scored, and what an evaluation measures of the best of them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, cast

import torch
from torch import Tensor

from lightning_prompts.files.errors import PromptError
from lightning_prompts.lm.batch import Batch
from lightning_prompts.lm.generation.sampling import TransferBatch
from lightning_prompts.metrics.transfer import (
    best_of,
    bleu,
    geometric_mean,
    joint,
    text_nats,
    transfer_loss,
)
from lightning_prompts.tuners.rewards.base import PromptMeasures
from lightning_prompts.tuners.rewards.style.scorers import StyleScorer

if TYPE_CHECKING:
    from lightning_prompts.tuners.rewards.style.reward import StyleTransfer


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


class Output(NamedTuple):
    """The rewrite that counts for one row and prompt.

    Attributes:
        row: Index of the row in its split.
        source: What was rewritten.
        text: The rewrite.
        content: 0 to 100.
        style: 0 to 100, by the classifier that rewards.
        target: Class of the style that was wanted.
        references: Rewrites by people.
    """

    row: int
    source: str
    text: str
    content: float
    style: float
    target: int
    references: list[str]


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


class RewriteMeasures(PromptMeasures):
    """Content, style, reward and loss of K prompts, by the best of several rewrites of each row.

    Args:
        reward: Samples and scores.
        num_samples: Rewrites of each row, of which the best by reward counts.
    """

    def __init__(self, reward: "StyleTransfer", num_samples: int) -> None:
        self.reward, self.num_samples = reward, num_samples
        self.outputs: list[list[Output]] = []
        """For K prompts, the rewrites that count, by row."""
        self._device = torch.device("cpu")

    @torch.no_grad()
    def update(self, prompts: Tensor, batch: Batch) -> None:
        """Rewrite the rows of one batch with each of K prompts."""
        transfer = transfer_batch(batch)
        num_rows, self._device = len(transfer["sources"]), prompts.device
        pairs = [(k, b) for k in range(len(prompts)) for b in range(num_rows)]
        found = self.reward.rewrite(prompts, batch, pairs, self.num_samples, self.reward.seed)
        best = best_of(found.score, 1)[1]  # (K * B, 1)
        content, style = (x.gather(1, best)[:, 0].tolist() for x in (found.content, found.style))
        rows, targets = transfer["rows"].tolist(), transfer["labels"].tolist()
        self.outputs = self.outputs or [[] for _ in prompts]
        for i, (k, b) in enumerate(pairs):
            output = Output(
                rows[b],
                transfer["sources"][b],
                found.texts[i][int(best[i])],
                content[i],
                style[i],
                targets[b],
                transfer["references"][b],
            )
            self.outputs[k].append(output)

    def compute(self) -> dict[str, Tensor]:
        """[K] each: `loss`, `reward`, `content`, `style`."""
        assert self.outputs, "no batch was measured"
        content, style = self._values()
        reward = (content + style).mean(1) / 2
        return {
            "loss": transfer_loss(reward),
            "reward": reward,
            "content": content.mean(1),
            "style": style.mean(1),
        }

    def _values(self) -> tuple[Tensor, Tensor]:
        """Content and style of the outputs, [K, B] each, in the order of the rows."""
        for outputs in self.outputs:
            outputs.sort(key=lambda output: output.row)
        values = [[(o.content, o.style) for o in outputs] for outputs in self.outputs]
        content, style = torch.tensor(values, device=self._device).unbind(-1)
        return content, style


class FinalMeasures(RewriteMeasures):
    """What a test adds: the judge's opinion, fluency, and people's rewrites.

    Beside the values of a validation, [K] each: `fluency_perplexity` of the outputs under the
    task's language model; `bleu` against the references; `style_accuracy`, the percentage of the
    test sentences that the classifier which rewards gets right. With a judge: `style_judge`, its
    probability of the wanted style; `joint` and `gm` of content and style, style by the judge;
    `judge_accuracy`.

    It is compared with the template without a prompt, sampled in the same way, with the sources as
    they are, and with the first rewrite by a person.
    """

    def __init__(self, reward: "StyleTransfer", compare: bool = True) -> None:
        super().__init__(reward, reward.test_samples)
        self._without = FinalMeasures(reward, compare=False) if compare else None

    @torch.no_grad()
    def update(self, prompts: Tensor, batch: Batch) -> None:
        """Rewrite the rows of one batch with each of K prompts, and with none."""
        super().update(prompts, batch)
        if self._without is not None:
            self._without.update(prompts[:1, :0], batch)

    @torch.no_grad()
    def comparisons(self) -> dict[str, dict[str, float]]:
        """Measures of no prompt, of copies of the sources, and of people's rewrites."""
        if self._without is None:
            return {}
        people = [output for output in self.outputs[0] if output.references]
        texts = {
            "sources copied": [(output, output.source) for output in self.outputs[0]],
            # Against the others: its own reference would match it whole.
            "a person's rewrite": [
                (output._replace(references=output.references[1:]), output.references[0])
                for output in people
            ],
        }
        found = {"no prompt": self._without}
        for name, pairs in texts.items():
            if pairs:
                found[name] = self._given(*zip(*pairs, strict=True))
        return {
            name: {k: float(v[0]) for k, v in measures.compute().items()}
            for name, measures in found.items()
        }

    def _given(self, outputs: Sequence[Output], texts: Sequence[str]) -> "FinalMeasures":
        """Measures of texts that were not sampled, in place of the outputs."""
        labels = self.reward.verbalizer.labels
        content = self.reward.content_score(texts, [output.source for output in outputs]).tolist()
        targets = [output.target for output in outputs]
        style = style_scores(self.reward.rewarding, texts, targets, labels).tolist()
        measures = FinalMeasures(self.reward, compare=False)
        rows = zip(outputs, texts, content, style, strict=True)
        measures.outputs = [[o._replace(text=t, content=c, style=s) for o, t, c, s in rows]]
        measures._device = self._device
        return measures

    @torch.no_grad()
    def compute(self) -> dict[str, Tensor]:
        """Values by name, [K] each; what cannot be known is left out."""
        values = super().compute()
        content, _ = self._values()
        per_prompt = [self._of_texts(outputs) for outputs in self.outputs]
        for name in per_prompt[0]:
            values[name] = torch.stack([of[name].to(content) for of in per_prompt])
        judge, labels = self.reward.judging, self.reward.verbalizer.labels
        if judge is not None:
            style = torch.stack(
                [
                    style_scores(judge, [o.text for o in outs], [o.target for o in outs], labels)
                    for outs in self.outputs
                ]
            ).to(content)
            values["style_judge"] = style.mean(1)
            values["joint"], values["gm"] = joint(content, style), geometric_mean(content, style)
        for name, scorer in (("style_accuracy", self.reward.rewarding), ("judge_accuracy", judge)):
            if scorer is not None and scorer.accuracy is not None:
                values[name] = torch.full_like(values["loss"], 100 * scorer.accuracy)
        return values

    def _of_texts(self, outputs: Sequence[Output]) -> dict[str, Tensor]:
        """What follows from one prompt's texts alone."""
        nats, tokens = text_nats(self.reward.lm, [output.text for output in outputs])
        found = {"fluency_perplexity": (nats / tokens).exp()} if tokens else {}
        if any(output.references for output in outputs):
            references = [output.references for output in outputs]
            found["bleu"] = bleu([output.text for output in outputs], references)
        return found
