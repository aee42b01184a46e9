"""What is encoded once and reused gives what whole sequences give, one a (prompt, example) pair."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
)

from lightning_prompts.lm.answers import AnswerTree
from lightning_prompts.lm.batch import Batch, collate
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.lm.passes import reuse as prefix_reuse
from lightning_prompts.lm.passes.masks import takes_block_masks
from lightning_prompts.lm.template import Template

TEXTS = ["A warm and funny film.", "Dull.", "", "No plot, no jokes, no end in sight"]
FIRST, LAST, MIDDLE, SHARED = (
    "{prompt} {text} It was",
    "{text}{prompt}",
    "{text}{prompt} It was {text}",
    "So:{prompt} {text}",
)
TEMPLATES = [FIRST, LAST, MIDDLE, SHARED]
P = 3
KINDS = [f"{m}-{a}" for m in ("gpt2", "rotary") for a in ("auto", "sdpa", "eager")]
WINDOW = 8  # tokens that a layer of Mistral sees here: fewer than most texts have


SIZES = {
    "vocab_size": 101,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,  # keys are shared by heads, as in SmolLM2
    "max_position_embeddings": 256,
    "initializer_range": 0.2,
}


def saved(model: Callable[[], PreTrainedModel], lm_folder: Path, folder: Path) -> Path:
    """A model with random weights, saved with the tiny model's tokenizer."""
    shutil.copytree(lm_folder, folder, dirs_exist_ok=True)
    (folder / "model.safetensors").unlink()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def rotary_folder(lm_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved LlamaForCausalLM."""
    config = LlamaConfig(**SIZES)
    return saved(lambda: LlamaForCausalLM(config), lm_folder, tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def windowed_folder(lm_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved MistralForCausalLM whose layers see a window of the latest tokens."""
    config = MistralConfig(**SIZES, sliding_window=WINDOW)
    return saved(lambda: MistralForCausalLM(config), lm_folder, tmp_path_factory.mktemp("mistral"))


@pytest.mark.parametrize("gib", [0.0, 1.0])
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("text", TEMPLATES)
@pytest.mark.parametrize("attention", ["auto", "eager"])
def test_layers_that_see_a_window(
    windowed_folder: Path, attention: str, text: str, count: int, gib: float
):
    lm = FrozenLM(str(windowed_folder), attn_implementation=attention, text_cache=gib)
    prompts = random_prompts(lm, count)
    expected = one_by_one(lm, prompts, text)
    for _ in range(2):  # computed, then kept
        assert_close(lm.answers(prompts, make_batch(lm, text)), expected)


@pytest.fixture(scope="module", params=KINDS)
def lm(request, lm_folder: Path, rotary_folder: Path) -> FrozenLM:
    """A model of its own; GPT-2 in float64, where differences are mistakes and not rounding.

    Llama normalises, and in eager attention takes its softmax, in float32 whatever its type.
    """
    kind, attention = request.param.split("-")
    folder = {"gpt2": lm_folder, "rotary": rotary_folder}[kind]
    lm = FrozenLM(str(folder), attn_implementation=attention, text_cache=0)
    return lm.double() if kind == "gpt2" else lm


def assert_close(got: Tensor, expected: Tensor) -> None:
    tolerance = 1e-9 if got.dtype == torch.float64 else 1e-5
    torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance)


def make_batch(lm: FrozenLM, text: str) -> Batch:
    examples = [Template(text, lm).encode({"text": t}) for t in TEXTS]
    return collate(examples, [0] * len(TEXTS), range(len(TEXTS)))


def random_prompts(lm: FrozenLM, count: int) -> Tensor:
    generator = torch.Generator().manual_seed(count)
    prompts = torch.randn(count, P, lm.hidden_size, generator=generator)
    return prompts.to(lm.embedding_table.dtype)


def one_by_one(lm: FrozenLM, prompts: Tensor, text: str) -> Tensor:
    """[K, B, H] through the whole model, a pair at a time, without padding or cache."""
    before, after = text.split("{prompt}")
    rows = []
    for prompt in prompts:
        for value in TEXTS:
            pieces = [lm.encode(piece.format(text=value)) for piece in (before, after)]
            ends = [lm.embed(torch.tensor(ids, dtype=torch.long)) for ids in pieces]
            whole = torch.cat([ends[0], prompt, ends[1]])[None]
            out = lm.model(inputs_embeds=whole, output_hidden_states=True, use_cache=False)
            rows.append(out.hidden_states[-1][0, -1])
    return torch.stack(rows).view(len(prompts), len(TEXTS), -1)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, lm: FrozenLM) -> Iterator[list[int]]:
    """Tokens of each pass through the model, filled while a test runs."""
    found: list[int] = []

    def count(module, args, kwargs):
        given = kwargs["input_ids"] if "input_ids" in kwargs else kwargs["inputs_embeds"]
        found.append(given.shape[0] * given.shape[1])

    hook = lm.model.base_model.register_forward_pre_hook(count, with_kwargs=True)
    yield found
    hook.remove()


@pytest.mark.parametrize("count", [1, 2, 16])
@pytest.mark.parametrize("text", TEMPLATES)
def test_answers_are_those_of_whole_sequences(lm: FrozenLM, text: str, count: int):
    prompts = random_prompts(lm, count)
    got = lm.answers(prompts, make_batch(lm, text))
    assert_close(got, one_by_one(lm, prompts, text))


@pytest.mark.parametrize("text", TEMPLATES)
def test_without_reuse_too(lm: FrozenLM, text: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lm, "reuse_prompt", False)
    prompts = random_prompts(lm, 3)
    got = lm.answers(prompts, make_batch(lm, text))
    assert_close(got, one_by_one(lm, prompts, text))


@pytest.mark.parametrize(("tokens", "block"), [(1, 512), (2**13, 1), (70, 10)])
@pytest.mark.parametrize("reuse", [True, False])
@pytest.mark.parametrize("text", TEMPLATES)
def test_parts_join_in_order(
    lm: FrozenLM,
    text: str,
    reuse: bool,
    tokens: int,
    block: int,
    calls: list[int],
    monkeypatch: pytest.MonkeyPatch,
):
    prompts, batch = random_prompts(lm, 7), make_batch(lm, text)
    monkeypatch.setattr(lm, "reuse_prompt", reuse)
    whole = lm.answers(prompts, batch)
    before = len(calls)
    monkeypatch.setattr(prefix_reuse, "TOKENS_AT_ONCE", tokens)
    monkeypatch.setattr(prefix_reuse, "BLOCK_TOKENS", block)
    got = lm.answers(prompts, batch)
    divided = tokens < 2**13 or (reuse and text in (LAST, MIDDLE))
    assert (len(calls) - before > before) is divided
    assert_close(got, whole)


def test_attention_that_takes_no_block_masks(lm: FrozenLM, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(prefix_reuse, "takes_block_masks", lambda lm: False)
    masks = []

    def see(module, args, kwargs):
        masks.append(kwargs.get("attention_mask"))

    hook = lm.model.base_model.register_forward_pre_hook(see, with_kwargs=True)
    prompts = random_prompts(lm, 3)
    got = lm.answers(prompts, make_batch(lm, MIDDLE))
    hook.remove()
    assert len(masks) == 4  # the texts, then prompt by prompt
    assert all(mask.ndim == 2 for mask in masks)
    assert_close(got, one_by_one(lm, prompts, MIDDLE))


@pytest.mark.parametrize("text", TEMPLATES)
def test_each_shared_piece_is_encoded_once(lm: FrozenLM, text: str, calls: list[int]):
    batch = make_batch(lm, text)
    num_before, num_after = batch["before_ids"].shape[1], batch["after_ids"].shape[1]
    lm.answers(random_prompts(lm, 16), batch)
    rows = len(TEXTS)
    if text in (LAST, MIDDLE):
        expected = [rows * num_before, rows * 16 * (P + num_after)]
    else:
        expected = [16 * (num_before + P), 16 * rows * num_after]
    if expected[1] < 2**13 and 16 * (P + num_after) < 512:
        assert calls == expected
    else:  # in parts, which hold the same tokens together
        assert sum(calls) == sum(expected)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("text", TEMPLATES)
def test_gradients_reach_every_prompt(lm: FrozenLM, text: str, count: int):
    start = random_prompts(lm, count)
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(count, len(TEXTS), lm.hidden_size, generator=generator)
    own, reference = start.clone().requires_grad_(), start.clone().requires_grad_()
    (lm.answers(own, make_batch(lm, text)) * weights).sum().backward()
    (one_by_one(lm, reference, text) * weights).sum().backward()
    assert (reference.grad.abs().amax((1, 2)) > 1e-3).all()
    assert_close(own.grad, reference.grad)


@pytest.mark.parametrize("answers", [None, [(5,), (5, 6), (7, 8, 9)]])
@pytest.mark.parametrize("attention", ["auto", "eager"])
@pytest.mark.parametrize("folder", ["lm_folder", "rotary_folder", "windowed_folder"])
def test_no_prompt_behind_kept_texts(folder, attention: str, answers, request):
    """Of a text whose keys and values are kept, the last token alone is read."""
    path = str(request.getfixturevalue(folder))
    lm = FrozenLM(path, attn_implementation=attention, text_cache=1.0)
    plain = FrozenLM(path, attn_implementation=attention, reuse_prompt=False)
    texts = [text for text in TEXTS if text] + ["So"]
    examples = [Template(LAST, lm).encode({"text": text}) for text in texts]
    batch = collate(examples, [0] * len(texts), range(len(texts)))
    tree = None if answers is None else AnswerTree(answers)
    nothing = lm.embedding_table[:0][None]
    expected = plain.answers(nothing, batch, tree)
    assert_close(lm.answers(nothing, batch, tree), expected)
    read: list[int] = []
    hook = lm.body.register_forward_pre_hook(
        lambda module, args, given: read.append(given["inputs_embeds"].shape[1]), with_kwargs=True
    )
    assert_close(lm.answers(nothing, batch, tree), expected)
    hook.remove()
    # Where block masks are not taken, answers are rows of their own.
    assert read[0] == (1 if tree is None or takes_block_masks(lm) else 1 + tree.depth)
    assert lm.text_cache.num_texts == len(texts)


# ---- prompts as token ids, of which those that begin alike are read together


BRANCHES = [[7, 9, 30], [7, 9, 31], [7, 50, 30], [7, 9, 30], [12, 9, 30], [7, 7, 7]]


@pytest.mark.parametrize(
    "rows", [BRANCHES, BRANCHES[:1], BRANCHES[:1] * 4], ids=["branches", "one", "equal"]
)
@pytest.mark.parametrize("text", TEMPLATES)
def test_answers_to_ids_are_those_of_whole_sequences(
    lm: FrozenLM, text: str, rows: list[list[int]]
):
    ids = torch.tensor(rows)
    got = lm.answers(ids, make_batch(lm, text))
    assert_close(got, one_by_one(lm, lm.embed(ids), text))
    apart = torch.cdist(got[:, 0], got[:, 0]) > 1e-3  # other prompts, other answers
    assert torch.equal(apart, (ids[:, None] != ids).any(-1))


@pytest.mark.parametrize("text", [LAST, MIDDLE])
def test_equal_beginnings_are_read_once(
    lm: FrozenLM, text: str, calls: list[int], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(prefix_reuse, "BLOCK_TOKENS", 512)  # all in one block
    ids, batch = torch.tensor(BRANCHES), make_batch(lm, text)
    beginnings = {tuple(row[: i + 1]) for row in BRANCHES for i in range(P)}
    lm.answers(ids, batch)
    after = len(BRANCHES) * batch["after_ids"].shape[1]
    assert calls[-1] == len(TEXTS) * (len(beginnings) + after)
    assert len(calls) == 2


@pytest.mark.parametrize(("tokens", "block"), [(1, 512), (2**13, 1), (2**13, 40)])
@pytest.mark.parametrize("text", TEMPLATES)
def test_parts_of_ids_join_in_order(
    lm: FrozenLM, text: str, tokens: int, block: int, monkeypatch: pytest.MonkeyPatch
):
    ids, batch = torch.tensor(BRANCHES), make_batch(lm, text)
    monkeypatch.setattr(prefix_reuse, "TOKENS_AT_ONCE", tokens)
    monkeypatch.setattr(prefix_reuse, "BLOCK_TOKENS", block)
    assert_close(lm.answers(ids, batch), one_by_one(lm, lm.embed(ids), text))


@pytest.mark.parametrize("text", TEMPLATES)
def test_ids_without_reuse(lm: FrozenLM, text: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lm, "reuse_prompt", False)
    ids = torch.tensor(BRANCHES)
    got = lm.answers(ids, make_batch(lm, text))
    assert_close(got, one_by_one(lm, lm.embed(ids), text))


def test_ids_where_attention_takes_no_block_masks(lm: FrozenLM, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(prefix_reuse, "takes_block_masks", lambda lm: False)
    ids = torch.tensor(BRANCHES)
    got = lm.answers(ids, make_batch(lm, MIDDLE))
    assert_close(got, one_by_one(lm, lm.embed(ids), MIDDLE))
