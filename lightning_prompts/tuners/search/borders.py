"""Where a prompt's text meets the texts of rows, and whether tokens merge there.

Tokenizers divide a text at white space before anything else, so that what a prompt merges with is
the last word before it and the first word behind it, and rows that end alike are one case.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

from lightning_prompts.lm.frozen import FrozenLM

# Asked of every candidate: SST-2 has some 3,000 different borders, of which these are the half of
# all rows. The others are asked of the few prompts that a validation may choose.
COMMON = 32


class Borders:
    """The different words on both sides of the prompt, the most frequent first.

    Args:
        lm: The frozen language model.
        texts: Of each row, what stands before the prompt and behind it.
    """

    def __init__(self, lm: FrozenLM, texts: Iterable[tuple[str, str]]) -> None:
        self.lm = lm
        found = Counter((last_word(before), first_word(after)) for before, after in texts)
        # Equally frequent ones in alphabetical order: the same on every process.
        ordered = sorted(found, key=lambda pair: (-found[pair], pair))
        self._pairs = ordered
        self._sides = [(self._encode(left), self._encode(right)) for left, right in ordered]

    def __len__(self) -> int:
        return len(self._pairs)

    def holds(self, ids: Sequence[int], rare: bool = False) -> float:
        """Share of the borders at which the pasted text gives the prompt's own tokens.

        Args:
            ids: The prompt.
            rare: Look at all borders, not only at the `COMMON` most frequent ones.
        """
        some = slice(None if rare else COMMON)
        text = self.lm.decode(list(ids))
        pasted = [left + text + right for left, right in self._pairs[some]]
        if not pasted:
            return 1.0
        whole = [[*left, *ids, *right] for left, right in self._sides[some]]
        encoded = self.lm.tokenize(pasted)
        return sum(a == b for a, b in zip(encoded, whole, strict=True)) / len(pasted)

    def _encode(self, text: str) -> list[int]:
        return self.lm.tokenize([text])[0] if text else []


def last_word(text: str) -> str:
    r"""The last word with all white space around it.

    >>> last_word("a dull  film \n")
    '  film \n'
    """
    head = text.rstrip()
    words = head.rsplit(maxsplit=1)
    rest = words[0] if len(words) > 1 else ""
    return text[len(rest) :]


def first_word(text: str) -> str:
    """The first word with the white space before it.

    >>> first_word(" It was")
    ' It'
    """
    body = text.lstrip()
    word = body.split(maxsplit=1)[:1]
    return text[: len(text) - len(body) + len(word[0]) if word else len(text)]
