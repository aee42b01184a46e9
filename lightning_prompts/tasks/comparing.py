"""Splits against one another: rows that repeat, rows that they share, labels that contradict.

What a word says of a label is measured by naive Bayes on a bag of words, which a few thousand rows
train in a second: it knows little of most tasks, but swapped labels show in it.
"""

import hashlib
import itertools
import math
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from lightning_prompts.tasks.rows import SPLIT_SEED, Row, Rows, stratified_order

MOST_ROWS = 8000  # that words are learned from, or scored
MOST_WORDS = 400  # of a text
MOST_CLASSES = 20  # whose pairs are compared
WORD = re.compile(r"\w+")


class Repeats(NamedTuple):
    """Rows that stand in a split more than once.

    Attributes:
        rows: Those that say again what an earlier row says.
        contradicting: Rows whose text has another label elsewhere in the split.
    """

    rows: int
    contradicting: int


class Agreement(NamedTuple):
    """How far the words of one split say the labels of another, for two classes.

    Attributes:
        learned, scored: The splits.
        classes: The two.
        rows: Scored rows of these classes.
        phi: Correlation of the two, from -1 to 1: that of a 2 x 2 table.
        z: `phi` in standard errors of what no relation would give.
    """

    learned: str
    scored: str
    classes: tuple[int, int]
    rows: int
    phi: float
    z: float


def keys(rows: Rows, columns: Sequence[str]) -> list[bytes]:
    """What each row says, whatever its spaces and its letters' case."""
    return [_key(row, columns) for row in rows.rows]


def repeats(keys: Sequence[bytes], labels: Sequence[int]) -> Repeats:
    """Rows that repeat, of a split."""
    found: dict[bytes, Counter[int]] = defaultdict(Counter)
    for key, label in zip(keys, labels, strict=True):
        found[key][label] += 1
    again = sum(sum(counts.values()) - 1 for counts in found.values())
    contradicting = sum(sum(counts.values()) for counts in found.values() if len(counts) > 1)
    return Repeats(again, contradicting)


def shared(keys: Sequence[bytes], others: Sequence[bytes]) -> int:
    """Rows of a split that stand in another one too."""
    known = set(others)
    return sum(key in known for key in keys)


def agreements(
    splits: Mapping[str, Rows], columns: Sequence[str], num_classes: int
) -> list[Agreement]:
    """For each two splits, what the words of the larger say of the smaller's labels.

    Of several pairs of classes, the one that speaks most against it.

    Args:
        splits: By name, labelled.
        columns: That are read.
        num_classes: C.
    """
    found = []
    bags = {name: _bags(rows, columns) for name, rows in splits.items()}
    for pair in itertools.combinations(splits, 2):
        learned, scored = sorted(pair, key=lambda name: -len(bags[name][0]))
        weights = _weights(*bags[learned], num_classes)
        of_pairs = _pairs(learned, scored, weights, *bags[scored], num_classes)
        if of_pairs:
            found.append(min(of_pairs, key=lambda agreement: agreement.z))
    return found


def shift(counts: Sequence[int], others: Sequence[int]) -> tuple[int, float, float, float]:
    """The class whose share differs most between two splits.

    Args:
        counts: Rows of each class, of a split.
        others: The same of another one.

    Returns:
        The class, its two shares, and their difference in standard errors.
    """
    n, m = sum(counts), sum(others)
    best = (0, 0.0, 0.0, 0.0)
    for index, (one, other) in enumerate(zip(counts, others, strict=True)):
        p, q, both = one / n, other / m, (one + other) / (n + m)
        error = math.sqrt(both * (1 - both) * (1 / n + 1 / m))
        z = (p - q) / error if error else 0.0
        if abs(p - q) > abs(best[1] - best[2]):
            best = index, p, q, z
    return best


# ---- details

Bags = tuple[list[set[str]], list[int]]


def _key(row: Row, columns: Sequence[str]) -> bytes:
    texts = (" ".join(str(row[column]).split()).casefold() for column in columns)
    return hashlib.blake2b("\0".join(texts).encode(), digest_size=12).digest()


def _bags(rows: Rows, columns: Sequence[str]) -> Bags:
    """The words and the label of rows with the classes in their shares."""
    order = stratified_order(rows.labels, SPLIT_SEED)[:MOST_ROWS]
    texts = (" ".join(str(rows.rows[i][column]) for column in columns) for i in order)
    words = [set(WORD.findall(text.casefold())[:MOST_WORDS]) for text in texts]
    return words, [rows.labels[i] for i in order]


def _weights(bags: list[set[str]], labels: list[int], num_classes: int) -> dict[str, list[float]]:
    """Log-probability that a text of each class has a word, one text more having each."""
    texts = Counter(labels)
    counts: dict[str, list[int]] = {}
    for words, label in zip(bags, labels, strict=True):
        for word in words:
            counts.setdefault(word, [0] * num_classes)[label] += 1
    return {
        word: [math.log((n + 0.5) / (texts[label] + 1)) for label, n in enumerate(of_classes)]
        for word, of_classes in counts.items()
        if sum(of_classes) > 1
    }


def _pairs(
    learned: str,
    scored: str,
    weights: Mapping[str, list[float]],
    bags: list[set[str]],
    labels: list[int],
    num_classes: int,
) -> list[Agreement]:
    """The agreement of each pair of classes."""
    sums = [
        [sum(column) for column in zip(*(weights[w] for w in words if w in weights), strict=True)]
        or [0.0] * num_classes
        for words in bags
    ]
    found = []
    for one, other in itertools.combinations(range(min(num_classes, MOST_CLASSES)), 2):
        rows = [(s[other] - s[one], label) for s, label in zip(sums, labels, strict=True)]
        rows = [(score, label) for score, label in rows if label in (one, other)]
        # By the median, so that words that lean one way still divide the rows.
        middle = sorted(score for score, _ in rows)[len(rows) // 2] if rows else 0.0
        table = Counter((score >= middle, label == other) for score, label in rows)
        a, b, c, d = (table[x, y] for x in (True, False) for y in (True, False))
        margins = (a + b) * (c + d) * (a + c) * (b + d)
        if margins:
            phi = (a * d - b * c) / math.sqrt(margins)
            n = len(rows)
            found.append(Agreement(learned, scored, (one, other), n, phi, phi * math.sqrt(n)))
    return found
