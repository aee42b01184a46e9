"""Which tokens a search may choose, and which prompts it may keep."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_prompts.errors import PromptError
from lightning_prompts.language_model import FrozenLM
from lightning_prompts.metrics.scrutability import round_trip
from lightning_prompts.verbalizer import Verbalizer

log = logging.getLogger(__name__)

Ids = tuple[int, ...]

# Draws that may go into mending a start whose text gives other tokens; each takes some 50 µs.
MENDING_DRAWS = 5000


@dataclass
class FilterSettings:
    """What a prompt may be made of.

    Args:
        round_trip: Keep only prompts whose text gives the same tokens again. Whether they merge
            with a row's text at the prompt's border is not asked: that is another question for
            each row, and `val/round_trip_accuracy` measures it.
        ascii_only: Only tokens of printable ASCII characters.
        forbid_verbalizer: No token that spells one of the answer words, in upper or lower case,
            with a space or without.
    """

    round_trip: bool = True
    ascii_only: bool = False
    forbid_verbalizer: bool = False


class Allowed:
    """Filters of tokens and of prompts.

    Args:
        lm: The frozen language model.
        verbalizer: The answer words.
        settings: See `FilterSettings`.
        exclude_special: Whether special tokens are kept out, as everywhere else.

    Raises:
        PromptError: If no token is left.
    """

    def __init__(
        self,
        lm: FrozenLM,
        verbalizer: Verbalizer,
        settings: FilterSettings,
        exclude_special: bool = True,
    ) -> None:
        self.lm, self.round_trip = lm, settings.round_trip
        mask = torch.ones(lm.vocab_size, dtype=torch.bool)
        if exclude_special:
            mask[lm.special_ids] = False
        if settings.ascii_only or settings.forbid_verbalizer:
            words = {word.strip().lower() for word in verbalizer.words}
            for i, text in enumerate(lm.token_strings(range(lm.vocab_size))):
                if settings.ascii_only and not (text.isascii() and text.isprintable()):
                    mask[i] = False
                if settings.forbid_verbalizer and text.strip().lower() in words:
                    mask[i] = False
        if not mask.any():
            raise PromptError(
                "--model.filters leaves no token to choose from; allow more, for example "
                "--model.filters.ascii_only false."
            )
        self.mask: Tensor = mask
        """[V] Whether a token may be chosen, on the host."""
        self.ids: Tensor = mask.nonzero()[:, 0]
        """[n] The tokens that may be chosen."""

    def keeps(self, ids: Sequence[int]) -> bool:
        """Whether a prompt may be kept."""
        return bool(self.mask[list(ids)].all()) and (not self.round_trip or self._share(ids) == 1.0)

    def mend(self, ids: Sequence[int], generator: torch.Generator) -> Ids:
        """A prompt that may be kept and is as near to the given one as a few draws find.

        A start of random tokens seldom survives its text: two of them merge, or one is half a
        character. Left so, hardly any single edit of it could be kept. Tokens that may not be
        chosen are drawn anew; then those at which the text first gives other tokens, one at a time,
        as long as no draw makes it worse.

        Args:
            ids: The prompt to start from.
            generator: Of the draws, on the host.

        Raises:
            PromptError: If none is found.
        """
        found = [i if self.mask[i] else self._draw(generator) for i in ids]
        share = self._share(found) if self.round_trip else 1.0
        for _ in range(MENDING_DRAWS):
            if share == 1.0:
                break
            tried = list(found)
            tried[self._damage(found, generator)] = self._draw(generator)
            if (reached := self._share(tried)) >= share:
                found, share = tried, reached
        if share < 1.0:
            raise PromptError(
                f"No prompt near {self.lm.decode(list(ids))!r} gives its own tokens when its text "
                "is tokenized; start from another one (--model.init), or set "
                "--model.filters.round_trip false."
            )
        if found != list(ids):
            before, after = self.lm.decode(list(ids)), self.lm.decode(found)
            log.info("The filters do not let %r through; the search starts from %r.", before, after)
        return tuple(found)

    def _damage(self, ids: Sequence[int], generator: torch.Generator) -> int:
        """Place of the first token that does not come back, or the next: they may merge."""
        again = self.lm.encode(self.lm.decode(ids))
        first = next((i for i, (a, b) in enumerate(zip(ids, again, strict=False)) if a != b), 0)
        return min(first + int(torch.randint(2, (1,), generator=generator)), len(ids) - 1)

    def _draw(self, generator: torch.Generator) -> int:
        return int(self.ids[torch.randint(len(self.ids), (1,), generator=generator)])

    def _share(self, ids: Sequence[int]) -> float:
        """Share of the tokens that survive their text."""
        return round_trip(list(ids), self.lm.encode(self.lm.decode(list(ids))))
