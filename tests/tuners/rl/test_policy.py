"""RLPrompt's policy: what learns, where it starts, and what it may write."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_prompts.files.errors import PromptError
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.tuners.rl.policy import Policy, PolicySettings
from lightning_prompts.tuners.rl.soft_q import action_values

P = 4
SOURCE = "In short, it was"


def make(
    lm: FrozenLM, length: int = P, forbidden: bool = True, seed: int = 0, **settings: Any
) -> Policy:
    chosen = PolicySettings(**({"source_text": SOURCE, "mlp_size": 32, "top_k": 8} | settings))
    return Policy(chosen, lm, length, lm.special_ids if forbidden else (), seed)


def moved(policy: Policy, seed: int = 0) -> Policy:
    """With an MLP that has learned something, so that it says other things than its target."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.mlp.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return policy


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def teacher_forced(lm: FrozenLM, tokens: Tensor, source: str = SOURCE) -> tuple[Tensor, Tensor]:
    """[K, P, H] states before each token and [K, P, V] logits, by whole sequences, no cache."""
    start = [lm.bos_id, *lm.encode(source)]
    ids = torch.cat([torch.tensor(start).expand(len(tokens), -1), tokens], dim=1)
    out = lm.model(ids, output_hidden_states=True, use_cache=False)
    places = slice(len(start) - 1, -1)
    return out.hidden_states[-1][:, places], out.logits[:, places]


# ---- what learns


@pytest.mark.parametrize("start", ["zero", "lm"])
def test_only_the_mlp_gets_gradients(lm: FrozenLM, start: str):
    policy = moved(make(lm, start=start))
    sampled = policy.sample(lm, 3, seeded())
    assert not sampled.hidden.requires_grad
    log_p, _ = action_values(policy(lm, sampled.hidden), sampled.token_ids)
    log_p.sum().backward()
    learning = {name for name, p in policy.named_parameters() if p.requires_grad}
    assert learning == {"mlp.0.weight", "mlp.0.bias", "mlp.2.weight", "mlp.2.bias"}
    for name, parameter in policy.named_parameters():
        has_gradient = parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)
        assert has_gradient is (name in learning)
    assert all(parameter.grad is None for parameter in lm.parameters())


@pytest.mark.parametrize("start", ["zero", "lm"])
def test_a_checkpoint_of_it_has_both_networks_and_nothing_else(lm: FrozenLM, start: str):
    weights = {f"{i}.{name}" for i in (0, 2) for name in ("weight", "bias")}
    keys = make(lm, start=start).state_dict().keys()
    assert keys == {f"{part}.{name}" for part in ("mlp", "target") for name in weights}


def test_the_published_mlp(lm: FrozenLM):
    policy = make(lm, start="zero", mlp_size=2048)
    first, relu, last = policy.mlp
    assert first.weight.shape == (2048, lm.hidden_size)
    assert isinstance(relu, torch.nn.ReLU)
    assert last.weight.shape == (lm.hidden_size, 2048)
    bound = 1e-4 * math.sqrt(6 / (2048 + lm.hidden_size))  # Xavier uniform
    for layer in (first, last):
        assert 0.9 * bound < layer.weight.abs().max() <= bound
        assert (layer.bias == -1e-4).all()


def test_its_first_weights_follow_the_seed(lm: FrozenLM):
    weights = [make(lm, seed=seed).mlp[0].weight for seed in (0, 0, 1)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_the_target_follows_by_polyak(lm: FrozenLM):
    policy = make(lm)
    hidden = torch.randn(2, P, lm.hidden_size, generator=seeded())
    assert torch.equal(policy(lm, hidden), policy(lm, hidden, target=True))
    before = [p.clone() for p in policy.target.parameters()]
    moved(policy)
    assert not torch.allclose(policy(lm, hidden), policy(lm, hidden, target=True))
    own = [p.detach().clone() for p in policy.mlp.parameters()]
    for _ in range(2):
        policy.update_target(0.25)
    expected = [0.75 * (0.75 * t + 0.25 * m) + 0.25 * m for t, m in zip(before, own, strict=True)]
    for got, wanted in zip(policy.target.parameters(), expected, strict=True):
        torch.testing.assert_close(got, wanted)
    assert all(torch.equal(a, b) for a, b in zip(policy.mlp.parameters(), own, strict=True))
    policy.update_target(1.0)
    for got, wanted in zip(policy.target.parameters(), own, strict=True):
        torch.testing.assert_close(got, wanted)


# ---- where it starts


def test_start_lm_is_the_language_model(lm: FrozenLM):
    policy = make(lm, start="lm", top_k=101)
    sampled = policy.sample(lm, 5, seeded())
    own = policy(lm, sampled.hidden)
    _, logits = teacher_forced(lm, sampled.token_ids)
    allowed = [i for i in range(lm.vocab_size) if i not in lm.special_ids]
    expected = logits[..., allowed].log_softmax(-1)
    torch.testing.assert_close(own.log_softmax(-1)[..., allowed], expected, rtol=1e-4, atol=1e-5)
    assert own[..., lm.special_ids].isneginf().all()
    torch.testing.assert_close(policy.prior(lm, sampled), own)
    assert not torch.allclose(moved(policy)(lm, sampled.hidden), own)
    torch.testing.assert_close(policy.prior(lm, sampled), own)  # stays the language model's


def test_start_zero_is_nearly_uniform(lm: FrozenLM):
    policy = make(lm, start="zero", forbidden=False)
    hidden = policy.sample(lm, 5, seeded()).hidden
    shares = policy(lm, hidden).softmax(-1)
    torch.testing.assert_close(shares, torch.full_like(shares, 1 / 101), rtol=1e-3, atol=0)
    lm_shares = policy.prior(lm, policy.sample(lm, 5, seeded())).softmax(-1)
    assert lm_shares.max() > 0.05


@pytest.mark.parametrize("start", ["zero", "lm"])
def test_q_values_by_their_formula(lm: FrozenLM, start: str):
    policy = moved(make(lm, start=start, logit_bias=-10.0))
    hidden = torch.randn(2, 3, lm.hidden_size, generator=seeded())
    first, _, last = policy.mlp
    changed = (hidden @ first.weight.T + first.bias).clamp(min=0) @ last.weight.T + last.bias
    if start == "lm":
        changed = hidden + changed
    expected = changed @ lm.embedding_table.T - 10.0
    got = policy(lm, hidden)
    torch.testing.assert_close(got[..., 1:], expected[..., 1:], rtol=1e-4, atol=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(policy(lm, hidden), got)


# ---- what it writes


@pytest.mark.parametrize("source", ["", SOURCE])
@pytest.mark.parametrize("count", [1, 6])
def test_states_are_those_of_a_whole_forward_pass(lm: FrozenLM, source: str, count: int):
    policy = moved(make(lm, source_text=source))
    sampled = policy.sample(lm, count, seeded())
    assert sampled.token_ids.shape == (count, P)
    hidden, _ = teacher_forced(lm, sampled.token_ids, source)
    torch.testing.assert_close(sampled.hidden, hidden, rtol=1e-4, atol=1e-5)


def test_given_prompts_are_read(lm: FrozenLM):
    tokens = torch.randint(1, 101, (3, P), generator=seeded())
    read = make(lm).read(lm, tokens)
    assert torch.equal(read.token_ids, tokens)
    torch.testing.assert_close(read.hidden, teacher_forced(lm, tokens)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("start", ["zero", "lm"])
def test_every_token_is_among_the_best(lm: FrozenLM, start: str):
    policy = moved(make(lm, start=start, top_k=5))
    sampled = policy.sample(lm, 200, seeded())
    best = policy(lm, sampled.hidden).topk(5).indices  # (K, P, 5)
    assert (best == sampled.token_ids[..., None]).any(-1).all()
    assert len(sampled.token_ids.unique(dim=0)) > 50


def test_every_token_is_among_the_language_model_s_own_best(lm: FrozenLM):
    policy = moved(make(lm, top_k=50, fluent_top_k=4))
    sampled = policy.sample(lm, 200, seeded())
    likely = policy.prior(lm, sampled).topk(4).indices
    assert (likely == sampled.token_ids[..., None]).any(-1).all()
    free = moved(make(lm, top_k=50)).sample(lm, 200, seeded())
    likely = policy.prior(lm, free).topk(4).indices
    assert not (likely == free.token_ids[..., None]).any(-1).all()
    greedy = policy.greedy(lm)[None]
    likely = policy.prior(lm, policy.read(lm, greedy)).topk(4).indices
    assert (likely == greedy[..., None]).any(-1).all()


def test_forbidden_tokens_are_never_written(lm: FrozenLM):
    likely = [0, 7, 8, 9]

    def favours(policy: Policy) -> Policy:
        """Makes four tokens by far the likeliest, whatever the state."""
        with torch.no_grad():
            policy.mlp[2].bias.copy_(lm.embedding_table[likely].sum(0) * 20)
        return policy

    settings = PolicySettings(mlp_size=8, top_k=101)
    free = favours(Policy(settings, lm, P)).sample(lm, 50, seeded()).token_ids
    policy = favours(Policy(settings, lm, P, forbidden=likely))
    held = policy.sample(lm, 50, seeded()).token_ids
    assert torch.isin(free, torch.tensor(likely)).any()
    assert not torch.isin(held, torch.tensor(likely)).any()
    assert not torch.isin(policy.greedy(lm), torch.tensor(likely)).any()


def test_samples_follow_the_generator_alone(lm: FrozenLM):
    policy = moved(make(lm))
    first = policy.sample(lm, 8, seeded(3)).token_ids
    torch.manual_seed(99)
    state = torch.get_rng_state()
    again = policy.sample(lm, 8, seeded(3)).token_ids
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, again)
    assert not torch.equal(first, policy.sample(lm, 8, seeded(4)).token_ids)


def test_samples_follow_the_truncated_softmax(lm: FrozenLM):
    """Pearson's statistic of 20,000 draws among five tokens, 4 degrees of freedom."""
    policy = make(lm, length=1, top_k=5)
    sampled = policy.sample(lm, 20_000, seeded())
    best = policy(lm, sampled.hidden[0, 0]).topk(5)
    counts = (sampled.token_ids[:, 0, None] == best.indices).sum(0)
    assert counts.sum() == 20_000
    expected = 20_000 * best.values.softmax(0)
    assert expected.max() > 1.5 * expected.min()  # a uniform draw would not pass
    assert ((counts - expected).square() / expected).sum() < 18.5  # exceeded once in 1,000


def test_later_tokens_follow_what_was_written(lm: FrozenLM):
    """Pairs of tokens come as often as the chain rule says."""
    policy = make(lm, length=2, top_k=2)
    sampled = policy.sample(lm, 10_000, seeded())
    log_p = torch.zeros(len(sampled.token_ids))
    for t in range(2):
        best = policy(lm, sampled.hidden[:, t]).topk(2)
        place = best.indices == sampled.token_ids[:, t, None]
        log_p += (best.values.log_softmax(-1) * place).sum(-1)
    pairs, which, counts = sampled.token_ids.unique(dim=0, return_inverse=True, return_counts=True)
    assert len(pairs) == 4
    shares = torch.stack([log_p[which == i][0] for i in range(4)]).exp()
    torch.testing.assert_close(shares.sum(), torch.tensor(1.0))
    statistic = ((counts - 10_000 * shares).square() / (10_000 * shares)).sum()
    assert statistic < 16.3  # 3 degrees of freedom, exceeded once in 1,000


def test_greedy_is_the_argmax_at_each_step(lm: FrozenLM):
    policy = moved(make(lm))
    greedy = policy.greedy(lm)
    assert greedy.shape == (P,)
    written: list[int] = []
    for _ in range(P):
        hidden, _ = teacher_forced(lm, torch.tensor([[*written, 0]]))
        written.append(int(policy(lm, hidden[0, -1]).argmax()))
    assert greedy.tolist() == written
    only = moved(make(lm, top_k=1)).sample(lm, 3, seeded()).token_ids
    assert torch.equal(only, greedy.expand(3, P))


@pytest.mark.parametrize("start", ["zero", "lm"])
def test_it_imitates_a_given_prompt(lm_folder: Path, start: str):
    lm = FrozenLM(str(lm_folder))
    if start == "zero":  # its bias of -1e-4 silences all of it where states are short
        with torch.no_grad():
            lm.model.transformer.ln_f.weight.mul_(30)
    policy = make(lm, start=start, mlp_size=2048)
    wanted = torch.tensor([7, 90, 12, 55])

    def likelihood(target: bool = False) -> float:
        logits = policy(lm, policy.read(lm, wanted[None]).hidden, target)
        return action_values(logits, wanted[None])[0].mean().exp().item()

    before = likelihood()
    policy.imitate(lm, wanted)
    assert before < 0.05
    assert 0.1 <= likelihood() < 0.2  # there, and not beyond: something is left to explore
    assert likelihood(target=True) == likelihood()
    assert all(p.grad is None or not p.grad.any() for p in policy.parameters())
    assert not any(p.requires_grad for p in policy.target.parameters())


# ---- mistakes


@pytest.mark.parametrize("name", ["mlp_size", "top_k", "fluent_top_k"])
def test_numbers_below_one_are_refused(lm: FrozenLM, name: str):
    with pytest.raises(PromptError, match=rf"^{name} is 0; give at least 1\."):
        make(lm, **{name: 0})


def test_more_than_the_vocabulary_is_all_of_it(lm: FrozenLM):
    policy = make(lm, top_k=10_000, fluent_top_k=10_000)
    assert policy.sample(lm, 2, seeded()).token_ids.shape == (2, P)


def test_a_source_text_that_leaves_no_room_is_refused(lm: FrozenLM):
    room = lm.max_positions - 1 - P  # BOS and the prompt
    make(lm, source_text="a" * room)
    with pytest.raises(PromptError, match=r"source_text .* 257 tokens .* 256 positions; shorten"):
        make(lm, source_text="a" * (room + 1))
