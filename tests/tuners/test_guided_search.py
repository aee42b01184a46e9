"""Guided search: its steps, which prompt is in use, and what a checkpoint brings back."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning import Trainer
from torch.utils.data import DataLoader

from lightning_prompts.files.errors import PromptError
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.lm.template import Template
from lightning_prompts.lm.verbalizer import Verbalizer
from lightning_prompts.tuners import GuidedSearch
from lightning_prompts.tuners.prompt_init import FromCheckpoint, FromText, FromVocabulary
from lightning_prompts.tuners.search.candidates import EditSettings, Proposer
from lightning_prompts.tuners.search.ledger import Ids
from lightning_prompts.tuners.search.pace import estimate, seconds_left

FIRST, LAST = "{prompt} {text} It was", "{text}{prompt}"
WORDS = {"negative": " bad", "positive": " good"}


def build(lm: FrozenLM, text: str = LAST, **kwargs: Any) -> GuidedSearch:
    options = {"prompt_length": 4, "min_length": 2, "max_length": 6, "candidates": 12}
    options |= {"beam": 2, "race": [2], "contenders": 1}
    return GuidedSearch(lm, Template(text, lm), Verbalizer(WORDS, lm), **options | kwargs)


def objective(rl, tuner: GuidedSearch, ids: Ids, rows: list[tuple[str, int]]) -> float:
    """One row at a time, by whole strings of tokens."""
    lm, w = tuner.lm, tuner.perplexity_weight
    before, after = tuner.template.text.split("{prompt}")
    total = 0.0
    for text, label in rows:
        pieces = [lm.encode(piece.format(text=text)) for piece in (before, after)]
        logits = lm.model(torch.tensor([pieces[0] + list(ids) + pieces[1]])).logits[0, -1]
        total -= logits[tuner.verbalizer.token_ids].double().log_softmax(-1)[label].item()
    nats = rl.reference_nats(lm, torch.tensor([ids])).item()
    return (1 - w) * total / len(rows) + w * nats


# ---- steps


@pytest.mark.parametrize("text", [FIRST, LAST])
@pytest.mark.parametrize("weight", [0.0, 0.1])
def test_a_search_lowers_the_objective(rl, lm: FrozenLM, tmp_path: Path, text: str, weight: float):
    tuner, watch = build(lm, text, perplexity_weight=weight), rl.Watch()
    start = tuner.beam[0]
    tuner._choose = lambda: []  # or other rows would have a say in the beam
    rl.fit(tuner, tmp_path, steps=8, callbacks=[watch])
    logged = [step["train/objective"] for step in watch.train]
    # The batch is always the same, and the beam takes part: but for rounding no step can lose.
    assert all(b < a + 1e-6 for a, b in pairwise(logged))
    assert logged[-1] < 0.96 * objective(rl, tuner, start, rl.rows)
    assert objective(rl, tuner, tuner.beam[0], rl.rows) == pytest.approx(logged[-1], rel=1e-5)
    last = watch.train[-1]
    assert last["train/objective"] == pytest.approx(
        (1 - weight) * last["train/loss"] + weight * last["train/log_perplexity"], rel=1e-5
    )
    assert last["train/candidates"] == 12
    assert len(tuner.beam) == 2
    for ids in tuner.beam:
        assert 2 <= len(ids) <= 6
        assert lm.encode(lm.decode(ids)) == list(ids)


def test_with_readability_alone_prompts_become_likely(rl, lm: FrozenLM, tmp_path: Path):
    tuner = build(lm, perplexity_weight=1.0, edits=EditSettings(proposals=1.0))
    start = tuner.beam[0]
    rl.fit(tuner, tmp_path, steps=6)
    before, after = (
        rl.reference_nats(lm, torch.tensor([ids])).item() for ids in (start, tuner.beam[0])
    )
    assert after < before - 1


@pytest.mark.parametrize("text", [FIRST, LAST])
def test_the_gradient_is_the_task_loss_s_at_the_best(rl, lm: FrozenLM, tmp_path: Path, text: str):
    tuner = build(lm, text)
    tuner.beam = [(9, 30, 12), (40, 41, 42, 43)]
    tuner._sum = lambda values: 10 * values  # of all processes
    found = tuner._gradient(rl.make_batch(tuner))
    rows = lm.embed(torch.tensor(tuner.beam[0])).detach().requires_grad_()
    before, after = text.split("{prompt}")
    loss = 0.0
    for row, label in rl.rows:
        left, right = (
            lm.embed(torch.tensor(lm.encode(piece.format(text=row))).long())
            for piece in (before, after)
        )
        logits = lm.model(inputs_embeds=torch.cat([left, rows, right])[None]).logits[0, -1]
        loss = loss + F.cross_entropy(logits[tuner.verbalizer.token_ids], torch.tensor(label))
    loss.backward()
    torch.testing.assert_close(found, 10 * rows.grad, rtol=1e-3, atol=1e-5)


def test_a_run_follows_from_its_seed(rl, lm: FrozenLM, tmp_path: Path):
    def run(**kwargs: Any) -> tuple[list[Ids], list[dict[str, float]]]:
        tuner, watch = build(lm, init=FromText("It is"), prompt_length=None, **kwargs), rl.Watch()
        torch.manual_seed(len(kwargs))  # no matter
        rl.fit(tuner, tmp_path, steps=3, callbacks=[watch])
        return tuner.beam, watch.train

    assert run() == run(seed=0)
    assert run()[0] != run(seed=1)[0]


def test_each_step_has_a_seed_of_its_own(rl, lm: FrozenLM, tmp_path: Path, monkeypatch):
    seeds, draw = [], Proposer.draw

    def watched(self, count: int, generator: torch.Generator) -> list[Ids]:
        seeds.append(generator.initial_seed())
        return draw(self, count, generator)

    monkeypatch.setattr(Proposer, "draw", watched)
    rl.fit(build(lm, seed=5), tmp_path, steps=3)
    assert seeds == [5 * 1_000_003 + step for step in range(3)]


def test_it_starts_from_a_soft_prompt_s_nearest_tokens(lm: FrozenLM, tmp_path: Path):
    ids = torch.tensor([9, 30, 12])
    near = lm.embed(ids) * 1.5 + 1e-3
    record = {"lm": lm.label, "lm_fingerprint": lm.fingerprint}
    saved = {"state_dict": {"prompt": near}, "lightning_prompts": record}
    torch.save(saved, path := tmp_path / "soft.ckpt")
    tuner = build(lm, init=FromCheckpoint(str(path)), prompt_length=None)
    assert tuner.beam == [tuple(ids.tolist())]
    assert torch.equal(tuner.hard_prompt(), ids)


def test_gcg_is_a_configuration(rl, lm: FrozenLM, tmp_path: Path):
    """Fixed length, single substitutions among the gradient's best, all on all rows."""
    edits = EditSettings(
        proposals=0, gradient_top_k=5, substitute_two=0, insert=0, delete=0, swap=0
    )
    tuner = build(lm, edits=edits, min_length=None, max_length=None, beam=1, race=[])
    tried = []
    add = tuner.ledger.add
    tuner.ledger.add = lambda prompts, *args: tried.append(list(prompts)) or add(prompts, *args)
    parent = tuner.beam[0]
    tuner._choose = lambda: []
    rl.fit(tuner, tmp_path, steps=1)
    assert parent in tried[0]
    assert len(tried[0]) == 13
    for ids in tried[0]:
        assert sum(a != b for a, b in zip(ids, parent, strict=True)) <= 1
    values = {ids: objective(rl, tuner, ids, rl.rows) for ids in tried[0]}
    assert tuner.beam == [min(values, key=values.__getitem__)]


def test_tokens_are_added_up(rl, lm: FrozenLM, tmp_path: Path):
    """Gradient, proposals, the prompts by themselves, and all pairs, as whole sequences."""
    tuner = build(lm, race=[], candidates=5, perplexity_weight=0.1)
    start, tried = tuner.beam[0], []
    add = tuner.ledger.add
    tuner.ledger.add = lambda prompts, *args: tried.extend(prompts) or add(prompts, *args)
    rl.fit(tuner, tmp_path, steps=1)
    rows = sum(len(lm.encode(text)) for text, _ in rl.rows)
    expected = rows + len(rl.rows) * len(start) + len(start) + 1
    # By themselves they are read twice, roughly before the race and exactly after it.
    expected += sum(rows + (len(rl.rows) + 2) * len(ids) for ids in tried)
    assert tuner.forward_tokens == expected
    assert tuner.trainer.callback_metrics["train/forward_tokens"] == expected


# ---- which prompt is in use


@pytest.mark.parametrize("weight", [0.0, 0.1])
def test_the_incumbent_is_the_best_that_was_validated(
    rl, lm: FrozenLM, tmp_path: Path, weight: float
):
    tuner, watch = build(lm, perplexity_weight=weight, contenders=20, keep=1.0), rl.Watch()
    rl.fit(tuner, tmp_path, steps=10, batches=2, callbacks=[watch])
    validated = {
        ids: objective(rl, tuner, ids, rl.validation)
        for ids, entry in tuner.ledger.entries.items()
        if entry.validated
    }
    assert len(validated) > 5
    assert len({len(ids) for ids in validated}) > 1
    for ids, value in validated.items():
        assert tuner.ledger[ids].objective(weight) == pytest.approx(value, rel=1e-5)
    assert rl.ids_of(tuner) == min(validated, key=validated.__getitem__)
    logged = [values["val/objective"] for values in watch.validations]
    assert len(logged) == 5
    assert logged == sorted(logged, reverse=True)
    assert logged[-1] == pytest.approx(validated[rl.ids_of(tuner)], rel=1e-5)


def test_each_validation_scores_the_beam_and_the_best_others(rl, lm: FrozenLM, tmp_path: Path):
    """Others by what they gained over the beam on the same rows, each with one more gain of 0."""
    tuner, known, checked = build(lm, contenders=2, perplexity_weight=0.1), set(), []
    gains: dict[Ids, list[float]] = {}
    nats_of: dict[Ids, float] = {}
    add, validate = tuner.ledger.add, tuner.scorer.validate

    def added(prompts, rewards, nats, components):
        losses = dict(zip(prompts, components["train_loss"], strict=True))
        usual = sum(losses[ids] for ids in tuner.beam) / len(tuner.beam)  # of the step before
        for ids, own in zip(prompts, nats, strict=True):
            gains.setdefault(ids, []).append(usual - losses[ids])
            nats_of[ids] = own
        return add(prompts, rewards, nats, components)

    def validated(prompts, *args):
        values = {
            ids: 0.9 * sum(own) / (len(own) + 1) - 0.1 * nats_of[ids]
            for ids, own in gains.items()
            if ids not in tuner.beam
        }
        others = sorted(values, key=values.__getitem__, reverse=True)[:2]
        wanted = [rl.ids_of(tuner), *tuner.beam, *others]
        assert list(prompts) == [ids for ids in dict.fromkeys(wanted) if ids not in known]
        known.update(prompts)
        checked.append(prompts)
        gains.clear()
        return validate(prompts, *args)

    tuner.ledger.add, tuner.scorer.validate = added, validated
    rl.fit(tuner, tmp_path, steps=6, batches=2)
    assert len(checked) == 3


def test_the_search_goes_on_from_the_best_that_were_validated(rl, lm: FrozenLM, tmp_path: Path):
    tuner, seen = build(lm, perplexity_weight=0.1, contenders=3), []
    choose = tuner._choose

    def chosen():
        met = {rl.ids_of(tuner), *tuner._contenders()}
        ranked = choose()
        seen.append((met, list(tuner.beam)))
        return ranked

    tuner._choose = chosen
    rl.fit(tuner, tmp_path, steps=6, batches=2)
    assert len(seen) == 3
    for met, beam in seen:
        values = {ids: objective(rl, tuner, ids, rl.validation) for ids in met}
        assert len(values) > 2
        assert beam == sorted(values, key=values.__getitem__)[:2]


def test_a_tie_keeps_the_old_one(rl, lm: FrozenLM, tmp_path: Path):
    tuner = build(lm)
    start = rl.ids_of(tuner)

    def validate(prompts, *args):
        for ids in prompts:
            tuner.ledger[ids].validated = {"loss": 1.0, "log_perplexity": 1.0}

    tuner.scorer.validate = validate
    rl.fit(tuner, tmp_path, steps=3)
    assert rl.ids_of(tuner) == start
    assert len(tuner.ledger) > 1
    assert tuner.beam[0] == start  # the first of those that are equally good


def test_listed_prompts(rl, lm: FrozenLM, tmp_path: Path):
    tuner = build(lm)
    rl.fit(tuner, tmp_path, steps=4, batches=2)
    rows = tuner.listed_prompts()
    values = [row["val_objective"] for row in rows if "val_objective" in row]
    assert values == sorted(values)
    assert tuple(rows[0]["ids"]) == rl.ids_of(tuner)
    assert not [row for row in rows if {"reward", "gain", "val_reward"} & row.keys()]
    entry = tuner.ledger[tuple(rows[-1]["ids"])]
    assert rows[-1]["train_loss"] == entry.components["train_loss"] > 0


# ---- checkpoints


def test_a_checkpoint_of_another_length_loads(rl, lm: FrozenLM, tmp_path: Path):
    tuner = build(lm, perplexity_weight=0.1)
    trainer = rl.fit(tuner, tmp_path, steps=6)
    with torch.inference_mode(False):
        tuner.token_ids = torch.tensor([9, 30, 12, 50, 7])
    trainer.save_checkpoint(path := tmp_path / "a.ckpt")
    saved = torch.load(path, weights_only=True)
    assert len(saved["lightning_prompts"]["ids"]) == 5
    other = build(lm, perplexity_weight=0.1, init=FromVocabulary(top=50), seed=3)
    other.on_load_checkpoint(saved)
    other.load_state_dict(saved["state_dict"], strict=True)
    assert rl.ids_of(other) == (9, 30, 12, 50, 7)
    assert other.beam == tuner.beam
    assert other.forward_tokens == tuner.forward_tokens
    assert other.ledger.entries == tuner.ledger.entries
    assert list(other.ledger.entries) == list(tuner.ledger.entries)

    shorter = build(lm, max_length=4)
    saved = torch.load(path, weights_only=True)
    with pytest.raises(PromptError, match=r"length is 5 but .* '2 to 4'.*max_length"):
        shorter.on_load_checkpoint(saved)


def test_a_longer_incumbent_can_be_replaced_loaded_and_measured(rl, lm: FrozenLM, tmp_path: Path):
    tuner = build(lm, contenders=20, keep=1.0)

    def validate(prompts, *args):
        for ids in prompts:
            tuner.ledger[ids].validated = {"loss": 1 / len(ids), "log_perplexity": 1.0}

    tuner.scorer.validate = validate
    trainer = rl.fit(tuner, tmp_path, steps=4)
    assert len(rl.ids_of(tuner)) > 4
    assert not tuner.token_ids.is_inference()
    trainer.save_checkpoint(path := tmp_path / "a.ckpt")
    tuner.on_load_checkpoint(saved := torch.load(path, weights_only=True))
    tuner.load_state_dict(saved["state_dict"], strict=True)
    loader = DataLoader([rl.make_batch(tuner, rl.validation)], batch_size=None)
    (values,) = trainer.validate(tuner, loader, verbose=False)
    expected = objective(rl, tuner, rl.ids_of(tuner), rl.validation)
    assert values["val/objective"] == pytest.approx(expected, rel=1e-5)


# ---- what it says, and what it refuses


def test_the_time_is_estimated_after_the_first_step(
    rl, lm: FrozenLM, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    caplog.set_level("INFO", logger="lightning_prompts")
    rl.fit(build(lm), tmp_path, steps=5)
    (line,) = [m for m in caplog.messages if m.startswith("About")]
    assert "for the 4 steps left" in line
    caplog.clear()
    rl.fit(build(lm), tmp_path, steps=2)
    assert not [m for m in caplog.messages if m.startswith("About")]


def test_the_estimate_ends_where_the_time_does(lm: FrozenLM):
    trainer = Trainer(max_time={"seconds": 90}, logger=False, enable_checkpointing=False)
    assert seconds_left(trainer) == pytest.approx(90)
    assert seconds_left(Trainer(logger=False, enable_checkpointing=False)) is None
    assert "some 8 of the 99 steps left in the 90 s until --trainer.max_time" in estimate(
        11, 99, 90
    )
    assert "for the 8 steps left" in estimate(11, 8, 90)


def test_times_for_a_person():
    assert estimate(0.053, 10).startswith("About 0.053 s a step, 0.53 s for the 10 steps")
    assert estimate(60.4, 2).startswith("About 60 s a step, 2 min for the 2 steps")


def test_room_is_kept_for_the_longest_prompt(lm: FrozenLM):
    assert build(lm).prompt_length == 6
    assert build(lm, min_length=None, max_length=None).lengths == (4, 4)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"candidates": 0}, "candidates is 0"),
        ({"beam": 0}, "beam is 0"),
        ({"contenders": -1}, "contenders is -1"),
        ({"keep": 0.0}, "keep is 0.0"),
        ({"race": [8, 8]}, r"race is \[8, 8\]"),
        ({"race": [0]}, r"race is \[0\]"),
        ({"max_length": 3}, "starts from 4 tokens"),
        ({"min_length": 5}, "min_length is 5"),
        ({"min_length": 0}, "min_length is 0"),
    ],
)
def test_numbers_out_of_range_are_refused(lm: FrozenLM, options: dict[str, Any], named: str):
    with pytest.raises(PromptError, match=named):
        build(lm, **options)


def test_accumulated_batches_are_refused(rl, lm: FrozenLM, tmp_path: Path):
    with pytest.raises(PromptError, match=r"accumulate_grad_batches=...\) is 2"):
        rl.fit(build(lm), tmp_path, accumulate_grad_batches=2)
