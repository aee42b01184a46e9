"""Prompts in the model's own words: one at a time, the words that count, and fixed frames."""

import re
from typing import get_args

import pytest
import torch

from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.lm.passes.blocks import continued, states_at
from lightning_prompts.metrics.in_words import (
    FRAMES,
    RANDOM,
    WRITTEN,
    Source,
    grid,
    in_words,
    random_like,
    task_words,
)
from lightning_prompts.metrics.panel.frames import TaskKind

WORDS = {"answers": ["e", "q"], "classes": ["o"]}  # the tiny model writes characters


def test_each_pair_of_layers_and_each_frame(lm: FrozenLM):
    generator = torch.Generator().manual_seed(4)
    vectors = [torch.randn(length, 16, generator=generator) for length in (3, 2, 3)]
    sources = [Source("run", str(i), rows) for i, rows in enumerate(vectors)]
    found = in_words(lm, sources, WORDS)
    assert [each.name for each in found] == ["0", "1", "2"]
    for rows, each in zip(vectors, found, strict=True):
        bos = lm.embedding_table[lm.bos_id][None]
        expected = {}
        for number, (before, after) in enumerate(FRAMES):
            pieces = [lm.encode(before), [lm.encode("x")[0]] * len(rows), lm.encode(after)]
            frame = torch.tensor([lm.bos_id, *pieces[0], *pieces[1], *pieces[2]])
            for taken in (0, 1, 2):
                state = states_at(lm, torch.cat([bos, rows])[None], [taken])[0, :, 1:]
                for put in (0, 1):
                    start = 1 + len(pieces[0])
                    ids = continued(lm, lm.embed(frame)[None], state, start, put, WRITTEN)[0]
                    text = lm.decode(ids.tolist()).split("<|endoftext|>")[0]
                    expected[number, taken, put] = text
        texts = {(d.frame, d.taken, d.put): d.text for d in each.descriptions}
        assert texts == expected
        for name, words in WORDS.items():
            shares = [
                sum(bool(re.search(rf"(?<![a-z]){w}s?(?![a-z])", t.lower())) for w in words)
                / len(words)
                for t in expected.values()
            ]
            assert each.best[name] == max(shares)
        named = [d for d in each.descriptions if d.named]
        assert each.named_any == pytest.approx(len(named) / len(expected))


def test_words_that_count():
    found = task_words([" terrible", " very good"], ["negative", "very_positive"], "sentiment")
    assert found == {
        "answers": ["terrible", "very", "good"],
        "classes": ["negative", "very", "positive"],
        "description": ["review", "positive", "negative"],
    }
    assert task_words([" 1"], ["0", "1"], None) == {}


def test_a_word_is_named_as_a_whole(lm: FrozenLM, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(type(lm), "decode", lambda *_: "Reviews: goodness, POSITIVE\nfilm")
    (found,) = in_words(
        lm,
        [Source("prompt", "", torch.ones(1, 16))],
        {"a": ["good", "review"], "b": ["positive", "fil"], "c": ["film"]},
    )
    assert found.best == {"a": 0.5, "b": 0.5, "c": 1.0}
    assert found.descriptions[0].named == ("review", "positive", "film")
    assert found.named_any == 1


@pytest.mark.parametrize("kind", get_args(TaskKind))
def test_no_frame_has_a_word_that_counts(kind: TaskKind):
    words = task_words([], [], kind)["description"]
    assert len(words) >= 2
    said = re.findall(r"[a-z]+", " ".join(map("".join, FRAMES)).lower())
    assert not {*said} & {form for word in words for form in (word, f"{word}s")}


def test_random_controls_have_the_same_norms():
    vectors = torch.arange(12.0).view(3, 4)
    drawn = list(random_like(vectors))
    assert len(drawn) == RANDOM
    for each in drawn:
        assert torch.allclose(each.vectors.norm(dim=1), vectors.norm(dim=1))
    again = next(iter(random_like(vectors)))
    assert torch.equal(again.vectors, drawn[0].vectors)
    assert not torch.equal(drawn[0].vectors, drawn[1].vectors)


def test_layers_of_shallow_models():
    assert grid(2) == ([0, 1, 2], [0, 1])
    assert grid(1) == ([0, 1], [0])
