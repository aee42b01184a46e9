"""Texts' keys and values are kept by text, within a bound, and are the same in any company."""

import logging
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lightning_prompts.files.errors import PromptError
from lightning_prompts.lm.batch import Batch, collate, unpadded, whole_batch
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.lm.passes import text_cache
from lightning_prompts.lm.passes.reuse import encode_texts
from lightning_prompts.lm.passes.text_cache import TextCache, TextStates, encode_blocks
from lightning_prompts.lm.template import Template

LAST, MIDDLE = "{text}{prompt}", "{text}{prompt} It was {text}"
TEXTS = ["A warm and funny film.", "Dull.", "", "No plot, no jokes, no end in sight", "So it is"]


def make_batch(lm: FrozenLM, texts: list[str], template: str = LAST) -> Batch:
    examples = [Template(template, lm).encode({"text": t}) for t in texts]
    return collate(examples, [0] * len(texts), range(len(texts)))


def assert_same(got: TextStates, expected: TextStates) -> None:
    """Equal at tokens; padding holds zeros, which no one sees."""
    assert torch.equal(got.mask, expected.mask)
    seen = expected.mask.bool()[:, None, :, None]
    for pair, reference in zip(got.layers, expected.layers, strict=True):
        for states, wanted in zip(pair, reference, strict=True):
            torch.testing.assert_close(states, wanted * seen, rtol=1e-4, atol=1e-5)


@pytest.fixture
def reads(lm: FrozenLM, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Texts that are computed, a number for each call."""
    found: list[int] = []

    def count(lm: FrozenLM, texts: list[Tensor]) -> list[Tensor]:
        found.append(len(texts))
        return encode_blocks(lm, texts)

    monkeypatch.setattr(text_cache, "encode_blocks", count)
    return found


@pytest.mark.parametrize("bos", [False, True])
def test_states_are_those_of_the_padded_batch(
    lm: FrozenLM, bos: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(lm, "prefix_ids", [lm.bos_id] if bos else [])
    batch, cache = make_batch(lm, TEXTS), TextCache(1.0)
    assert_same(cache(lm, batch), encode_texts(lm, batch))
    assert_same(cache(lm, batch), encode_texts(lm, batch))


def assert_same_in_any_company(
    lm: FrozenLM, texts: list[Tensor], generator: torch.Generator
) -> None:
    """All at once, and seven at a time in another order."""
    together = encode_blocks(lm, texts)
    order = torch.randperm(len(texts), generator=generator).tolist()
    for start in range(0, len(order), 7):
        some = order[start : start + 7]
        for i, states in zip(some, encode_blocks(lm, [texts[i] for i in some]), strict=True):
            assert torch.equal(states, together[i])


def test_states_do_not_depend_on_the_company(lm: FrozenLM):
    """To the last bit: a resumed run meets a text in another batch than the first time."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 40, (60,), generator=generator).tolist()
    texts = [torch.randint(1, 101, (n,), generator=generator) for n in lengths]
    assert_same_in_any_company(lm, texts, generator)


def test_a_text_is_computed_once(lm: FrozenLM, reads: list[int]):
    cache = TextCache(1.0)
    first = cache(lm, make_batch(lm, TEXTS))
    again = cache(lm, make_batch(lm, TEXTS[::-1]))
    assert reads == [5, 0]
    assert torch.equal(first.layers[0][0], again.layers[0][0].flip(0))
    cache(lm, make_batch(lm, ["Dull.", "Dull.", "new", "new"]))
    assert reads[2:] == [1]


def test_what_decides_over_the_numbers_is_part_of_the_key(lm: FrozenLM, reads: list[int]):
    cache, batch = TextCache(1.0), make_batch(lm, TEXTS)
    cache(lm, batch)
    with torch.autocast("cpu", torch.bfloat16):
        kept = cache(lm, batch)
    assert reads == [5, 5]
    assert kept.layers[0][0].dtype == torch.bfloat16


Visit = Callable[[str], bool]


@pytest.fixture
def visit(lm: FrozenLM, reads: list[int]) -> Callable[[float], Visit]:
    """A cache with room for so many texts of one length; whether a text had to be computed."""

    def with_room(count: float) -> Visit:
        cache, probe = TextCache(1.0), TextCache(1.0)
        probe(lm, make_batch(lm, ["aaa"]))
        cache.room = int(count * probe.used)

        def visited(name: str) -> bool:
            cache(lm, make_batch(lm, [3 * name]))
            assert cache.used == sum(s.nbytes for s in cache._kept.values()) <= cache.room
            return reads[-1] > 0

        return visited

    return with_room


def test_the_least_recently_used_text_makes_room(visit: Callable[[float], Visit]):
    visited = visit(2)
    assert [visited(name) for name in "abacab"] == [True, True, False, True, False, True]


def test_a_text_without_room_is_not_kept(visit: Callable[[float], Visit]):
    visited = visit(0.9)
    assert [visited(name) for name in "aba"] == [True, True, True]


def test_off_where_nothing_repeats(lm: FrozenLM, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    probe, cache = TextCache(1.0), TextCache(1.0)
    probe(lm, make_batch(lm, ["aaa"]))
    cache.room = 3 * probe.used
    names = [f"{a}{b}c" for a in "abcde" for b in "abcde"]
    for name in names:
        batch = make_batch(lm, [name])
        assert_same(cache(lm, batch), encode_texts(lm, batch))
    assert cache.room == cache.used == 0
    assert "are kept from now on" in caplog.text


def test_the_numbers_stay_when_nothing_is_kept_any_more(lm: FrozenLM):
    """To the last bit: a resumed run begins with a cache that is on."""
    batch, prompt = make_batch(lm, TEXTS), torch.randn(1, 3, lm.hidden_size)
    lm.text_cache = TextCache(1.0)
    expected = lm.answers(prompt, batch)
    lm.text_cache.room = 0
    lm.text_cache.clear()
    assert torch.equal(lm.answers(prompt, batch), expected)


def test_another_process_gets_no_texts(lm: FrozenLM):
    cache = TextCache(1.0)
    cache(lm, make_batch(lm, TEXTS))
    again = pickle.loads(pickle.dumps(cache))
    assert cache._kept
    assert not again._kept
    assert (again.used, again.room) == (0, cache.room)


@pytest.mark.parametrize("gib", [-1.0, float("inf"), float("nan")])
def test_a_bound_that_is_none(lm_folder: Path, gib: float):
    with pytest.raises(PromptError, match=r"^text_cache is .*; give at least 0"):
        FrozenLM(str(lm_folder), text_cache=gib)


@pytest.mark.slow
@pytest.mark.parametrize("mixed", [False, True])
def test_a_real_model_s_states_do_not_depend_on_the_company(mixed: bool):
    if mixed and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("no instructions for bfloat16: its products take twenty times as long here")
    lm, generator = FrozenLM("smollm2"), torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 60, (14,), generator=generator).tolist()
    texts = [torch.randint(1, 40_000, (n,), generator=generator) for n in lengths]
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        assert_same_in_any_company(lm, texts, generator)


def test_on_where_every_other_text_repeats(lm: FrozenLM):
    probe, cache = TextCache(1.0), TextCache(1.0)
    probe(lm, make_batch(lm, ["aaa"]))
    cache.room = 3 * probe.used
    for name in [f"{a}{b}" for a in "abcde" for b in "abcde"]:
        for end in "cdcd":
            cache(lm, make_batch(lm, [name + end]))
    assert cache.room > 0


@pytest.mark.parametrize("room", [0, 1 << 30])
def test_parts_of_a_batch_find_its_texts(lm: FrozenLM, reads: list[int], room: int):
    """As the rounds of a race do, also where nothing is kept any more."""
    cache, whole = TextCache(1.0), make_batch(lm, TEXTS)
    cache.room = room
    expected = cache(lm, whole)
    for start in (0, 2, 4, 0):
        part = cache(lm, make_batch(lm, TEXTS[start : start + 2]))
        assert_same(part, encode_texts(lm, make_batch(lm, TEXTS[start : start + 2])))
    assert torch.equal(cache(lm, whole).layers[0][0], expected.layers[0][0])
    assert reads == [5, 0, 0, 0, 0, 0]
    cache(lm, make_batch(lm, ["another", TEXTS[0]]))
    cache(lm, make_batch(lm, TEXTS[3:5]))
    assert reads[6:] == ([1, 0] if room else [1, 2])


def test_a_batch_above_the_bound_is_not_held(lm: FrozenLM, reads: list[int]):
    probe, cache = TextCache(1.0), TextCache(1.0)
    batch = make_batch(lm, ["aaa", "bbb"])
    probe(lm, batch)
    for bound, computed in ((probe.used, 0), (probe.used - 1, 2)):
        cache.bound, cache.room = bound, 0
        cache.clear()
        cache(lm, batch)
        cache(lm, batch)
        assert reads[-1] == computed


def test_passes_over_one_batch_do_not_keep_it_on(lm: FrozenLM):
    probe, cache = TextCache(1.0), TextCache(1.0)
    probe(lm, make_batch(lm, ["aaa"]))
    cache.room = 3 * probe.used
    for name in [f"{a}{b}c" for a in "abcde" for b in "abcde"]:
        for _ in range(3):
            cache(lm, make_batch(lm, [name]))
    assert cache.room == cache.used == 0
    cache.renew()
    assert cache.room == 1 << 30


@pytest.mark.parametrize("template", [LAST, MIDDLE])
@pytest.mark.parametrize("shape", ["one prompt", "prompts", "ids", "one row of ids"])
def test_answers_and_gradients_are_those_without_a_cache(lm: FrozenLM, template: str, shape: str):
    batch, generator = make_batch(lm, TEXTS, template), torch.Generator().manual_seed(0)
    count = 1 if shape.startswith("one") else 3
    start = torch.randn(count, 4, lm.hidden_size, generator=generator)
    if shape.endswith("ids"):
        start = torch.randint(1, 101, (count, 4), generator=generator)
    found = []
    for gib in (0.0, 1.0, 1.0):
        lm.text_cache = TextCache(gib)
        for _ in range(2):  # computed, then kept
            prompts = start.clone().requires_grad_(start.is_floating_point())
            got = lm.answers(prompts, batch)
            if start.is_floating_point():
                got.square().sum().backward()
            found.append((got.detach(), prompts.grad))
    for got, grad in found[1:]:
        torch.testing.assert_close(got, found[0][0], rtol=1e-5, atol=1e-5)
        if grad is not None:
            torch.testing.assert_close(grad, found[0][1], rtol=1e-4, atol=1e-5)
    assert torch.equal(found[2][0], found[3][0])


def test_a_cut_text_is_found_by_what_is_left_of_it(lm: FrozenLM):
    """Its key is the text as it was read, so the full one is another."""
    template = Template(LAST, lm)
    long = "No plot, no jokes"
    rows = [template.encode({"text": long}, max_tokens=n) for n in (5, None)]
    assert rows[0].cut
    assert rows[0].before != rows[1].before
    for row in rows:
        batch = collate([row], [0], [0])
        assert_same(lm.text_cache(lm, batch), encode_texts(lm, batch))


def test_a_row_may_stop_within_its_text(lm: FrozenLM, reads: list[int]):
    """As where a pasted prompt merges with the last word: a beginning of what is kept serves."""
    cache, full = TextCache(1.0), make_batch(lm, ["A warm film.", "Dull.", "So it is"])
    part = whole_batch([[*row[:-2], 3] for row in rows_of(full)], full)
    assert part["before_sizes"] == [n - 2 for n in full["before_sizes"]]
    for batch in (part, full, part):  # the whole texts are computed, whichever comes first
        assert_same(cache(lm, batch), encode_texts(lm, batch))
    assert reads == [3, 0, 0]


def rows_of(batch: Batch) -> list[list[int]]:
    return unpadded(batch["before_ids"], batch["before_lengths"])
