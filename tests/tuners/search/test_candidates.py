"""Edits are what they are called, and their tokens come from where they should."""

import copy

import pytest
import torch
import torch.nn.functional as F

from lightning_prompts.files.errors import PromptError
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.tuners.search.allowed import Allowed, FilterSettings, Ids
from lightning_prompts.tuners.search.candidates import (
    KINDS,
    EditSettings,
    Proposer,
    first_order,
    next_logits,
)

PROMPT = (9, 30, 12, 50)
NEVER = 1e-12


def only(kind: str, **kwargs: float) -> EditSettings:
    """One kind of edit; a search always replaces tokens, if ever so seldom."""
    return EditSettings(**dict.fromkeys(KINDS, NEVER) | {kind: 1.0} | kwargs)


def make(
    lm: FrozenLM,
    task,
    settings: EditSettings,
    beam: tuple[Ids, ...] = (PROMPT,),
    lengths: tuple[int, int] = (2, 6),
    **filters: bool,
) -> Proposer:
    gradient = torch.randn(len(beam[0]), lm.hidden_size, generator=torch.Generator().manual_seed(1))
    allowed = Allowed(lm, task.verbalizer, FilterSettings(**filters))
    return Proposer(lm, beam, gradient, settings, allowed, lengths)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# ---- where tokens come from


def test_first_order_is_the_slope_of_every_single_substitution(lm: FrozenLM, task):
    """By differences in float64, along the line from the token's row to each other row."""
    model = copy.deepcopy(lm.model).double()
    table = model.get_input_embeddings().weight.detach()
    text, words, label = lm.encode("No plot"), [lm.encode(" bad")[0], lm.encode(" good")[0]], 1

    def loss(prompts: torch.Tensor) -> torch.Tensor:
        """[K, P, H] to [K]."""
        rows = torch.cat([prompts, table[text].expand(len(prompts), -1, -1)], dim=1)
        logits = model(inputs_embeds=rows).logits[:, -1, words]
        targets = torch.full((len(prompts),), label)
        return F.cross_entropy(logits, targets, reduction="none")

    rows = table[list(PROMPT)].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(rows[None])[0], rows)
    falls = first_order(gradient.float(), lm.embedding_table)
    assert falls.shape == (len(PROMPT), lm.vocab_size)
    assert falls.dtype == torch.float32
    step = 1e-5
    with torch.no_grad():
        for place, token in enumerate(PROMPT):
            moved = torch.zeros(lm.vocab_size, len(PROMPT), lm.hidden_size, dtype=torch.float64)
            moved[:, place] = table - table[token]
            both = [loss(rows + sign * step * moved) for sign in (1, -1)]
            slope = (both[0] - both[1]) / (2 * step)
            ours = (falls[place, token] - falls[place]).double()
            torch.testing.assert_close(ours, slope, rtol=1e-3, atol=1e-5)


def test_the_gradients_tokens_are_its_best(lm: FrozenLM, task):
    settings = only("substitute", proposals=0.0, gradient_top_k=3)
    proposer = make(lm, task, settings)
    gradient = torch.randn(4, lm.hidden_size, generator=generator(1))
    falls = -(gradient @ lm.embedding_table.T)
    falls[:, lm.special_ids] = -torch.inf
    best = [set(row.argsort(descending=True)[:3].tolist()) for row in falls]
    seen = [set() for _ in PROMPT]
    for edited in (proposer._edit(generator(i)) for i in range(300)):
        for place, token in enumerate(edited):
            if token != PROMPT[place]:
                seen[place].add(token)
    assert seen == [tokens - {PROMPT[place]} for place, tokens in enumerate(best)]
    assert proposer.num_tokens == 0


def test_next_logits(lm: FrozenLM):
    ids = torch.tensor([PROMPT, (7, 8, 9, 10)])
    found = next_logits(lm, ids)
    whole = torch.cat([torch.full((2, 1), lm.bos_id), ids], dim=1)
    torch.testing.assert_close(found, lm.model(whole).logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["substitute", "insert"])
def test_the_models_tokens_follow_from_the_left_context(lm: FrozenLM, task, kind: str):
    """With one token to choose from, it is the likeliest after BOS and what stands before it."""
    proposer = make(lm, task, only(kind, proposals=1.0, model_top_k=1), round_trip=False)
    logits = lm.model(torch.tensor([[lm.bos_id, *PROMPT]])).logits[0]
    logits[:, lm.special_ids] = -torch.inf
    likeliest = logits.argmax(-1).tolist()
    expected = set()
    for place in range(len(PROMPT) + (kind == "insert")):
        edited = list(PROMPT)
        edited[place : place + (kind == "substitute")] = [likeliest[place]]
        expected.add(tuple(edited))
    assert {proposer._edit(generator(i)) for i in range(200)} == expected
    assert proposer.num_tokens == len(PROMPT) + 1


def test_the_models_tokens_come_by_their_probability(lm: FrozenLM, task):
    settings = only("substitute", proposals=1.0, model_top_k=4, temperature=2.0)
    proposer = make(lm, task, settings, beam=((9,),), lengths=(1, 1))
    logits = lm.model(torch.tensor([[lm.bos_id]])).logits[0, 0].double()
    logits[lm.special_ids] = -torch.inf
    best = logits.topk(4)
    shares = (best.values / 2.0).softmax(-1)
    draws, source = 2000, generator()
    drawn = [proposer._edit(source)[0] for _ in range(draws)]
    for token, share in zip(best.indices.tolist(), shares.tolist(), strict=True):
        error = (share * (1 - share) / draws) ** 0.5
        assert drawn.count(token) / draws == pytest.approx(share, abs=4 * error)
    assert set(drawn) <= set(best.indices.tolist())


def test_proposals_is_a_share(lm: FrozenLM, task):
    settings = only("substitute", proposals=0.25, model_top_k=1, gradient_top_k=1)
    # The gradient's tokens go to the first prompt, the model's to any: the second has only those.
    proposer = make(lm, task, settings, beam=(PROMPT, (70, 71, 72)), lengths=(3, 4))
    source = generator()
    second = sum(len(proposer._edit(source)) == 3 for _ in range(2000))
    assert second / 2000 == pytest.approx(0.125, abs=4 * (0.125 * 0.875 / 2000) ** 0.5)


# ---- edits


def is_edit(kind: str, edited: Ids, prompt: Ids) -> bool:
    if kind in ("substitute", "substitute_two"):
        changed = [a != b for a, b in zip(edited, prompt, strict=True)]
        return sum(changed) == (1 if kind == "substitute" else 2)
    if kind == "swap":
        places = [i for i, (a, b) in enumerate(zip(edited, prompt, strict=True)) if a != b]
        return len(places) == 2 and sorted(edited) == sorted(prompt)
    longer, shorter = (edited, prompt) if kind == "insert" else (prompt, edited)
    cut = [longer[:i] + longer[i + 1 :] for i in range(len(longer))]
    return len(longer) == len(shorter) + 1 and shorter in cut


@pytest.mark.parametrize("proposals", [0.0, 1.0])
@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_what_it_is_called(lm: FrozenLM, task, kind: str, proposals: float):
    proposer = make(lm, task, only(kind, proposals=proposals), round_trip=False)
    found = [proposer._edit(generator(i)) for i in range(200)]
    others = {edited for edited in found if edited != PROMPT}
    # A drawn token may be the one that was there already.
    assert len(others) > (3 if kind in ("delete", "swap") else 20)
    expected = [is_edit(kind, edited, PROMPT) for edited in others]
    assert sum(expected) > 0.95 * len(others) if kind == "substitute_two" else all(expected)
    if kind == "swap":
        assert len(others) == 6
    if kind == "delete":
        assert len(others) == 4
    if kind == "insert":  # also before the first and behind the last token
        assert any(edited[1:] == PROMPT for edited in others)
        assert any(edited[:-1] == PROMPT for edited in others)


@pytest.mark.parametrize("lengths", [(4, 4), (3, 5), (1, 4)])
def test_lengths_stay_within_their_bounds(lm: FrozenLM, task, lengths: tuple[int, int]):
    beam = (PROMPT, PROMPT[: lengths[0]]) if lengths[0] < 4 else (PROMPT,)
    proposer = make(lm, task, EditSettings(insert=9.0, delete=9.0), beam, lengths)
    found = {len(ids) for ids in proposer.draw(300, generator())}
    assert found == set(range(lengths[0], lengths[1] + 1))


def test_one_token_is_substituted_whatever_is_asked(lm: FrozenLM, task):
    settings = EditSettings(substitute=0, insert=0, delete=0)
    proposer = make(lm, task, settings, beam=((9,),), lengths=(1, 1))
    assert all(len(ids) == 1 for ids in proposer.draw(20, generator()))


# ---- drawing


def test_candidates_are_new_distinct_and_follow_from_the_generator(lm: FrozenLM, task):
    beam = (PROMPT, (9, 30, 12), (60, 61, 62, 63, 64))
    proposer = make(lm, task, EditSettings(), beam)
    first, again, other = (proposer.draw(64, generator(seed)) for seed in (5, 5, 6))
    assert first == again != other
    assert len(first) == len(set(first)) == 64
    assert not set(first) & set(beam)


def test_only_what_the_filters_keep(lm: FrozenLM, task):
    spelt = tuple(lm.encode(letter)[0] for letter in (" ", "b", "a"))
    last = lm.encode("d")[0]
    # Each insertion behind the last token spells the word, which is one token.
    settings = only("insert", proposals=0.0, gradient_top_k=1)
    for round_trip in (True, False):
        allowed = Allowed(lm, task.verbalizer, FilterSettings(round_trip=round_trip))
        gradient = -lm.embed(torch.tensor([last] * 3)) * 1e3
        proposer = Proposer(lm, [spelt], gradient, settings, allowed, (3, 4))
        found = proposer.draw(8, generator())
        token = first_order(gradient, lm.embedding_table)[0].argmax().item()
        assert token == last
        assert ((*spelt, last) in found) is not round_trip
        assert all(allowed.keeps(ids) for ids in found)


def test_fewer_are_fine_where_there_are_no_more(lm: FrozenLM, task):
    proposer = make(lm, task, only("delete", proposals=0.0), round_trip=False)
    assert len(proposer.draw(50, generator())) == 4
    nothing = make(lm, task, EditSettings())
    nothing.allowed.keeps = lambda ids: False
    assert nothing.draw(5, generator()) == []


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"proposals": 1.5}, "proposals is 1.5"),
        ({"gradient_top_k": 0}, "gradient_top_k is 0"),
        ({"model_top_k": 0}, "model_top_k is 0"),
        ({"temperature": 0.0}, "temperature is 0.0"),
        ({"swap": -1.0}, "swap is -1.0"),
        ({"substitute": 0.0, "substitute_two": 0.0}, "no token would ever be replaced"),
    ],
)
def test_numbers_out_of_range_are_refused(options: dict[str, float], named: str):
    with pytest.raises(PromptError, match=named):
        EditSettings(**options).check()
