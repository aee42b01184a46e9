"""What a text's tokens and words are: repeated, real words, copied from a training row."""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from itertools import chain

from lightning_prompts.files import sentences

WORD = re.compile(r"[^\W\d_]{2,}")
# Between rows written as characters, one a token: no token has this number.
BORDER = "\U0010ffff"


def repetition(token_ids: Sequence[int]) -> float:
    """Share of a text's tokens that stood before in it: 1 - distinct tokens / tokens (ours).

    Cost: none. Gamed by: many different tokens that say nothing; a long natural text repeats words.

    Args:
        token_ids: [P] The text, P at least 1.

    Returns:
        0 (all differ) to 1 - 1 / P.

    Raises:
        ValueError: If it has no token.

    >>> repetition([7, 8, 7, 7])
    0.5
    """
    if not token_ids:
        raise ValueError("token_ids is empty; a text of one token at least can repeat one.")
    return 1 - len(set(token_ids)) / len(token_ids)


def real_words(text: str, known: Collection[str]) -> float:
    """Share of a text's words, letters two or more, that are known ones (ours).

    Cost: none once the training texts are read. Gamed by: real words in no order that says
    anything. A word that is rare, foreign, a name or written in one counts as none.

    Args:
        text: The text.
        known: Words in small letters, e.g. `natural_words()` and `frequent_words(training_texts)`.

    Returns:
        0 to 1; 0 for a text without words.

    >>> real_words("Great zxq 42 film", {"great", "film"})
    0.6666666666666666
    """
    words = words_of(text)
    return sum(word in known for word in words) / len(words) if words else 0.0


def natural_words() -> set[str]:
    """Words of the sentences that come with the package."""
    return {word for line in chain(*sentences.registers()) for word in words_of(line)}


def frequent_words(texts: Iterable[str]) -> set[str]:
    """Words that stand in texts twice or more; what stands there once may be a slip."""
    counts = Counter(word for text in texts for word in words_of(text))
    return {word for word, count in counts.items() if count > 1}


def words_of(text: str) -> list[str]:
    """A text's words in small letters: two letters or more, of any script.

    >>> words_of("I don't like No. 7!")
    ['don', 'like', 'no']
    """
    return WORD.findall(text.lower())


def copied_run(token_ids: Sequence[int], rows: str) -> int:
    """Longest run of a text's tokens that stands in a training row, in tokens (ours).

    A prompt that quotes a training row was perhaps not learned but remembered.

    Cost: none once the training rows are tokenized. Gamed by: one other token in the middle of what
    was copied. Short runs say nothing: phrases of two or three tokens stand in any large data.

    Args:
        token_ids: [P] The text.
        rows: The training rows, of `as_characters`.

    Returns:
        0 to P.

    >>> copied_run([1, 5, 6, 9], as_characters([[4, 5, 6], [6, 9]]))
    2
    """
    text = as_characters([list(token_ids)])
    longest = start = 0
    while start + longest < len(text):
        if text[start : start + longest + 1] in rows:
            longest += 1
        else:
            start += 1
    return longest


def as_characters(rows: Iterable[Iterable[int]]) -> str:
    """Rows of token ids as one string, a character a token: Python finds parts of it quickly."""
    return BORDER.join("".join(map(chr, row)) for row in rows)
