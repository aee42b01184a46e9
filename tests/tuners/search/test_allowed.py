"""Filters of tokens and prompts."""

import pytest
import torch

from lightning_prompts.files.errors import PromptError
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.lm.verbalizer import Verbalizer
from lightning_prompts.tuners.search.allowed import Allowed, FilterSettings


def make(lm: FrozenLM, special: bool = True, **kwargs: bool) -> Allowed:
    words = Verbalizer({"0": " bad", "1": " good"}, lm)
    return Allowed(lm, words, FilterSettings(**kwargs), exclude_special=special)


def test_special_tokens_are_excluded_unless_allowed(lm: FrozenLM):
    assert not make(lm).mask[lm.special_ids].any()
    assert make(lm).mask.sum() == lm.vocab_size - len(lm.special_ids)
    assert make(lm, special=False).mask.all()
    assert not make(lm).keeps([9, lm.bos_id, 12])


def test_tokens_by_their_text(lm: FrozenLM, monkeypatch: pytest.MonkeyPatch):
    texts = [lm.decode([i]) for i in range(lm.vocab_size)]
    plain = make(lm, ascii_only=True).mask
    assert plain.tolist() == [
        i not in lm.special_ids and text != "\n" for i, text in enumerate(texts)
    ]
    texts[40:43] = ["é", "Good", " BAD"]
    monkeypatch.setattr(FrozenLM, "token_strings", lambda self, ids: [texts[i] for i in ids])
    assert not make(lm, ascii_only=True).mask[40]
    assert make(lm, ascii_only=True).mask[[41, 42]].all()
    without = make(lm, forbid_verbalizer=True).mask
    assert (~without).nonzero()[:, 0].tolist() == sorted(
        [*lm.special_ids, *lm.encode(" bad"), *lm.encode(" good"), 41, 42]
    )


def test_the_round_trip(lm: FrozenLM):
    (word,) = lm.encode(" bad")
    spelt = [lm.encode(letter)[0] for letter in (" ", "b", "a", "d")]
    assert lm.encode(lm.decode(spelt)) == [word]  # four tokens come back as one
    for round_trip in (True, False):
        allowed = make(lm, round_trip=round_trip)
        assert allowed.keeps([word])
        assert allowed.keeps(spelt) is not round_trip
        assert allowed.keeps(spelt[1:])


def test_a_start_that_does_not_survive_is_mended(lm: FrozenLM, caplog: pytest.LogCaptureFixture):
    spelt = [lm.encode(letter)[0] for letter in "a bad x"]
    spelt[1:1] = [lm.encode(letter)[0] for letter in (" ", "b", "a", "d")]
    caplog.set_level("INFO", logger="lightning_prompts")
    allowed = make(lm)
    assert not allowed.keeps(spelt)
    first, again = (allowed.mend(spelt, torch.Generator().manual_seed(3)) for _ in range(2))
    assert first == again
    assert allowed.keeps(first)
    assert len(first) == len(spelt)
    assert sum(a != b for a, b in zip(first, spelt, strict=True)) < len(spelt) // 2
    assert "starts from" in caplog.text

    caplog.clear()
    assert allowed.mend([9, 12, 30], torch.Generator()) == (9, 12, 30)
    assert make(lm, round_trip=False).mend(spelt, torch.Generator()) == tuple(spelt)
    assert not caplog.text


def test_mending_takes_no_draw_that_makes_it_worse(lm: FrozenLM, monkeypatch: pytest.MonkeyPatch):
    allowed = make(lm)
    shares, places, draws = iter([0.5, 0.2, 0.5, 1.0]), iter([0, 1, 2]), iter([20, 21, 22])
    monkeypatch.setattr(allowed, "_share", lambda ids: next(shares))
    monkeypatch.setattr(allowed, "_damage", lambda ids, share, generator: next(places))
    monkeypatch.setattr(allowed, "_draw", lambda generator: next(draws))
    assert allowed.mend([9, 12, 30], torch.Generator()) == (9, 21, 22)


def test_forbidden_tokens_of_a_start_are_drawn_anew(lm: FrozenLM):
    (word,) = lm.encode(" good")
    for round_trip in (True, False):
        allowed = make(lm, forbid_verbalizer=True, round_trip=round_trip)
        found = allowed.mend([9, word, 12], torch.Generator().manual_seed(0))
        assert (found[0], found[2]) == (9, 12)
        assert found[1] != word
        assert allowed.keeps(found)


def test_what_cannot_be_mended_is_said(lm: FrozenLM, monkeypatch: pytest.MonkeyPatch):
    allowed = make(lm)
    monkeypatch.setattr(FrozenLM, "tokenize", lambda self, texts: [[1] for _ in texts])
    with pytest.raises(PromptError, match=r"No prompt near .*round_trip=False"):
        allowed.mend([9, 12], torch.Generator())


def test_filters_that_leave_nothing_are_refused(lm: FrozenLM, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(FrozenLM, "token_strings", lambda self, ids: ["é" for _ in ids])
    with pytest.raises(PromptError, match="leaves no token"):
        make(lm, ascii_only=True)
