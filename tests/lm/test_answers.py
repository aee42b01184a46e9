"""Answers of several tokens against each of them appended to each row, alone, in float64."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lightning_prompts.lm.answers import AnswerScore
from lightning_prompts.lm.batch import Batch, collate
from lightning_prompts.lm.class_scores import class_scores, without_text
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.lm.template import Template
from lightning_prompts.lm.verbalizer import Verbalizer, Words
from tests.answers import one_by_one

TEXTS = ["A warm and funny film.", "Dull.", "No plot, no jokes", ""]
FIRST, LAST, BOTH, SHARED = (
    "{prompt} {text} It was",
    "{text}{prompt}",
    "So: {text}{prompt} It was {text}",
    "So:{prompt} {text}",
)
# Phrases that share their beginning; several answers of different lengths a class, one of them the
# beginning of another; several of one token.
VERBALIZERS: list[Words] = [
    {"0": " it is no", "1": " it is yes"},
    {"0": [" bad", "no", "none"], "1": [" great", " good cast"], "2": "yes"},
    {"0": [" bad", " terrible"], "1": " good"},
]
SCORES: tuple[AnswerScore, ...] = ("sum", "mean", "pmi")
IDS = [[5, 6, 7], [5, 6, 9], [8, 6, 7]]


@pytest.fixture(scope="module")
def double_lm(lm_folder: Path) -> FrozenLM:
    return FrozenLM(str(lm_folder)).double()


def make_batch(template: Template, texts: list[str] = TEXTS) -> Batch:
    examples = [template.encode(dict.fromkeys(template.columns, text)) for text in texts]
    return collate(examples, [i % 2 for i in range(len(texts))], range(len(texts)))


def assert_same_scores(got: Tensor, expected: Tensor, words: Verbalizer) -> None:
    """Equal; where all answers are of one token, but for what all classes share."""
    if words.tree is None:
        got, expected = got.log_softmax(-1), expected.log_softmax(-1)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("text", [FIRST, LAST, BOTH, SHARED])
@pytest.mark.parametrize("words", VERBALIZERS)
def test_every_way_scores_as_one_answer_at_a_time(
    double_lm: FrozenLM, words: Words, text: str, monkeypatch: pytest.MonkeyPatch
):
    lm, template = double_lm, Template(text, double_lm)
    ids, batch = torch.tensor(IDS), make_batch(template)
    expected = one_by_one(lm, template, words, lm.embed(ids), TEXTS)
    for score in SCORES:
        verbalizer = Verbalizer(words, lm, score)
        for reuse in (True, False):
            monkeypatch.setattr(lm, "reuse_prompt", reuse)
            for prompts in (ids, lm.embed(ids), ids[:1], lm.embed(ids[:1])):
                got = class_scores(lm, template, verbalizer, prompts, batch)
                assert_same_scores(got, expected[score][: len(prompts)], verbalizer)


@pytest.mark.parametrize("masks", [True, False])
@pytest.mark.parametrize("text", [FIRST, LAST, BOTH])
def test_gradients_are_those_of_one_answer_at_a_time(
    double_lm: FrozenLM, text: str, masks: bool, monkeypatch: pytest.MonkeyPatch
):
    lm, template = double_lm, Template(text, double_lm)
    monkeypatch.setattr(lm, "ways", lm.ways._replace(block_masks=masks))
    start, batch = lm.embed(torch.tensor(IDS[:1])), make_batch(template)
    words, reference = VERBALIZERS[1], start.clone().requires_grad_()
    expected = one_by_one(lm, template, words, reference, TEXTS)
    for score in SCORES:
        own = start.clone().requires_grad_()
        got = class_scores(lm, template, Verbalizer(words, lm, score), own, batch)
        gradients = [
            torch.autograd.grad(s.log_softmax(-1)[..., 1].sum(), of, retain_graph=True)[0]
            for s, of in ((got, own), (expected[score], reference))
        ]
        torch.testing.assert_close(*gradients, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_other_attention_and_texts_that_are_not_kept(lm_folder: Path, attention):
    lm = FrozenLM(str(lm_folder), attn_implementation=attention, text_cache=0.0).double()
    words, ids = VERBALIZERS[0], torch.tensor(IDS)
    for text in (FIRST, LAST):
        template = Template(text, lm)
        expected = one_by_one(lm, template, words, lm.embed(ids), TEXTS)["sum"]
        got = class_scores(lm, template, Verbalizer(words, lm), ids, make_batch(template))
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


def test_one_token_answers_are_the_logits_of_their_tokens_to_the_bit(lm: FrozenLM):
    verbalizer = Verbalizer({"0": " bad", "1": " great"}, lm)
    for text in (FIRST, LAST):
        template = Template(text, lm)
        batch, prompts = make_batch(template), lm.embed(torch.tensor(IDS))
        got = class_scores(lm, template, verbalizer, prompts, batch)
        expected = lm.logits(lm.answers(prompts, batch), torch.tensor(verbalizer.token_ids))
        assert torch.equal(got, expected)


def test_texts_are_read_once_and_answers_behind_them(lm: FrozenLM, monkeypatch: pytest.MonkeyPatch):
    read: list[int] = []
    body = type(lm).body.fget
    assert body is not None

    def counting(model: FrozenLM):
        def run(**kwargs):
            given = kwargs.get("inputs_embeds", kwargs.get("input_ids"))
            read.append(given.shape[0] * given.shape[1])
            return body(model)(**kwargs)

        return run

    monkeypatch.setattr(type(lm), "body", property(counting))
    template = Template(FIRST, lm)
    batch, prompt = make_batch(template), lm.embed(torch.tensor(IDS[0]))
    verbalizer = Verbalizer(VERBALIZERS[0], lm)
    lm.answer_hidden(prompt, batch)
    plain = sum(read)
    read.clear()
    lm.answer_hidden(prompt, batch, verbalizer.tree)
    # " it is " is shared: 7 characters, then "n" and "y", "ye".
    assert verbalizer.num_read == 7 + 1 + 2
    assert sum(read) == plain + len(TEXTS) * verbalizer.num_read
    # Where no mask can tell the answers apart each is a row, and not each of its beginnings.
    read.clear()
    monkeypatch.setattr(lm, "ways", lm.ways._replace(block_masks=False))
    lm.answer_hidden(prompt, batch, verbalizer.tree)
    length = batch["after_ids"].shape[1] + verbalizer.tree.depth
    assert read == [len(prompt), len(TEXTS) * 2 * length]


def test_the_row_without_a_text_has_a_token_at_least(lm: FrozenLM):
    batch = without_text(lm, Template(LAST, lm), 0)
    assert batch["before_ids"].tolist() == [[lm.bos_id]]
    assert batch["num_tokens"] == 1
    batch = without_text(lm, Template(FIRST, lm), 0)
    assert lm.decode(batch["after_ids"][0].tolist()) == "  It was"


def test_answers_in_16_bits_are_near_those_in_32(lm: FrozenLM, monkeypatch: pytest.MonkeyPatch):
    half, template = copy.deepcopy(lm).bfloat16(), Template(FIRST, lm)
    monkeypatch.setattr("lightning_prompts.lm.answers.HEAD_ROWS", 40)
    verbalizer, batch = Verbalizer(VERBALIZERS[0], lm), make_batch(template)
    prompts = torch.tensor(IDS)
    expected = class_scores(lm, template, verbalizer, prompts, batch)
    got = class_scores(half, template, verbalizer, prompts, batch)
    assert got.dtype == torch.float32
    assert (got - expected).abs().max() < 0.02 * expected.abs().max()


# ---- real data

PHRASES: dict[str, tuple[str, Words]] = {
    "agnews": (
        "{prompt} {text} Topic:",
        {"0": " World news", "1": " Sports", "2": " Business", "3": " Science and Technology"},
    ),
    "boolq": (
        "{passage}{prompt} Question: {question}?",
        {"0": " the answer is no", "1": " the answer is yes"},
    ),
}


def rows_of(folder: Path, name: str, count: int) -> list[dict[str, str]]:
    import gzip

    with gzip.open(folder / name / "test.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = (json.loads(line) for line in lines)
        short = (row for row in rows if len(json.dumps(row)) < 700)
        return [dict(row) for row, _ in zip(short, range(count), strict=False)]


class RowsAsTexts(Template):
    """A template whose rows are named by their number, for `one_by_one`."""

    rows: dict[str, dict[str, str]]

    def encode(self, row, *args, **kwargs):  # type: ignore[no-untyped-def]
        return super().encode(self.rows.get(next(iter(row.values())), row), *args, **kwargs)


def real_scores(lm: FrozenLM, folder: Path, count: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Scores of phrases on real rows, and the same one answer at a time in float64."""
    exact = copy.deepcopy(lm).double()
    prompts = torch.tensor([lm.encode(text)[:4] for text in (" What is this?", " What was that?")])
    for name, (text, words) in PHRASES.items():
        rows = rows_of(folder, name, count)
        templates = RowsAsTexts(text, lm), RowsAsTexts(text, exact)
        for template in templates:
            template.rows = {str(i): row for i, row in enumerate(rows)}
        numbers = list(templates[0].rows)
        expected = one_by_one(exact, templates[1], words, exact.embed(prompts), [*numbers, ""])
        batch = make_batch(templates[0], numbers)
        for score in SCORES:
            verbalizer = Verbalizer(words, lm, score)
            got = class_scores(lm, templates[0], verbalizer, prompts, batch)
            yield got, expected[score][:, :-1]


@torch.no_grad()
def test_phrases_on_real_rows(tmp_path: Path, shared_data: Path):
    from tests.tiny import save_model

    save_model(tmp_path, positions=1024, characters="\u00e9")
    lm = FrozenLM(str(tmp_path))
    for got, expected in real_scores(lm, shared_data, 3):
        assert_close(got, expected)


@pytest.mark.slow
@pytest.mark.usefixtures("smollm2_installed")
@torch.no_grad()
def test_phrases_of_a_real_model_on_real_rows(shared_data: Path):
    for got, expected in real_scores(FrozenLM("smollm2"), shared_data, 2):
        assert_close(got, expected)


def assert_close(got: Tensor, expected: Tensor) -> None:
    """Equal as far as float32 goes."""
    torch.testing.assert_close(got.double(), expected, rtol=1e-4, atol=2e-4)
