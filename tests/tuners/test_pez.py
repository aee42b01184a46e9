"""PEZ's step against its three-line definition, and the released variant against its own."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.lm.nearest import Distance, nearest_tokens
from lightning_prompts.tuners import PEZ
from tests.tuners.test_tuners import build, make_batch


def project(prompt: Tensor, lm: FrozenLM, metric: str) -> Tensor:
    """Nearest rows, by argmax or argmin over the whole table but the special token."""
    table = lm.embedding_table
    if metric == "cosine":
        nearness = F.normalize(prompt, dim=1) @ F.normalize(table, dim=1).T
    else:
        nearness = -torch.cdist(prompt, table)
    nearness[:, lm.special_ids] = -torch.inf
    return table[nearness.argmax(1)]


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("keep_continuous", [True, False])
def test_steps_are_the_definition(lm: FrozenLM, metric: Distance, keep_continuous: bool):
    tuner = build("pez", lm, projection=metric, keep_continuous=keep_continuous)
    # Steps from a token's row must be able to leave its cell.
    rate = 0.1 if keep_continuous else 0.5
    batch = make_batch(tuner)
    ours = torch.optim.AdamW([tuner.prompt], lr=rate)
    iterate = tuner.prompt.detach().clone().requires_grad_()
    theirs = torch.optim.AdamW([iterate], lr=rate)
    visited = set()
    for _ in range(8):
        ours.zero_grad()
        tuner.training_step(batch, 0).backward()
        ours.step()

        # P' = Proj(P); g = dL/dP'; apply g to P (or, as released, to P').
        projected = project(iterate.detach(), lm, metric).requires_grad_()
        logits = tuner.class_logits(lm.answer_hidden(projected, batch))
        F.cross_entropy(logits, batch["labels"]).backward()
        if not keep_continuous:
            iterate.data.copy_(projected.data)
        iterate.grad = projected.grad
        theirs.step()

        torch.testing.assert_close(tuner.prompt, iterate, rtol=1e-4, atol=1e-5)
        visited.add(tuple(tuner.hard_prompt().tolist()))
    assert len(visited) > 1  # the tokens did change, or the projection was not tested


def test_the_prompt_in_use_is_bitwise_rows_of_the_table(lm: FrozenLM):
    tuner = build("pez", lm)
    with torch.no_grad():
        tuner.prompt.add_(torch.randn_like(tuner.prompt))
    in_use = tuner.prompt_embeddings()
    assert torch.equal(in_use, lm.embed(tuner.hard_prompt()))
    assert not torch.equal(in_use, tuner.soft_prompt())
    batch = make_batch(tuner)
    hard = tuner.answer_hidden(lm.embed(tuner.hard_prompt()), batch)
    assert (tuner.answer_hidden(in_use, batch) - hard).abs().max().item() == 0.0


def test_special_tokens_are_kept_out_unless_allowed(lm: FrozenLM):
    for exclude in (True, False):
        tuner = build("pez", lm, exclude_special=exclude)
        assert isinstance(tuner, PEZ)
        with torch.no_grad():
            tuner.prompt.copy_(lm.embed(torch.tensor([lm.bos_id] * 4)))
        assert (lm.bos_id in tuner.hard_prompt().tolist()) is not exclude


@pytest.mark.parametrize("name", ["pez", "released"])
def test_a_step_projects_once_and_the_next_one_anew(
    lm: FrozenLM, name: str, monkeypatch: pytest.MonkeyPatch
):
    tuner = build(name, lm, perplexity_weight=0.5)
    batch, projections = make_batch(tuner), []
    monkeypatch.setattr(
        "lightning_prompts.tuners.views.nearest_tokens",
        lambda *args: projections.append(nearest_tokens(*args)) or projections[-1],
    )
    loss = tuner.training_step(batch, 0)
    assert len(projections) == 1
    with torch.no_grad():
        tuner.prompt.copy_(lm.embed(torch.tensor([9, 30, 2, 50])))
    assert tuner.hard_prompt().tolist() == [9, 30, 2, 50]
    assert tuner.training_step(batch, 0) != loss

    def fail(*args: object) -> Tensor:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(tuner, "answer_hidden", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        tuner.training_step(batch, 0)
    with torch.no_grad():
        tuner.prompt.copy_(lm.embed(torch.tensor([4, 3, 2, 1])))
    assert tuner.hard_prompt().tolist() == [4, 3, 2, 1]
