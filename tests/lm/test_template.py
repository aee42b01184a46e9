"""Templates: pieces, truncation, pasting, batches, and what is refused."""

import random
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from transformers import AutoTokenizer

from lightning_prompts.files.errors import PromptError
from lightning_prompts.lm.batch import Batch, Example, collate, piece_order, unpadded, whole_batch
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.lm.template import Template


def test_pieces_are_the_strings_on_each_side(lm: FrozenLM):
    example = Template("{prompt} {text} It was", lm).encode({"text": "Fun {x}"})
    assert (example.before, example.after) == ("", " Fun {x} It was")
    assert example.before_ids == []
    assert lm.decode(example.after_ids) == " Fun {x} It was"
    assert not example.cut


def test_bos_heads_the_first_piece(lm: FrozenLM, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lm, "prefix_ids", [lm.bos_id])
    assert Template("{prompt} {text}", lm).encode({"text": "x"}).before_ids == [lm.bos_id]
    example = Template("{text}{prompt}", lm).encode({"text": "ab"})
    assert example.before_ids == [lm.bos_id, *lm.encode("ab")]


def test_columns_and_order(lm: FrozenLM):
    template = Template("{passage} {question}?{prompt} {passage}", lm)
    assert template.columns == ("passage", "question")
    assert not template.shared_before
    assert Template("Read:{prompt} {text}", lm).shared_before


def test_any_name_of_a_column_is_only_a_name(lm: FrozenLM):
    template = Template("{Review Text}: {answer.text} {{x}}{prompt} {text.__class__}", lm)
    assert template.columns == ("Review Text", "answer.text", "text.__class__")
    row = {"Review Text": "{0}", "answer.text": "yes", "text.__class__": "no"}
    example = template.encode(row)
    assert (example.before, example.after) == ("{0}: yes {x}", " no")
    cut = template.encode(row, max_tokens=14, truncate="answer.text")
    assert cut.before == "{0}: ye {x}"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("{text} It was", "0 {prompt}"),
        ("{prompt}{text}{prompt}", "2 {prompt}"),
        ("{text} {prompt}", "'{text}{prompt}'"),
        ("{text}\n{prompt} It", "white space"),
        ("{prompt} It was", "no column"),
        ("{prompt} {0}", "no column name"),
        ("{prompt} {text[0]}", "no column name"),
        ("{prompt} { text}", "no column name"),
        ("{prompt} {text", "not a format string"),
        ("{prompt} {text:>9}", "not a format string"),
    ],
)
def test_bad_templates_are_refused(lm: FrozenLM, text: str, named: str):
    with pytest.raises(PromptError) as caught:
        Template(text, lm)
    assert named in str(caught.value)


def test_the_longest_column_is_cut_from_its_end(lm: FrozenLM):
    template = Template("{passage} {question}?{prompt}", lm)
    row = {"passage": "abcdefgh", "question": "why"}
    example = template.encode(row, max_tokens=10)
    assert example.before == "abcde why?"
    assert len(example.before_ids) == 10
    assert example.cut
    assert template.encode(row, max_tokens=13) == template.encode(row)


def test_a_character_of_several_tokens_is_cut_whole(shared_data: Path):
    """GPT-2's byte pairs: an ideograph is three tokens with the same span."""
    tokenizer = AutoTokenizer.from_pretrained(shared_data / "gpt2_tokenizer")

    class Bytes:
        prefix_ids: ClassVar[list[int]] = []

        def encode(self, text: str) -> list[int]:
            return tokenizer(text).input_ids

        def offsets(self, text: str) -> list[tuple[int, int]]:
            return tokenizer(text, return_offsets_mapping=True)["offset_mapping"]

    template = Template("{text}{prompt}", Bytes())
    text = "a \u9f8d\u9f98 b"
    whole = len(template.encode({"text": text}).before_ids)
    for most in range(2, whole):
        example = template.encode({"text": text}, max_tokens=most)
        assert text.startswith(example.before)
        assert len(example.before_ids) <= most
        assert example.cut


def test_the_named_column_is_cut(lm: FrozenLM):
    template = Template("{prompt} {passage} {question}?", lm)
    row = {"passage": "abc", "question": "why not this"}
    example = template.encode(row, max_tokens=16, truncate="passage")
    assert example.after == " a why not this?"
    with pytest.raises(PromptError, match="'passage'"):
        template.encode(row, max_tokens=14, truncate="passage")


def test_paste_tokenizes_the_whole_string(lm: FrozenLM):
    template = Template("{prompt} {text} It was", lm)
    pasted = template.paste("ab", [("", " good It was")])
    assert pasted == [lm.encode("ab good It was")]
    # " bad" is one token of this tokenizer, so a border can merge.
    assert template.paste(" ", [("", "bad")]) == [lm.encode(" bad")]
    assert len(lm.encode(" bad")) == 1


def test_collate_pads_right_and_knows_what_is_shared(lm: FrozenLM):
    first = Template("{prompt}{text}", lm)
    batch = collate([first.encode({"text": t}) for t in ("a", "bcd")], [1, 0], [5, 6])
    a, b, c, d = (lm.encode(x)[0] for x in "abcd")
    assert batch["after_ids"].tolist() == [[a, 0, 0], [b, c, d]]
    assert batch["after_lengths"].tolist() == [1, 3]
    assert batch["before_ids"].shape == (2, 0)
    assert batch["labels"].tolist() == [1, 0]
    assert batch["rows"].tolist() == [5, 6]
    assert batch["texts"] == [("", "a"), ("", "bcd")]
    assert batch["shared_before"]
    last = Template("{text}{prompt}", lm)
    assert not collate([last.encode({"text": t}) for t in "ab"], [0, 0], [0, 1])["shared_before"]


def test_piece_order_closes_the_gaps(lm: FrozenLM):
    template = Template("{text}{prompt}{other}", lm)
    rows = [{"text": "ab", "other": "wxyz"}, {"text": "cdefg", "other": "w"}]
    batch = collate([template.encode(row) for row in rows], [0, 0], [0, 1])
    order, lengths = piece_order(batch, 2)
    prompt = torch.tensor([[-1, -2]]).expand(2, -1)
    padded = torch.cat([batch["before_ids"], prompt, batch["after_ids"]], dim=1)
    closed = padded.gather(1, order)
    for line, length, row in zip(closed.tolist(), lengths.tolist(), rows, strict=True):
        expected = [*lm.encode(row["text"]), -1, -2, *lm.encode(row["other"])]
        assert line[:length] == expected


def test_the_longest_row_counts_and_not_the_padding(lm: FrozenLM):
    template = Template("{text}{prompt}{other}", lm)
    rows = [{"text": "abcdefg", "other": "x"}, {"text": "a", "other": "xyz"}]
    batch = collate([template.encode(row) for row in rows], [0, 0], [0, 1])
    assert batch["num_tokens"] == 8
    order, lengths = piece_order(batch, 2)
    assert order.shape == (2, 10)
    assert lengths.tolist() == [10, 6]


def test_padding_is_counted_out(lm: FrozenLM):
    template = Template("{text}{prompt}{other}", lm)
    rows = [{"text": "abcdefg", "other": "x"}, {"text": "a", "other": "xyz"}]
    batch = collate([template.encode(row) for row in rows], [0, 0], [0, 1])
    assert batch["num_real_tokens"] == 12
    assert batch["min_after"] == 1


def test_whole_batch_keeps_labels_and_rows(lm: FrozenLM):
    template = Template("{text}{prompt}", lm)
    like = collate([template.encode({"text": t}) for t in ("a", "bc")], [1, 0], [3, 4])
    batch = whole_batch([[5, 6], [7]], like)
    assert joined(batch) == [[5, 6], [7]]
    assert batch["labels"].tolist() == [1, 0]


def drawn_batch(rng: random.Random, shared: bool) -> Batch:
    """One to five rows of up to four tokens on each side, of two tokens, so that many agree."""
    sides = [[[rng.choice((5, 6)) for _ in range(rng.randrange(5))] for _ in "ab"]]
    while len(sides) < rng.randint(1, 5):
        before, after = ([rng.choice((5, 6)) for _ in range(rng.randrange(5))] for _ in "ab")
        sides.append([sides[0][0] if shared else before, after])
    examples = [Example("", "", before, after, False) for before, after in sides]
    return collate(examples, range(len(sides)), range(len(sides)))


def joined(batch: Batch) -> list[list[int]]:
    before = unpadded(batch["before_ids"], batch["before_lengths"])
    after = unpadded(batch["after_ids"], batch["after_lengths"])
    return [left + right for left, right in zip(before, after, strict=True)]


def beginning(row: list[int], other: list[int]) -> int:
    return max(n for n in range(len(row) + 1) if row[:n] == other[:n])


def test_whole_rows_stand_apart_as_far_as_they_are_shared():
    """Against every possible beginning, over random rows: some begin as the batch's own, some not.

    Kept are what rows begin with of their own pieces, where that shortens the longest row, or the
    longest beginning of all that leaves each row a token.
    """
    rng = random.Random(0)
    own_kept = own_cut = shared_found = 0
    for turn in range(900):
        like = drawn_batch(rng, shared=turn % 3 == 0)
        own = unpadded(like["before_ids"], like["before_lengths"])
        rows = []
        for start in own:
            rest = [rng.choice((5, 6)) for _ in range(rng.randint(1, 4))]
            rows.append((start if turn % 2 else []) + rest)
        batch = whole_batch(rows, like)
        before = unpadded(batch["before_ids"], batch["before_lengths"])
        assert joined(batch) == rows
        assert batch["before_sizes"] == batch["before_lengths"].tolist()
        assert batch["min_after"] == min(batch["after_lengths"].tolist()) > 0
        assert batch["shared_before"] == all(start == before[0] for start in before)
        assert (batch["num_tokens"], batch["num_real_tokens"]) == (
            max(map(len, rows)),
            sum(map(len, rows)),
        )
        sizes = [min(beginning(r, t), len(r) - 1) for r, t in zip(rows, own, strict=True)]
        left = max(len(row) - n for row, n in zip(rows, sizes, strict=True))
        if not like["shared_before"] and left < max(map(len, rows)):
            own_kept += 1
            own_cut += before != own
            assert before == [row[:n] for row, n in zip(rows, sizes, strict=True)]
        else:
            lengths = [
                n for n in range(min(map(len, rows))) if all(row[:n] == rows[0][:n] for row in rows)
            ]
            shared_found += max(lengths) > 0
            assert before == [rows[0][: max(lengths)]] * len(rows)
    assert own_kept > 50
    assert own_cut > 20
    assert shared_found > 50


@pytest.mark.parametrize("text", ["{prompt}{text} It", "{text}{prompt}", "{text}{prompt} It"])
def test_whole_rows_are_read_as_they_are(lm: FrozenLM, text: str):
    """Whatever stands before the empty prompt, the states are those of the rows alone."""
    template = Template(text, lm)
    like = collate([template.encode({"text": t}) for t in ("ab", "abcd", "q")], [0] * 3, range(3))
    rows = template.paste("xyz", like["texts"])
    batch = whole_batch(rows, like)
    assert batch["before_ids"].shape[1] > 0
    got = lm.answer_hidden(lm.embedding_table[:0], batch)
    for row, hidden in zip(rows, got, strict=True):
        alone = lm.model.base_model(input_ids=torch.tensor([row]), use_cache=False)[0][0, -1]
        torch.testing.assert_close(hidden, alone, rtol=1e-4, atol=1e-5)
