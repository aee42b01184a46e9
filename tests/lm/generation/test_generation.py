"""Sampling in trees against one sequence at a time, and what is cut from the outputs."""

from pathlib import Path

import pytest
import torch

from lightning_prompts.files.errors import PromptError
from lightning_prompts.lm.batch import collate
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.lm.generation import sampling as generation
from lightning_prompts.lm.generation.sampling import (
    TransferBatch,
    clean,
    sample_texts,
    token_limit,
    uniforms,
)
from lightning_prompts.lm.kernels import ATTENTION
from lightning_prompts.lm.template import Template

TEXTS = ("the food was cold.", "no!", "we waited for an hour and nobody came to us")
PROMPTS = torch.tensor([[10, 20, 30, 40], [7, 8, 9, 11], [60, 61, 62, 63]])


def batch_of(
    lm: FrozenLM, texts: tuple[str, ...], template: str = '{prompt} "{text}" "'
) -> TransferBatch:
    made = Template(template, lm)
    batch = collate(
        [made.encode({"text": t}) for t in texts], [1] * len(texts), range(5, 5 + len(texts))
    )
    references = [[] for _ in texts]
    return TransferBatch(**batch, sources=list(texts), references=references)


def one_by_one(
    lm: FrozenLM, prompt: torch.Tensor, batch: TransferBatch, b: int, n: int, seed: int, top_k: int
) -> list[str]:
    """The plain way: each sample by itself, the whole sequence anew for each token."""
    before = batch["before_ids"][b, : batch["before_lengths"][b]].tolist()
    after = batch["after_ids"][b, : batch["after_lengths"][b]].tolist()
    limit = token_limit(len(lm.encode(batch["sources"][b])))
    noise = uniforms(seed, int(batch["rows"][b]), n, limit)
    texts = []
    for sample in range(n):
        new: list[int] = []
        while len(new) < limit:
            ids = torch.tensor([before + prompt.tolist() + after + new])
            logits = lm.model(input_ids=ids, use_cache=False).logits[0, -1].double()
            best = logits.topk(top_k)
            shares = best.values.softmax(-1).tolist()
            left, chosen = float(noise[sample, len(new)]), top_k - 1
            for i, share in enumerate(shares):
                if left < share:
                    chosen = i
                    break
                left -= share
            new.append(int(best.indices[chosen]))
            if new[-1] in lm.special_ids or set('".!?') & set(lm.decode(new[-1:])):
                break
        # What ends a sample is no part of its text where it is a special token.
        texts.append(lm.decode([token for token in new if token not in lm.special_ids]))
    return texts


@pytest.fixture(scope="module", params=["gpt2", "llama", "eager"])
def some_lm(
    request: pytest.FixtureRequest, lm_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> FrozenLM:
    """GPT-2; Llama with shared key heads and rotary positions; eager attention."""
    if request.param == "gpt2":
        return FrozenLM(str(lm_folder))
    if request.param == "eager":
        return FrozenLM(str(lm_folder), attn_implementation="eager")
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("tiny_llama")
    tokenizer = AutoTokenizer.from_pretrained(lm_folder)
    tokenizer.save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        initializer_range=0.3,
        bos_token_id=0,
        eos_token_id=0,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder)
    return FrozenLM(str(folder))


def test_trees_write_what_single_sequences_write(some_lm: FrozenLM, monkeypatch) -> None:
    monkeypatch.setattr(
        generation, "TREE_SAMPLES", 4
    )  # several trees a pair, one with one too many
    batch = batch_of(some_lm, TEXTS)
    pairs = [(0, 0), (1, 2), (2, 1), (1, 1)]
    found = sample_texts(some_lm, PROMPTS, batch, pairs, 7, seed=3, top_k=3)
    for (k, b), texts in zip(pairs, found, strict=True):
        assert texts == one_by_one(some_lm, PROMPTS[k], batch, b, 7, 3, top_k=3)
    assert len({text for texts in found for text in texts}) > 15
    assert some_lm.model.config._attn_implementation in (ATTENTION, "eager")  # as it was


@pytest.mark.parametrize("template", ['"{text}"{prompt} "', '{text}:{prompt} or "{text}" "'])
def test_other_templates(lm: FrozenLM, template: str) -> None:
    batch = batch_of(lm, TEXTS, template)
    pairs = [(0, 0), (1, 2)]
    found = sample_texts(lm, PROMPTS, batch, pairs, 3, seed=0, top_k=4)
    for (k, b), texts in zip(pairs, found, strict=True):
        assert texts == one_by_one(lm, PROMPTS[k], batch, b, 3, 0, top_k=4)


def test_samples_do_not_depend_on_their_company(lm: FrozenLM) -> None:
    batch = batch_of(lm, TEXTS)
    pairs = [(k, b) for k in range(3) for b in range(3)]
    together = sample_texts(lm, PROMPTS, batch, pairs, 5, seed=1)
    in_chunks = sample_texts(lm, PROMPTS, batch, pairs, 5, seed=1, cached_tokens=200)
    assert in_chunks == together
    for i, pair in enumerate(pairs):
        assert sample_texts(lm, PROMPTS, batch, [pair], 5, seed=1) == [together[i]]
    alone = batch_of(lm, TEXTS[2:])
    alone["rows"] = batch["rows"][2:]
    assert sample_texts(lm, PROMPTS[1:2], alone, [(0, 0)], 5, seed=1) == [together[5]]
    assert sample_texts(lm, PROMPTS, batch, pairs, 5, seed=2) != together


def test_first_tokens_have_the_model_s_probabilities(lm: FrozenLM) -> None:
    batch = batch_of(lm, TEXTS[:1])
    texts = sample_texts(lm, PROMPTS[:1], batch, [(0, 0)], 4000, seed=0, top_k=5)[0]
    ids = torch.cat([PROMPTS[0], batch["after_ids"][0]])[None]
    best = lm.model(input_ids=ids).logits[0, -1].topk(5)
    first = [lm.encode(text)[0] for text in texts]
    counts = torch.tensor([first.count(int(i)) for i in best.indices])
    assert int(counts.sum()) == 4000  # and nothing but the top k
    expected = 4000 * best.values.softmax(-1)
    assert (
        (counts - expected).square() / expected
    ).sum() < 18.5  # chi-square, 4 degrees, p = 0.001


def test_samples_end_where_nothing_more_counts(lm: FrozenLM) -> None:
    batch = batch_of(lm, TEXTS)
    pairs = [(k, b) for k in range(3) for b in range(3)]
    ended = 0
    for (_, b), texts in zip(pairs, sample_texts(lm, PROMPTS, batch, pairs, 8, 0), strict=True):
        for text in texts:
            tokens = lm.encode(text)
            assert 1 <= len(tokens) <= token_limit(len(lm.encode(TEXTS[b])))
            assert not set('".!?') & set(lm.decode(tokens[:-1]))
            ended += len(tokens) < token_limit(len(lm.encode(TEXTS[b])))
    assert ended > 10


def test_autocast_keeps_the_logits_exact(lm: FrozenLM, monkeypatch) -> None:
    """Candidates come from bfloat16, the numbers from float32: the same top k and shares."""
    hidden = torch.randn(6, 16, generator=torch.Generator().manual_seed(0)) * 5
    with torch.autocast("cpu", torch.bfloat16):
        rough = generation._rough_head(lm)
        assert rough is not None
        assert rough.dtype == torch.bfloat16
        found = generation._top_shares(lm, hidden, 3, rough)
    best = lm.logits(hidden).topk(3)
    assert torch.equal(found[1], best.indices)
    torch.testing.assert_close(found[0], best.values.double().softmax(-1).cumsum(-1))
    assert generation._rough_head(lm) is None
    batch = batch_of(lm, TEXTS)
    with torch.autocast("cpu", torch.bfloat16):
        texts = sample_texts(lm, PROMPTS, batch, [(0, 0)], 4, 0)
    assert all(texts[0])


def test_no_room_to_write(lm: FrozenLM) -> None:
    batch = batch_of(lm, ("x" * 249,))  # 249 + 4 quotes and spaces ... and 4 of the prompt
    with pytest.raises(PromptError, match="leaves no room to write in the 256 positions"):
        sample_texts(lm, PROMPTS, batch, [(0, 0)], 2, 0)
    batch = batch_of(lm, ("x" * 240,))  # room for a few tokens, fewer than the published limit
    texts = sample_texts(lm, PROMPTS, batch, [(0, 0)], 8, 0)[0]
    assert max(len(lm.encode(text)) for text in texts) <= 256 - int(batch["num_tokens"]) - 4


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        (' The food was GREAT! I will come back." she', "the food was great!"),
        ('no "quote. yes', "no"),
        ("  Is it? Yes. ", "is it?"),
        ("a.b", "a."),
        ('"', ""),
        ("", ""),
        (" !", "!"),
        ("Never ends \n here", "never ends \n here"),
    ],
)
def test_clean(text: str, cleaned: str) -> None:
    assert clean(text) == cleaned


def test_token_limit_is_the_published_one() -> None:
    for n in range(1, 80):
        assert token_limit(n) == int(max(1.5 * n, n + 10))


def test_uniforms_follow_from_seed_and_row() -> None:
    a = uniforms(1, 2, 3, 4)
    assert a.shape == (3, 4)
    assert torch.equal(a, uniforms(1, 2, 3, 4))
    assert not torch.equal(a, uniforms(1, 3, 3, 4))
    assert not torch.equal(a, uniforms(2, 2, 3, 4))
