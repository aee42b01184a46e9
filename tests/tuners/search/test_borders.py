"""Where a prompt meets the texts of rows: what merges there is not kept."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from lightning_prompts.files.errors import PromptError
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.lm.template import Template
from lightning_prompts.lm.verbalizer import Verbalizer
from lightning_prompts.tuners.search import borders
from lightning_prompts.tuners.search.allowed import Allowed, FilterSettings
from lightning_prompts.tuners.search.borders import Borders, first_word, last_word

WORDS = {"negative": " bad", "positive": " good"}


def ids_of(lm: FrozenLM, letters: str) -> list[int]:
    """One token a letter, whatever the tokenizer would make of the text."""
    return [lm.encode(letter)[0] for letter in letters]


def survives(lm: FrozenLM, ids: list[int], text: str, rows: list[str]) -> list[bool]:
    """Of each row, by whole strings."""
    template = Template(text, lm)
    examples = [template.encode({"text": row}) for row in rows]
    pasted = template.paste(lm.decode(ids), [(e.before, e.after) for e in examples])
    return [
        whole == [*e.before_ids, *ids, *e.after_ids]
        for whole, e in zip(pasted, examples, strict=True)
    ]


# The tiny tokenizer reads " bad" as one token and all else letter by letter.
ROWS = ["It is b", "so", "a b", "a ba", "x b", "bad", "  b", "It is  b"]


def test_a_start_that_a_rare_row_damages_is_mended(lm: FrozenLM):
    """`_contenders` lets nothing else stand beside it, so it may not either."""
    rows = [f"x{i}y" for i in range(borders.COMMON)] * 2 + ["It is b"]
    allowed = Allowed(lm, Verbalizer(WORDS, lm), FilterSettings())
    allowed.borders = Borders(lm, [(row, "") for row in rows])
    start = ids_of(lm, "adx")
    spelt = [lm.encode(letter)[0] for letter in "adx"]
    assert start == spelt
    assert allowed.keeps(start)
    assert not allowed.pastes(start)
    found = allowed.mend(start, torch.Generator().manual_seed(0))
    assert found != tuple(start)
    assert allowed.keeps(found)
    assert allowed.pastes(found)


@pytest.mark.parametrize("text", ["{text}{prompt}", "{text}{prompt} So", "{prompt}{text}"])
@pytest.mark.parametrize("letters", ["adx", "dxy", "xyz", "ad", "x ", "x b"])
def test_what_holds_at_all_borders_survives_in_all_rows(lm: FrozenLM, text: str, letters: str):
    ids = ids_of(lm, letters)
    expected = survives(lm, ids, text, ROWS)
    template = Template(text, lm)
    texts = [(e.before, e.after) for e in (template.encode({"text": row}) for row in ROWS)]
    for row, one in zip(texts, expected, strict=True):
        assert Borders(lm, [row]).holds(ids, rare=True) == float(one)
    share = Borders(lm, texts).holds(ids, rare=True)
    assert (share == 1.0) == all(expected)


def test_rows_that_end_alike_are_one_border(lm: FrozenLM):
    found = Borders(lm, [("a b", ""), ("x y b", ""), ("so", ""), ("b", "")])
    assert len(found) == 3  # " b" twice, "so", and "b" at the start of a text
    assert found.holds(ids_of(lm, "adx"), rare=True) == pytest.approx(2 / 3)


def test_candidates_are_asked_at_the_frequent_ones(lm: FrozenLM, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(borders, "COMMON", 1)
    allowed = Allowed(lm, Verbalizer(WORDS, lm), FilterSettings())
    allowed.borders = Borders(lm, [("so", ""), ("a b", ""), ("x so", ""), ("y so", "")])
    merging, own = ids_of(lm, "adx"), ids_of(lm, "xyz")
    assert allowed.keeps(merging)
    assert allowed.keeps(own)
    assert not allowed.pastes(merging)
    assert allowed.pastes(own)
    free = Allowed(lm, Verbalizer(WORDS, lm), FilterSettings(round_trip=False))
    free.borders = allowed.borders
    assert free.keeps(merging)
    assert free.pastes(merging)


def test_a_start_that_merges_with_rows_is_mended_at_its_ends(lm: FrozenLM):
    allowed = Allowed(lm, Verbalizer(WORDS, lm), FilterSettings())
    start = ids_of(lm, "adxyz")
    assert allowed.mend(start, torch.Generator()) == tuple(start)
    allowed.borders = Borders(lm, [("a b", "")])
    mended = allowed.mend(start, torch.Generator().manual_seed(1))
    assert mended[1:-1] == tuple(start[1:-1])
    assert mended[0] != start[0]
    assert allowed.keeps(mended)


def test_what_merges_with_every_row_is_said(lm: FrozenLM, monkeypatch: pytest.MonkeyPatch):
    allowed = Allowed(lm, Verbalizer(WORDS, lm), FilterSettings())
    allowed.borders = Borders(lm, [("a", "")])
    monkeypatch.setattr(Borders, "holds", lambda self, ids, rare=False: 0.5)
    with pytest.raises(PromptError, match="between the texts of rows; start from another"):
        allowed.mend(ids_of(lm, "xyz"), torch.Generator())


@pytest.mark.parametrize(
    ("text", "last", "first"),
    [
        ("", "", ""),
        ("one", "one", "one"),
        (" It was", " was", " It"),
        ("a  b ", "  b ", "a"),
        ("  ", "  ", "  "),
        ("a\n\nb", "\n\nb", "a"),
    ],
)
def test_words_at_the_ends(text: str, last: str, first: str):
    assert last_word(text) == last
    assert first_word(text) == first


@pytest.mark.parametrize("text", ["{text}{prompt}", "{prompt} {text} It was", "{prompt}{text}"])
def test_real_rows_and_a_real_tokenizer(shared_data: Path, text: str):
    """GPT-2's own: a border holds exactly where the whole row does, whatever else is in it."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(shared_data / "gpt2_tokenizer")
    lm = SimpleNamespace(tokenizer=tokenizer, decode=tokenizer.decode, prefix_ids=[])
    lm.encode = lambda string: tokenizer(string, add_special_tokens=False).input_ids
    lm.tokenize = lambda strings: list(map(lm.encode, strings))
    lines = (shared_data / "sst2" / "validation.jsonl").read_text().splitlines()[:150]
    rows = [json.loads(line)["text"] for line in lines]
    template = Template(text, lm)
    texts = [(e.before, e.after) for e in (template.encode({"text": row}) for row in rows)]
    generator, seen = torch.Generator().manual_seed(0), set()
    for prompt in (" In one word, it was", ", in short,", "ly made", " 19", "'s", ".", "?!"):
        ids = lm.encode(prompt)
        expected = survives(lm, ids, text, rows)
        for row, one in zip(texts, expected, strict=True):
            assert Borders(lm, [row]).holds(ids, rare=True) == float(one)
        seen.add(all(expected))
    for _ in range(20):
        ids = torch.randint(50_000, (3,), generator=generator).tolist()
        if lm.encode(lm.decode(ids)) == ids:
            whole = Borders(lm, texts).holds(ids, rare=True)
            assert (whole == 1.0) == all(survives(lm, ids, text, rows))
    assert seen == {True, False} or "{prompt} " in text
