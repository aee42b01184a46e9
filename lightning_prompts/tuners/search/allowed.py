"""Which tokens a search may choose, and which prompts it may keep."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_prompts.files.errors import PromptError
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.lm.verbalizer import Verbalizer
from lightning_prompts.metrics.scrutability import round_trip
from lightning_prompts.tuners.search.borders import Borders

log = logging.getLogger(__name__)

Ids = tuple[int, ...]

# Draws that may go into mending a start whose text gives other tokens; most take some 50 µs, and
# those that survive so far that all borders are asked some 10 ms.
MENDING_DRAWS = 5000
WHOLE = (1.0, 1.0, 1.0)


@dataclass
class FilterSettings:
    """What a prompt may be made of.

    Args:
        round_trip: Keep only prompts whose text gives the same tokens again, by itself and pasted
            between the texts of rows: whoever copies it then gets what was measured.
        ascii_only: Only tokens of printable ASCII characters.
        forbid_verbalizer: No token that spells one of the answers or a word of one, but for words
            that all labels' answers share; in upper or lower case, with a space or without.
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
        self.borders: Borders | None = None
        """What rows have beside the prompt; none are asked for before the rows are known."""
        self.readers: Sequence[Callable[[Sequence[int]], bool]] = ()
        """Ask for each other model that scores prompts whether it can read this one's text."""
        mask = torch.ones(lm.vocab_size, dtype=torch.bool)
        if exclude_special:
            mask[lm.special_ids] = False
        if settings.ascii_only or settings.forbid_verbalizer:
            words = _telling_words(verbalizer)
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
        if not self.mask[list(ids)].all():
            return False
        if self.round_trip and not (self._share(ids) == 1.0 and self._holds(ids) == 1.0):
            return False
        return all(reads(ids) for reads in self.readers)

    def pastes(self, ids: Sequence[int]) -> bool:
        """Whether a prompt that `keeps` let through survives at every border, rare ones too."""
        if not self.round_trip:
            return True
        return self._holds(ids, rare=True) == 1.0

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
        survived = self._survived(found)
        for _ in range(MENDING_DRAWS):
            if survived == WHOLE:
                break
            tried = list(found)
            tried[self._damage(found, survived[0], generator)] = self._draw(generator)
            if (reached := self._survived(tried)) >= survived:
                found, survived = tried, reached
        if survived != WHOLE:
            where = "" if survived[0] < 1.0 else " between the texts of rows"
            raise PromptError(
                f"No prompt near {self.lm.decode(list(ids))!r} gives its own tokens when its text "
                f"is tokenized{where}; start from another one (--model.init), or set "
                "--model.filters.round_trip false."
            )
        if found != list(ids):
            before, after = self.lm.decode(list(ids)), self.lm.decode(found)
            log.info("The filters do not let %r through; the search starts from %r.", before, after)
        return tuple(found)

    def _damage(self, ids: Sequence[int], share: float, generator: torch.Generator) -> int:
        """Place of the first token that does not come back, or the next: they may merge.

        Where all come back, the prompt is damaged by rows, at its first or its last token.
        """
        if share == 1.0:
            return (0, len(ids) - 1)[int(torch.randint(2, (1,), generator=generator))]
        (again,) = self.lm.tokenize([self.lm.decode(ids)])
        first = next((i for i, (a, b) in enumerate(zip(ids, again, strict=False)) if a != b), 0)
        return min(first + int(torch.randint(2, (1,), generator=generator)), len(ids) - 1)

    def _draw(self, generator: torch.Generator) -> int:
        return int(self.ids[torch.randint(len(self.ids), (1,), generator=generator)])

    def _survived(self, ids: Sequence[int]) -> tuple[float, float, float]:
        """Shares of its tokens, then of common borders, then of all, at which it survives."""
        if not self.round_trip:
            return WHOLE
        share = self._share(ids)
        common = self._holds(ids) if share == 1.0 else 0.0
        return share, common, self._holds(ids, rare=True) if common == 1.0 else 0.0

    def _holds(self, ids: Sequence[int], rare: bool = False) -> float:
        return 1.0 if self.borders is None else self.borders.holds(ids, rare)

    def _share(self, ids: Sequence[int]) -> float:
        """Share of the tokens that survive their text."""
        return round_trip(list(ids), self.lm.tokenize([self.lm.decode(list(ids))])[0])


def _telling_words(verbalizer: Verbalizer) -> set[str]:
    """Answers and words of them, in lower case, that not all labels share."""
    of_labels = [
        {word.lower() for answer in answers for word in (answer.strip(), *answer.split())}
        for answers in verbalizer.answers
    ]
    return of_labels[0].union(*of_labels) - of_labels[0].intersection(*of_labels)
