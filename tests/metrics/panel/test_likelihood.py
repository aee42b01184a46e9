"""Likelihood beside natural stretches and shuffled tokens, against whole rows in float64."""

from weakref import WeakKeyDictionary

import pytest
import torch

from lightning_prompts.files.sentences import Registers
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.metrics.panel import likelihood
from lightning_prompts.metrics.panel.likelihood import (
    Unmeasured,
    draw,
    grammar,
    natural_percentile,
    shuffles,
    stretches,
)
from lightning_prompts.metrics.scrutability import row_nats, token_nats

from .conftest import Exact


def share_below(own: float, others: list[float]) -> float:
    points = [1.0 if o > own + 1e-9 else 0.5 if abs(o - own) <= 1e-9 else 0.0 for o in others]
    return sum(points) / len(points)


@pytest.mark.parametrize("most", [1, 40, 10_000])
def test_nats_of_rows_whatever_is_read_at_once(
    lm: FrozenLM, exact: Exact, monkeypatch: pytest.MonkeyPatch, most: int
):
    monkeypatch.setattr("lightning_prompts.metrics.scrutability.TOKENS_AT_ONCE", most)
    rows = [exact.ids(text) for text in (" a film", "", "Dull!", " a film", "x")]
    got = row_nats(lm, rows)
    assert got.tolist() == pytest.approx([exact.nats(row) for row in rows], abs=1e-4)
    assert got[0] == got[3]
    assert got.dtype == torch.float64
    assert row_nats(lm, []).tolist() == []


@pytest.mark.parametrize("text", [" great film", "e", "eeee", "zq!x"])
def test_percentile_among_natural_stretches(
    lm: FrozenLM, exact: Exact, registers: Registers, text: str
):
    ids = exact.ids(text)
    found = draw(lm, len(ids), registers)
    expected = 100 * share_below(exact.nats(ids), [exact.nats(stretch) for stretch in found])
    assert natural_percentile(lm, ids) == pytest.approx(expected)


def test_stretches_are_of_the_sentences(lm: FrozenLM, exact: Exact, registers: Registers):
    """By the definition alone: half begin a sentence, half stand inside, none leaves a register."""
    length = 45  # longer than most sentences
    found = draw(lm, length, registers)
    assert len(found) == sum(map(len, registers))  # each sentence once
    circles = [" ".join([*register, *register]) for register in registers]
    starts = {sentence for register in registers for sentence in register}
    begun = []
    for place, ids in enumerate(found):
        assert len(ids) == length
        text = lm.decode(ids)
        assert sum(text in circle for circle in circles) == 1
        begun.append(any(text.startswith(s[:length]) for s in starts if text[:2] == s[:2]))
        if place % 2 == 0:
            assert begun[-1]
    assert sum(begun) < 0.7 * len(begun)
    assert draw(lm, length, registers) == found


def test_no_more_stretches_than_a_thousand(
    lm: FrozenLM, registers: Registers, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(likelihood, "MOST_STRETCHES", 7)
    assert len(draw(lm, 3, registers)) == 7


def test_a_natural_stretch_counts_half_for_itself(lm: FrozenLM, monkeypatch: pytest.MonkeyPatch):
    sentence = "So the river sang."
    monkeypatch.setattr("lightning_prompts.files.sentences.registers", lambda: ((sentence,),))
    assert natural_percentile(lm, lm.encode(sentence)[:6]) == 50


def test_stretches_are_read_once_for_four_lengths(
    lm: FrozenLM, exact: Exact, registers: Registers, monkeypatch: pytest.MonkeyPatch
):
    calls: list[int] = []

    def read(lm: FrozenLM, rows: list[list[int]]) -> list[torch.Tensor]:
        calls.append(len(rows))
        return token_nats(lm, rows)

    monkeypatch.setattr(likelihood, "token_nats", read)
    monkeypatch.setattr(likelihood, "_known", WeakKeyDictionary())
    for text in ("abcdefg", "gfedcba", "abcdefgh", "edcba", "abcdefghgf"):
        natural_percentile(lm, lm.encode(text))
    assert calls == [90, 90]
    # Each is a stretch of its own length, and its nats are its own.
    for length in (5, 8):
        found, nats = stretches(lm, length, registers)
        assert found == draw(lm, length, registers)
        assert nats.tolist() == pytest.approx([exact.nats(ids) for ids in found], abs=1e-4)


@pytest.mark.parametrize("text", ["Dull and long", " great film", "ab"])
def test_grammar_among_shuffles(lm: FrozenLM, exact: Exact, text: str):
    ids = exact.ids(text)
    others = [exact.nats(row) for row in shuffles(ids, 32)]
    assert grammar(lm, ids) == pytest.approx(share_below(exact.nats(ids), others))


@pytest.mark.parametrize("text", ["e", "eeeeee"])
def test_where_there_is_no_order_grammar_is_chance(lm: FrozenLM, text: str):
    assert grammar(lm, lm.encode(text)) == 0.5


def test_shuffles_are_other_orders():
    ids = list(range(12))
    found = shuffles(ids, 32)
    assert all(sorted(row) == ids for row in found)
    assert len({tuple(row) for row in found}) == 32
    assert shuffles([], 2) == [[], []]


@pytest.mark.parametrize("measure", [natural_percentile, grammar])
def test_what_cannot_be_read(measure, lm: FrozenLM, short: FrozenLM, monkeypatch):
    with pytest.raises(Unmeasured, match=r"no token$"):
        measure(lm, [])
    with pytest.raises(Unmeasured, match="no row for a token"):
        measure(lm, [lm.vocab_size])
    with pytest.raises(Unmeasured, match=r"has 65 tokens, and short.* 64 positions"):
        measure(short, [5] * 65)
    monkeypatch.setattr("lightning_prompts.files.sentences.registers", lambda: ())
    with pytest.raises(Unmeasured, match="can read none of the sentences"):
        natural_percentile(lm, [5])
