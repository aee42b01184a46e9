"""Style transfer: how well rewritten sentences keep their content and take on a style.

Content and style are between 0 and 100. RLPrompt (Deng et al. 2022, https://arxiv.org/abs/2205.12548)
also counts fluency, by a classifier of grammar; here fluency is the perplexity of the outputs, and
joint and gm are of content and style alone.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics.functional.text import sacre_bleu_score

from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.metrics.scrutability import row_nats


def joint(content: Tensor, style: Tensor) -> Tensor:
    """Mean over outputs of content times style: only outputs that have both count.

    As in the paper, less its third factor, the fluency of each output (0 or 1).

    Args:
        content: [..., B] Of each output, 0 to 100.
        style: [..., B] The same.

    Returns:
        [...] 0 to 100.

    >>> joint(torch.tensor([100.0, 0.0]), torch.tensor([50.0, 100.0]))
    tensor(25.)
    """
    return (content * style / 100).mean(-1)


def geometric_mean(content: Tensor, style: Tensor) -> Tensor:
    """Geometric mean of mean content and mean style, as in the paper less fluency.

    Args:
        content: [..., B] Of each output, 0 to 100.
        style: [..., B] The same.

    Returns:
        [...] 0 to 100.

    >>> geometric_mean(torch.tensor([100.0, 0.0]), torch.tensor([50.0, 50.0]))
    tensor(50.)
    """
    return (content.mean(-1) * style.mean(-1)).sqrt()


def best_of(scores: Tensor, draws: int) -> tuple[Tensor, Tensor]:
    """The best of each of several equal draws.

    Args:
        scores: [..., N] Of N samples, N a multiple of `draws`.
        draws: D.

    Returns:
        maxima: [..., D] Best score of each draw.
        indices: [..., D] Where among the N it is, the first where several are best.

    >>> best_of(torch.tensor([1.0, 3.0, 2.0, 2.0]), draws=2)
    (tensor([3., 2.]), tensor([1, 2]))
    """
    maxima, indices = scores.unflatten(-1, (draws, -1)).max(-1)
    starts = torch.arange(draws, device=scores.device) * (scores.shape[-1] // draws)
    return maxima, indices + starts


def bleu(outputs: Sequence[str], references: Sequence[Sequence[str]]) -> Tensor:
    """BLEU of all outputs together against their references, 0 to 100, cased, tokens as in WMT.

    Args:
        outputs: B texts.
        references: For each output, one or more texts by people.

    Returns:
        Scalar; NaN where no output has a reference.
    """
    pairs = [(o, list(r)) for o, r in zip(outputs, references, strict=True) if r]
    if not pairs:
        return torch.tensor(math.nan)
    found, wanted = zip(*pairs, strict=True)
    return 100 * sacre_bleu_score(list(found), list(wanted))


def text_nats(lm: FrozenLM, texts: Sequence[str]) -> tuple[Tensor, int]:
    """Negative log-likelihood of texts after BOS, summed over all of their tokens.

    Args:
        lm: The frozen language model that judges them.
        texts: Empty ones have no tokens.

    Returns:
        Nats, a float64 scalar, and how many tokens they are of.

    Raises:
        PromptError: If a text needs a token that the model does not have.
    """
    rows = lm.encode_all(texts)
    return row_nats(lm, rows).sum(), sum(map(len, rows))


def transfer_loss(reward: Tensor) -> Tensor:
    """Minus the logarithm of a mean reward as a share, so that higher rewards lose less, in nats.

    Args:
        reward: [...] 0 to 100.

    Returns:
        [...] At most 9.2: of a reward of 0 too the loss is a number.
    """
    return -(reward.clamp(min=0.01) / 100).log()
