"""A soft prompt that stays near a written text: within a distance of its rows, or of its cells.

Ours. An epsilon is also what context-aware prompt tuning has (CPT, arXiv:2410.17222), in PEFT an
absolute one for each kind of token, where this one is in lengths of each token's row. Whether
vectors can do a task while their nearest tokens say what one likes is the question of prompt
waywardness (arXiv:2112.08348), which `keep_nearest` puts by projection.
"""

from typing import Annotated, Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import MetricCollection

from lightning_prompts.files.errors import PromptError
from lightning_prompts.files.numbers import in_double, wide
from lightning_prompts.files.option_types import Range, Symbol
from lightning_prompts.files.stages import Stage
from lightning_prompts.lm.batch import Batch
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.lm.nearest import Distance, nearest_tokens
from lightning_prompts.lm.template import Template
from lightning_prompts.lm.verbalizer import Verbalizer
from lightning_prompts.tuners.soft import SoftPrompt

Epsilon = Annotated[float, Range(0, null="no bound"), Symbol("ε")]
# How far to stop before a border, as a share of the way to it: more than the rounding of distances
# in float32, and twice as far at each search that another token still wins, up to all of the way.
MARGIN, SEARCHES = 1e-5, 18


class BoundedPrompt(SoftPrompt):
    """Free prompt embeddings near the rows of a text's tokens.

    After each update they go back within the bounds: along the straight line to its token's row,
    which is, for `epsilon`, to the nearest point within.

    Args:
        epsilon: Largest distance of each vector to its token's row, in lengths of that row. At 0
            the prompt is the text: `fit` validates it once. Null sets no bound.
        keep_nearest: Whether each vector's nearest token, by `projection`, has to stay its own.
        init: The text, as `FromText`, or another start that is tokens.
        lm, template, verbalizer, **kwargs: Of `SoftPrompt`.

    Raises:
        PromptError: If the start is not tokens, or `keep_nearest` cannot hold for one of them.
    """

    slug, label = "bounded", "Bounded prompt"
    text_ids: Tensor
    """[P] The tokens that the prompt stays near."""

    def __init__(
        self,
        lm: FrozenLM,
        template: Template,
        verbalizer: Verbalizer,
        epsilon: Epsilon | None = 0.3,
        keep_nearest: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(lm, template, verbalizer, **kwargs)
        self.epsilon, self.keep_nearest = epsilon, keep_nearest
        self.learns = epsilon != 0
        # Euclidean: rows of one direction are no nearer to each other than their lengths.
        ids = nearest_tokens(self.prompt, lm.index, "euclidean").ids
        if not torch.equal(lm.embed(ids).to(self.prompt.dtype), self.prompt):
            raise PromptError(
                "BoundedPrompt stays near the tokens that it starts from, and --model.init gives "
                "vectors that are no tokens; take FromText, with --model.init.text."
            )
        self.keep_ids("text_ids", ids, persistent=True)
        if keep_nearest and (other := (self.hard_prompt() != ids).nonzero()).numel():
            token = lm.decode(ids[other[0]].tolist())
            raise PromptError(
                f"--model.keep_nearest: {token!r} is not the nearest token to its own row: special "
                "tokens are left out by --model.exclude_special, and rows of one direction are "
                "alike by --model.projection cosine; take it out of the text, or change these."
            )

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """One batch; returns the loss in nats, 0 where there is nothing to learn."""
        return super().training_step(batch, batch_idx) if self.learns else self.prompt.sum() * 0

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None
    ) -> None:
        """Update, then go back within the bounds: before anything can be saved or measured."""
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        self.project()

    @torch.no_grad()
    def project(self) -> None:
        """Move what is out of bounds to where its token's row is first within them.

        No vector is farther from its row than `epsilon` says, rounding included. What is within is
        left as it is, to the last bit.
        """
        prompt, rows = in_double(self.prompt), in_double(self.lm.embed(self.text_ids))
        away = prompt - rows
        far = torch.linalg.vector_norm(away, dim=1)
        most = torch.full_like(far, torch.inf)
        share = torch.ones_like(far)  # of the way from the row to the vector
        if self.epsilon is not None:
            lengths = torch.linalg.vector_norm(rows, dim=1)
            # A vector is rounded by less than this share of its length, which is 1 + epsilon rows'.
            rounding = torch.finfo(self.prompt.dtype).eps / 2 * (1 + self.epsilon)
            most = lengths * max(0.0, self.epsilon - rounding) / far.clamp_min(1e-30)
            share = torch.where(far > lengths * self.epsilon, most, share)
        self._put(prompt, rows, share)
        if not self.keep_nearest:
            return
        for search in range(SEARCHES):
            nearest = self.hard_prompt()
            if torch.equal(nearest, self.text_ids):
                return
            other = in_double(self.lm.embed(nearest))
            border = share_to_border(rows, away, other, self.projection).minimum(share)
            within = border.minimum(most) * (1 - min(1.0, MARGIN * 2**search))
            share = torch.where(nearest == self.text_ids, share, within)
            self._put(prompt, rows, share)

    def _put(self, prompt: Tensor, rows: Tensor, share: Tensor) -> None:
        """Take a share [P] of the way from the rows to `prompt` [P, H]; of all of it, `prompt`."""
        moved = rows + share[:, None] * (prompt - rows)
        self.prompt.copy_(torch.where(share[:, None] < 1, moved, prompt))

    @torch.no_grad()
    def epsilon_used(self) -> Tensor:
        """Largest distance of a vector to its token's row, in lengths of that row."""
        rows = wide(self.lm.embed(self.text_ids))
        far = torch.linalg.vector_norm(wide(self.prompt) - rows, dim=1)
        return (far / torch.linalg.vector_norm(rows, dim=1).clamp_min(1e-30)).max()

    def _log_metrics(self, stage: Stage, metrics: MetricCollection) -> None:
        super()._log_metrics(stage, metrics)
        self.log(f"{stage}/epsilon_used", self.epsilon_used(), sync_dist=True)


def share_to_border(rows: Tensor, away: Tensor, other: Tensor, metric: Distance) -> Tensor:
    """[P] Share of the way from `rows` along `away` at which `other` rows come to be as near.

    What is nearer to one row than to another lies on one side of a plane by both distances, which
    a straight line crosses once: |n|² / (2 n a), n = other - row and a = away; by cosine distance n
    is of the rows at length 1, and the share is times the length of the row.

    Args:
        rows: [P, H] Where the ways begin.
        away: [P, H] Where to.
        other: [P, H]
        metric: What is near.

    Returns:
        Above 0; infinite where the way leads nowhere nearer to the other row.
    """
    lengths = torch.ones_like(rows[:, 0])
    if metric == "cosine":
        lengths = torch.linalg.vector_norm(rows, dim=1)
        rows, other = F.normalize(rows, dim=1), F.normalize(other, dim=1)
    normal = other - rows
    towards = (normal * away).sum(1)
    share = lengths * normal.square().sum(1) / (2 * towards)
    return torch.where(towards > 0, share, torch.inf)
