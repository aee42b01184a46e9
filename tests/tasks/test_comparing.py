"""Splits against one another: repeats, shared rows, labels that contradict."""

import itertools
import math
import random

import pytest
import torch

from lightning_prompts.tasks.comparing import agreements, keys, repeats, shared, shift
from lightning_prompts.tasks.rows import Rows

WORDS = ("fine", "good", "warm", "dull", "bad", "cold", "it", "was", "the", "film")
LEAN = (3, 3, 3, 1, 1, 1, 4, 4, 4, 4)


def made(count: int, seed: int, swap: bool = False, num_classes: int = 2) -> Rows:
    """Texts whose words lean to their label."""
    draw = random.Random(seed)
    rows, labels = [], []
    for i in range(count):
        label = i % num_classes
        lean = [*LEAN[label * 3 :], *LEAN[: label * 3]] if label < 2 else [1] * len(LEAN)
        rows.append({"text": " ".join(draw.choices(WORDS, lean, k=6)) + f" {i}"})
        labels.append(1 - label if swap and label < 2 else label)
    return Rows("made", rows, labels=labels)


def test_rows_are_alike_whatever_spaces_and_case():
    rows = Rows(
        "", [{"a": "One  two", "b": "x"}, {"a": "one two", "b": "X "}, {"a": "one", "b": ""}]
    )
    own = keys(rows, ("a", "b"))
    assert own[0] == own[1] != own[2]
    assert keys(Rows("", [{"a": "one two x", "b": ""}]), ("a", "b"))[0] not in own


@pytest.mark.parametrize("seed", range(5))
def test_repeats_and_shared_rows_are_counted(seed: int):
    """Against all pairs of rows."""
    draw = random.Random(seed)
    texts = [str(draw.randrange(12)) for _ in range(20)]
    labels = [draw.randrange(2) for _ in texts]
    others = [str(draw.randrange(20)) for _ in range(9)]
    own, theirs = (keys(Rows("", [{"t": t} for t in some]), ("t",)) for some in (texts, others))
    again = sum(text in texts[:i] for i, text in enumerate(texts))
    both = [
        any(texts[i] == texts[j] and labels[i] != labels[j] for j in range(len(texts)))
        for i in range(len(texts))
    ]
    assert repeats(own, labels) == (again, sum(both))
    assert shared(own, theirs) == sum(text in others for text in texts)


def test_phi_is_the_correlation_of_what_words_say_and_the_label():
    """Against naive Bayes written anew, and torch's correlation."""
    train, scored = made(60, 0), made(30, 1)
    (found,) = agreements({"train": train, "validation": scored}, ("text",), 2)
    texts = [row["text"].split() for row in train.rows]
    score = []
    for row in scored.rows:
        nats = [0.0, 0.0]
        for word, label in itertools.product(set(row["text"].split()), range(2)):
            having = [k for t, k in zip(texts, train.labels, strict=True) if word in t]
            if len(having) > 1:
                nats[label] += math.log((having.count(label) + 0.5) / (30 + 1))
        score.append(nats[1] - nats[0])
    said = torch.tensor(score) >= sorted(score)[15]
    table = torch.stack([said.float(), torch.tensor(scored.labels).float()])
    phi = float(torch.corrcoef(table)[0, 1])
    assert (found.learned, found.scored, found.rows) == ("train", "validation", 30)
    assert found.phi == pytest.approx(phi, abs=1e-5)
    assert found.z == pytest.approx(phi * math.sqrt(30), abs=1e-4)


def test_swapped_labels_speak_against_the_others():
    splits = {"train": made(300, 0), "validation": made(200, 1, swap=True), "test": made(200, 2)}
    found = {(a.learned, a.scored): a.z for a in agreements(splits, ("text",), 2)}
    assert found["train", "test"] > 4
    assert found["train", "validation"] < -4
    assert min(found["validation", "test"], found.get(("test", "validation"), 0)) < -4


def test_two_swapped_labels_of_three_are_named():
    splits = {"train": made(600, 0, num_classes=3), "test": made(600, 1, swap=True, num_classes=3)}
    (found,) = agreements(splits, ("text",), 3)
    assert found.classes == (0, 1)
    assert found.z < -4


def test_the_share_that_differs_most():
    index, p, q, z = shift([30, 50, 20], [60, 20, 20])
    assert (index, p, q) in [(0, 0.3, 0.6), (1, 0.5, 0.2)]
    pooled = 0.45 if index == 0 else 0.35
    assert z == pytest.approx((p - q) / math.sqrt(pooled * (1 - pooled) * 2 / 100))
