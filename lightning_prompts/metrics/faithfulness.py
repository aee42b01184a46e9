"""Faithfulness: does a soft prompt behave like the tokens that it is nearest to?

Three differentials of "Towards Interpretable Soft Prompts" (Patel et al. 2025,
https://arxiv.org/abs/2504.02144); all are 0 for a soft prompt that consists of token rows.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric

from lightning_prompts.files.numbers import in_double, wide
from lightning_prompts.lm.batch import Batch
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.lm.nearest import Distance, EmbeddingIndex, nearest_tokens
from lightning_prompts.metrics.mean import MeanOfAll


def distance_differential(
    prompt: Tensor, embedding_table: Tensor | EmbeddingIndex, metric: Distance
) -> Tensor:
    """Mean distance of a soft prompt to its nearest tokens, minimised over the whole vocabulary.

    1/P sum_i min_y D(f_V(y), p_i)   (Delta_D of the paper)

    Args:
        prompt: [P, H] The soft prompt.
        embedding_table: [V, H] Rows of the whole vocabulary, special tokens included, or their
            index where many searches follow.
        metric: Distance D, which also chooses the nearest token.

    Returns:
        Scalar: cosine distance in [0, 2], or Euclidean distance >= 0; 0 for P = 0.
    """
    if prompt.shape[0] == 0:
        return torch.zeros((), device=prompt.device)
    return nearest_tokens(prompt, embedding_table, metric).distances.mean()


def output_differential(soft_logits: Tensor, hard_logits: Tensor) -> Tensor:
    """Mean squared difference of the logits of two prompts, in logits².

    1/V sum_j (l_j - l'_j)²   (Delta_out of the paper, of one position)

    Args:
        soft_logits: [..., V] Logits with the soft prompt. Upcast to float32, so that the square
            of a large difference cannot overflow.
        hard_logits: [..., V] Logits with its nearest tokens.

    Returns:
        [...] One value a position.

    Raises:
        ValueError: If the shapes differ.
    """
    if soft_logits.shape != hard_logits.shape:
        raise ValueError(
            f"soft_logits have shape {tuple(soft_logits.shape)} but hard_logits have "
            f"{tuple(hard_logits.shape)}; both need the same examples and the same vocabulary."
        )
    return (wide(soft_logits) - wide(hard_logits)).square().mean(dim=-1)


class Performance(NamedTuple):
    """Loss (nats) and accuracy (share) of the two prompts and the distance between them."""

    soft_loss: Tensor
    soft_accuracy: Tensor
    hard_loss: Tensor
    hard_accuracy: Tensor
    loss_differential: Tensor
    accuracy_differential: Tensor


def prompt_hidden(lm: FrozenLM, prompt: Tensor, batch: Batch) -> Tensor:
    """Final hidden states at the prompt's own positions; what stands after it has no effect.

    Args:
        lm: The frozen language model.
        prompt: [P, H] Prompt embeddings.
        batch: B examples.

    Returns:
        [B, P, H], or [1, P, H] where all examples have the same tokens before the prompt.
    """
    num_rows = 1 if batch["shared_before"] else len(batch["labels"])
    ids, lengths = batch["before_ids"][:num_rows], batch["before_lengths"][:num_rows, None]
    states = torch.arange(prompt.shape[0], device=ids.device) + lengths  # (B, P)
    before = lm.embed(ids)
    # Right-padded to T0 + P; the prompt overwrites the padding. Causality makes masks needless.
    embeds = torch.cat([before, before.new_zeros(num_rows, *prompt.shape)], dim=1)
    states = states[..., None].expand(-1, -1, lm.hidden_size)
    embeds = embeds.scatter(1, states, prompt.to(before.dtype).expand(num_rows, -1, -1))
    return lm.body(inputs_embeds=embeds, use_cache=False)[0].gather(1, states)


class OutputDifferential(MeanOfAll):
    """Output differential in logits², over all batches and ranks.

    Each example (or position) weighs the same.
    """

    higher_is_better = False

    def update(self, soft_logits: Tensor, hard_logits: Tensor) -> None:
        """Add examples.

        Args:
            soft_logits: [..., V] Logits with the soft prompt.
            hard_logits: [..., V] Logits with its nearest tokens.
        """
        self.add(output_differential(soft_logits, hard_logits))


class PerformanceDifferential(Metric):
    """Performance differential over all batches and ranks, each example weighing the same.

    The absolute value is taken once, of the two means over all examples: the means of batches can
    differ in sign, and their absolute differences would add up to more.
    """

    full_state_update = False
    losses: Tensor
    correct: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("losses", torch.zeros(2), dist_reduce_fx="sum")
        self.add_state("correct", torch.zeros(2, dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, soft_logits: Tensor, hard_logits: Tensor, labels: Tensor) -> None:
        """Add examples.

        Args:
            soft_logits: [B, C] Class logits with the soft prompt.
            hard_logits: [B, C] Class logits with its nearest tokens.
            labels: [B] Class indices.
        """
        sides = (wide(soft_logits), wide(hard_logits))
        # Side by side, so that equal logits give equal sums, and those of the tuner's own loss.
        losses = [
            in_double(F.cross_entropy(logits, labels, reduction="none")).sum() for logits in sides
        ]
        self.losses = self.losses + torch.stack(losses)  # becomes float64
        self.correct += torch.stack([(logits.argmax(dim=-1) == labels).sum() for logits in sides])
        self.count += len(labels)

    def compute(self) -> Performance:
        """Six scalars, means over the examples."""
        soft_loss, hard_loss = self.losses / self.count
        soft_accuracy, hard_accuracy = self.correct / self.count
        apart = (soft_loss - hard_loss).abs(), (soft_accuracy - hard_accuracy).abs()
        return Performance(soft_loss, soft_accuracy, hard_loss, hard_accuracy, *apart)
