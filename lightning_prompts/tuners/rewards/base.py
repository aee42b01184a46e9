"""What every reward is: scores of K hard prompts on one batch, and their measures in evaluation."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

from torch import Tensor

from lightning_prompts.files.numbers import in_double
from lightning_prompts.files.option_types import ChecksOptions
from lightning_prompts.files.stages import Stage
from lightning_prompts.lm.batch import Batch
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.lm.template import Template
from lightning_prompts.lm.verbalizer import Verbalizer

Reduce = Callable[[Tensor], Tensor]
"""Sums a tensor over all processes; the identity where there is one."""

# Added to the standard deviation, so that equal rewards give 0 and not 0/0.
EPSILON = 1e-4


class Scores(NamedTuple):
    """Rewards of K prompts.

    Attributes:
        raw: [K] Task reward as measured, larger is better.
        gain: [K] By how much that is above the mean of the prompts that it may be compared with.
        z: [K] The same, in their standard deviations.
        components: What it is made of, by name, each [K]; their means are logged.
        num_tokens: What was read, each text with its prompt as a whole sequence; None where every
            prompt met every example of the batch.
    """

    raw: Tensor
    gain: Tensor
    z: Tensor
    components: Mapping[str, Tensor]
    num_tokens: int | None = None

    @classmethod
    def of_same_rows(cls, raw: Tensor, components: Mapping[str, Tensor]) -> "Scores":
        """Rewards [K] of prompts that all met the same examples."""
        return cls(raw, raw - raw.mean(), standardise(raw), components)


class PromptMeasures(ABC):
    """Measures K prompts on the rows of an evaluation, batch by batch."""

    @abstractmethod
    def update(self, prompts: Tensor, batch: Batch) -> None:
        """Take in one batch.

        Args:
            prompts: [K, P] Token ids, the same K prompts at each call.
            batch: B examples.
        """

    @abstractmethod
    def compute(self) -> dict[str, Tensor]:
        """Means over all rows and processes, each [K]; `loss` among them chooses the best."""

    def comparisons(self) -> dict[str, dict[str, float]]:
        """Measures of what the prompts have to beat, by name; where the task has no baselines."""
        return {}


class Reward(ChecksOptions, ABC):
    """Scores hard prompts for a task. Dimensions: K prompts, P tokens, B examples."""

    deterministic: ClassVar[bool]
    """Whether equal prompts on equal rows score the same, so that scores may be remembered."""
    classifies: ClassVar[bool]
    """Whether the task is to answer with a verbalizer's word, so that accuracy is defined."""
    low: ClassVar[float]
    """What a standardised reward of 0 becomes (RLPrompt's reward shaping)."""
    high: ClassVar[float]
    """What a standardised reward of 1 becomes."""

    def attach(self, lm: FrozenLM, template: Template, verbalizer: Verbalizer) -> None:
        """Take the parts that the task's configuration made; called once, before any scoring."""
        self.lm, self.template, self.verbalizer = lm, template, verbalizer

    def load(self) -> None:
        """Read what is still to be read, so that what is missing is said before any work.

        Raises:
            PromptError: If it cannot be found or used.
        """

    @abstractmethod
    def __call__(self, prompts: Tensor, batch: Batch, seed: int, reduce: Reduce) -> Scores:
        """Score K prompts on a training batch.

        Args:
            prompts: [K, P] Token ids.
            batch: This process's examples.
            seed: Of whatever is sampled; follows from the run's seed and the step.
            reduce: Sums over processes, so that all of them get the same scores.
        """

    def num_tokens(self, prompts: Tensor, batch: Batch) -> int:
        """What [K, P] prompts on B examples read, each pair counting as a whole sequence."""
        return prompts.numel() * len(batch["rows"]) + len(prompts) * batch["num_real_tokens"]

    @abstractmethod
    def measures(self, stage: Stage, reduce: Reduce) -> PromptMeasures:
        """Measures for the evaluation that begins."""

    def predictions(self, prompt: Tensor, batch: Batch) -> list[dict[str, Any]]:
        """What `predict` writes of each row, where that is not a label.

        Args:
            prompt: [P] Token ids.
            batch: B examples.
        """
        raise NotImplementedError

    def columns(self, stage: Stage) -> Mapping[str, str]:
        """Heading to name of the measures in the closing table; none where accuracy says it."""
        return {}

    def legend(self, stage: Stage) -> str:
        """What the headings mean."""
        return ""


def standardise(rewards: Tensor) -> Tensor:
    """Z-scores over the last dimension: (r - mean) / (population standard deviation + 1e-4).

    Args:
        rewards: [..., K]

    Returns:
        [..., K]; all 0 where the rewards are equal: in float64, since the float32 mean of equal
        numbers can differ from them, and 1e-4 is all that it would be divided by.

    >>> import torch
    >>> standardise(torch.tensor([3.0, 3.0, 3.0]))
    tensor([0., 0., 0.])
    """
    exact = in_double(rewards)
    deviations = exact - exact.mean(-1, keepdim=True)
    return (deviations / (exact.std(-1, correction=0, keepdim=True) + EPSILON)).to(rewards.dtype)
