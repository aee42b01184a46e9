"""Style transfer: prompts make the model rewrite sentences, which are scored for content and style.

After RLPrompt (Deng et al. 2022, https://arxiv.org/abs/2205.12548), whose numbers are the defaults.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Annotated, Any, ClassVar

import torch
import torch.distributed
from torch import Tensor

from lightning_prompts.files.errors import PromptError
from lightning_prompts.files.numbers import in_double
from lightning_prompts.files.option_types import Count, ModelName, Names, Seed
from lightning_prompts.files.stages import Stage
from lightning_prompts.lm.batch import Batch, piece_order
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.lm.generation.sampling import QUOTE, TransferBatch
from lightning_prompts.lm.template import Template
from lightning_prompts.lm.verbalizer import Verbalizer
from lightning_prompts.metrics.content import ContentScore
from lightning_prompts.metrics.transfer import best_of
from lightning_prompts.tuners.rewards.base import EPSILON, PromptMeasures, Reduce, Reward, Scores
from lightning_prompts.tuners.rewards.style.measures import FinalMeasures, RewriteMeasures
from lightning_prompts.tuners.rewards.style.rewrites import (
    Rewriter,
    Rewrites,
    style_column,
    transfer_batch,
)
from lightning_prompts.tuners.rewards.style.scorers import StyleScorer, load_style

Classifier = Annotated[
    str,
    Names(
        "train the classifiers first: lightning-prompts style --config "
        "configs/task/yelp_style.yaml --data.path FOLDER"
    ),
]


class StyleTransfer(Reward):
    """Mean of content and style, both 0 to 100, of the best among sampled rewrites.

    Dimensions: K prompts, S sources, N samples a prompt, D draws, C styles.

    In training the K prompts of a step are shared out among the S sources of its batch, and each is
    scored on its own source: N = `samples` * `bootstraps` rewrites, of which every `samples` are a
    draw; the reward is the mean of the draws' best scores. It is standardised by the mean and
    standard deviation of all best scores of that source, since sentences differ in how hard they
    are.

    Args:
        style: The classifier that rewards style: a folder that `lightning-prompts style` wrote, or
            a Hugging Face text classifier by folder or hub id.
        judge: Another one, that no prompt was trained on, for the test; null leaves out what it
            would tell.
        content: Encoder that content is compared in, by folder or hub id, for example
            roberta-large; null is a middle layer of the task's own language model.
        samples: Rewrites of a draw.
        bootstraps: D, draws a prompt.
        top_k: Tokens that sampling may choose among.
        val_samples: Rewrites of each sentence in validation; the best by reward counts.
        test_samples: The same in a test.
        seed: Of the samples of evaluations; the same at each, so that prompts meet equal luck.

    Raises:
        PromptError: If a number is less than 1, or the template does not end with a quote.
    """

    deterministic: ClassVar[bool] = False
    classifies: ClassVar[bool] = False
    low: ClassVar[float] = -20.0
    high: ClassVar[float] = 80.0

    def __init__(
        self,
        style: Classifier,
        judge: Classifier | None = None,
        content: ModelName | None = None,
        samples: Count = 32,
        bootstraps: Count = 4,
        top_k: Count = 10,
        val_samples: Count = 8,
        test_samples: Count = 32,
        seed: Seed = 0,
    ) -> None:
        self.style, self.judge, self.content = style, judge, content
        self.samples, self.bootstraps, self.top_k = samples, bootstraps, top_k
        self.val_samples, self.test_samples, self.seed = val_samples, test_samples, seed

    def attach(self, lm: FrozenLM, template: Template, verbalizer: Verbalizer) -> None:
        """Take the task's parts; the classifiers are read when they are first needed."""
        super().attach(lm, template, verbalizer)
        if not template.text.endswith(QUOTE):
            raise PromptError(
                f"Template {template.text!r} does not end with a quote, so the model would not "
                "know where its rewrite ends; write for example "
                '\'{prompt} "{text}" "\'.'
            )

    def load(self) -> None:
        """Read the classifiers and the encoder, so that what is missing is said before any work.

        Raises:
            PromptError: If one cannot be found or used, or several processes share the run.
        """
        shared = torch.distributed.is_available() and torch.distributed.is_initialized()
        count = torch.distributed.get_world_size() if shared else 1
        if count > 1:
            raise PromptError(
                f"Style transfer is scored by one process, and this run has {count}; set "
                "--trainer.devices 1."
            )
        for scorer in (self.rewarding, self.judging):
            if scorer is not None:
                style_column(scorer, self.verbalizer.labels, 0)
        _ = self.rewriter

    @cached_property
    def rewarding(self) -> StyleScorer:
        """The classifier that rewards style."""
        return load_style(self.style, self.lm)

    @cached_property
    def judging(self) -> StyleScorer | None:
        """The classifier of the test."""
        return None if self.judge is None else load_style(self.judge, self.lm)

    @cached_property
    def rewriter(self) -> Rewriter:
        """Samples and scores, by all three."""
        content = ContentScore(self.lm, self.content)
        labels = self.verbalizer.labels
        return Rewriter(self.lm, labels, self.top_k, content, self.rewarding, self.judging)

    @torch.no_grad()
    def __call__(self, prompts: Tensor, batch: Batch, seed: int, reduce: Reduce) -> Scores:
        """Score K prompts, prompt k on source k // (K / S), by sampled rewrites.

        S is the largest number of the batch's sources that divides K and leaves each of them two
        prompts to compare; the batch's other sources (an epoch's last batch may have an odd
        number) are not used.
        """
        self.load()
        given, num_prompts = len(transfer_batch(batch)["sources"]), len(prompts)
        most = max(1, min(given, num_prompts // 2))
        num_sources = next(n for n in range(most, 0, -1) if num_prompts % n == 0)
        per_source = num_prompts // num_sources
        pairs = [(k, k // per_source) for k in range(len(prompts))]
        rewrites = self.rewriter(prompts, batch, pairs, self.samples * self.bootstraps, seed)
        content, style, score = rewrites.content, rewrites.style, rewrites.score  # (K, N)
        maxima, best = best_of(score, self.bootstraps)  # (K, D)
        # In float64: of equal scores the deviation is then 0, and not what rounding leaves.
        raw = in_double(maxima).mean(1)
        of_source = in_double(maxima).unflatten(0, (num_sources, per_source)).flatten(1)
        mean = of_source.mean(1).repeat_interleave(per_source)
        spread = of_source.std(1, correction=0).repeat_interleave(per_source)
        gain = raw - mean
        z = gain / (spread + EPSILON)
        components = {
            "content": content.mean(1),
            "style": style.mean(1),
            "best_content": content.gather(1, best).mean(1),
            "best_style": style.gather(1, best).mean(1),
        }
        read = self._num_tokens(prompts, transfer_batch(batch), pairs, rewrites)
        return Scores(raw.float(), gain.float(), z.float(), components, read)

    def _num_tokens(
        self,
        prompts: Tensor,
        batch: TransferBatch,
        pairs: Sequence[tuple[int, int]],
        rewrites: Rewrites,
    ) -> int:
        """What was read and written: all rewrites, tokenized anew, behind prompt and source."""
        _, lengths = piece_order(batch, prompts.shape[1])
        before = sum(int(lengths[b]) * len(rewrites.texts[i]) for i, (_, b) in enumerate(pairs))
        written = [text for texts in rewrites.texts for text in texts]
        return before + sum(map(len, self.lm.tokenize(written)))

    def measures(self, stage: Stage, reduce: Reduce) -> PromptMeasures:
        """Of the best rewrite of each sentence; in a test with what only a test may know."""
        self.load()
        if stage == "test":
            return FinalMeasures(self.rewriter, self.test_samples, self.seed)
        return RewriteMeasures(self.rewriter, self.val_samples, self.seed)

    def predictions(self, prompt: Tensor, batch: Batch) -> list[dict[str, Any]]:
        """The best rewrite of each sentence, with its scores from 0 to 100."""
        measures = RewriteMeasures(self.rewriter, self.test_samples, self.seed)
        measures.update(prompt[None], batch)
        return [
            {"source": o.source, "rewrite": o.text, "content": o.content, "style": o.style}
            for o in measures.outputs[0]
        ]

    def columns(self, stage: Stage) -> Mapping[str, str]:
        """Heading to name of the measures in the closing table."""
        shown = {"content": "content", "style": "style"}
        if stage == "val":
            return {**shown, "reward": "reward"}
        if self.judge is not None:
            shown |= {"judge": "style_judge", "joint": "joint", "GM": "gm"}
        return {**shown, "BLEU": "bleu", "PPL": "fluency_perplexity"}

    def legend(self, stage: Stage) -> str:
        """What the headings mean, and how good the classifiers are."""
        shown = (
            "Of each sentence's best rewrite by reward, 0 to 100: content by BERTScore; style by "
            "the classifier that rewards"
        )
        if stage == "val":
            return f"{shown}; reward, their mean."
        scorers = {"the first": self.rewarding, "the judge": self.judging}
        accuracies = [
            f"{name} gets {100 * scorer.accuracy:.1f} % of the test sentences right"
            for name, scorer in scorers.items()
            if scorer is not None and scorer.accuracy is not None
        ]
        return (
            shown
            + (
                "; judge by another one; joint, mean of content times judge; GM of their means"
                if self.judge is not None
                else ""
            )
            + "; BLEU against rewrites by people; PPL, perplexity of the rewrites."
            + (f" Of the classifiers {' and '.join(accuracies)}." if accuracies else "")
        )
