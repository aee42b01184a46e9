"""What an evaluation measures of the best rewrite of each sentence."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_prompts.lm.batch import Batch
from lightning_prompts.metrics.transfer import (
    best_of,
    bleu,
    geometric_mean,
    joint,
    text_nats,
    transfer_loss,
)
from lightning_prompts.tuners.rewards.base import PromptMeasures
from lightning_prompts.tuners.rewards.style.rewrites import Rewriter, style_scores, transfer_batch


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


class RewriteMeasures(PromptMeasures):
    """Content, style, reward and loss of K prompts, by the best of several rewrites of each row.

    Args:
        rewriter: Samples and scores.
        num_samples: Rewrites of each row, of which the best by reward counts.
        seed: Of the samples.
    """

    def __init__(self, rewriter: Rewriter, num_samples: int, seed: int) -> None:
        self.rewriter, self.num_samples, self.seed = rewriter, num_samples, seed
        self.outputs: list[list[Output]] = []
        """For K prompts, the rewrites that count, by row."""
        self._device = torch.device("cpu")

    @torch.no_grad()
    def update(self, prompts: Tensor, batch: Batch) -> None:
        """Rewrite the rows of one batch with each of K prompts."""
        transfer = transfer_batch(batch)
        num_rows, self._device = len(transfer["sources"]), prompts.device
        pairs = [(k, b) for k in range(len(prompts)) for b in range(num_rows)]
        found = self.rewriter(prompts, batch, pairs, self.num_samples, self.seed)
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

    def __init__(
        self, rewriter: Rewriter, num_samples: int, seed: int, compare: bool = True
    ) -> None:
        super().__init__(rewriter, num_samples, seed)
        self._without = FinalMeasures(rewriter, num_samples, seed, False) if compare else None

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
        labels = self.rewriter.labels
        content = self.rewriter.content(texts, [output.source for output in outputs]).tolist()
        targets = [output.target for output in outputs]
        style = style_scores(self.rewriter.rewarding, texts, targets, labels).tolist()
        measures = FinalMeasures(self.rewriter, self.num_samples, self.seed, False)
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
        judge, labels = self.rewriter.judging, self.rewriter.labels
        if judge is not None:
            style = torch.stack(
                [
                    style_scores(judge, [o.text for o in outs], [o.target for o in outs], labels)
                    for outs in self.outputs
                ]
            ).to(content)
            values["style_judge"] = style.mean(1)
            values["joint"], values["gm"] = joint(content, style), geometric_mean(content, style)
        for name, scorer in (
            ("style_accuracy", self.rewriter.rewarding),
            ("judge_accuracy", judge),
        ):
            if scorer is not None and scorer.accuracy is not None:
                values[name] = torch.full_like(values["loss"], 100 * scorer.accuracy)
        return values

    def _of_texts(self, outputs: Sequence[Output]) -> dict[str, Tensor]:
        """What follows from one prompt's texts alone."""
        nats, tokens = text_nats(self.rewriter.lm, [output.text for output in outputs])
        found = {"fluency_perplexity": (nats / tokens).exp()} if tokens else {}
        if any(output.references for output in outputs):
            references = [output.references for output in outputs]
            found["bleu"] = bleu([output.text for output in outputs], references)
        return found
