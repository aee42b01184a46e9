"""How near in meaning a prompt is to a text: a cosine of means of token embeddings."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_prompts.files.errors import PromptError
from lightning_prompts.files.numbers import in_double, wide
from lightning_prompts.lm.frozen import FrozenLM

OPTION = "--model.keep_near"


class NearText:
    """What leaving a text's meaning costs a prompt: weight * (1 - cosine), in nats.

    The cosine is that of two means: of the input embeddings of the prompt's tokens, and of those of
    the text's tokens, both less the mean of the whole table (ours). That mean is common to all
    tokens, and with it any two texts would be near. A share of the text's content words would need
    a list of words that are none, and is 0 for every paraphrase; this is a number for any two texts
    and moves with each edit. It knows no order and no context: a list of the text's words is near.

    Args:
        text: To keep near.
        weight: Nats for each 1 of the cosine.
        lm: Whose tokens and embeddings.

    Raises:
        PromptError: If the text has no token.
    """

    def __init__(self, text: str, weight: float, lm: FrozenLM) -> None:
        self.lm, self.weight, self.ids = lm, weight, lm.encode(text, OPTION)
        if not self.ids:
            raise PromptError(f"{OPTION} is an empty text; give one, or null for none.")
        self._known: dict[tuple[int, ...], float] = {}
        self._of_table: Tensor | None = None

    def cosine(self, ids: Sequence[int]) -> float:
        """Of a prompt's tokens with the text, -1 to 1; 1 for the text itself."""
        if (key := tuple(ids)) not in self._known:
            found = F.cosine_similarity(self._mean(ids), self._mean(self.ids), dim=0)
            self._known[key] = float(found)
        return self._known[key]

    def __call__(self, ids: Sequence[int]) -> float:
        """What a prompt's objective is raised by, in nats, 0 or more but for rounding."""
        return self.weight * (1 - self.cosine(ids))

    @torch.no_grad()
    def _mean(self, ids: Sequence[int]) -> Tensor:
        """[H] Of the tokens' embeddings, less that of all tokens."""
        table = self.lm.embedding_table
        if self._of_table is None:
            self._of_table = in_double(wide(table).mean(0))
        rows = self.lm.embed(torch.tensor(list(ids), device=table.device))
        return in_double(rows).mean(0) - self._of_table.to(table.device)
