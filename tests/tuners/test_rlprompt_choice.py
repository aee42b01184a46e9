"""Which of the prompts that RLPrompt wrote is in use."""

import copy
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from torch.utils.data import DataLoader

from lightning_prompts.files.errors import PromptError
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.lm.template import Template
from lightning_prompts.lm.verbalizer import Verbalizer
from lightning_prompts.tuners import GuidedSearch, ManualPrompt

FIRST, LAST = "{prompt} {text} It was", "{text}{prompt}"


@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_the_incumbent_is_the_best_that_was_validated(
    rl, lm: FrozenLM, tmp_path: Path, alpha: float
):
    tuner, watch = rl.build(lm, alpha=alpha), rl.Watch()
    rl.fit(tuner, tmp_path, steps=12, batches=2, callbacks=[watch])
    validated = {
        ids: (1 - alpha) * e.validated["loss"] + alpha * e.validated["log_perplexity"]
        for ids, e in tuner.ledger.entries.items()
        if e.validated
    }
    assert len(validated) > 6
    best = min(validated, key=lambda ids: validated[ids])
    assert rl.ids_of(tuner) == best

    objectives = [logged["val/objective"] for logged in watch.validations]
    assert objectives == sorted(objectives, reverse=True)
    if alpha == 0.0:  # with readability the first, the language model's own greedy text, stays
        assert objectives[-1] < objectives[0]
    assert objectives[-1] == pytest.approx(validated[best], rel=1e-5)
    for row in tuner.listed_prompts()[: len(validated)]:
        assert row["val_objective"] == pytest.approx(validated[tuple(row["ids"])], rel=1e-6)


@pytest.mark.parametrize("batches", [1, 2])
def test_each_validation_scores_the_best_new_prompts_and_the_greedy_one(
    rl, lm: FrozenLM, tmp_path: Path, batches: int
):
    """By mean reward; where steps have different rows, by what it is above the step's mean."""
    tuner = rl.build(lm, candidates=2, policy={"top_k": 3})
    train, validate = tuner.scorer.train, tuner.scorer.validate
    rewards: dict[tuple[int, ...], list[float]] = {}
    known: set[tuple[int, ...]] = set()
    checked = []

    def trained(token_ids, *args):
        scored = train(token_ids, *args)
        seen = scored.task.raw.tolist()
        usual = sum(seen) / len(seen) if batches > 1 else 0.0
        for ids, reward in zip(token_ids.tolist(), seen, strict=True):
            rewards.setdefault(tuple(ids), []).append(reward - usual)
        return scored

    def validated(prompts, *args):
        means = {ids: sum(values) / (len(values) + batches - 1) for ids, values in rewards.items()}
        best = sorted(means, key=lambda ids: -means[ids])[:2]
        # What the run began with is new at first.
        wanted = [rl.ids_of(tuner), *best, tuple(tuner.policy.greedy(lm).tolist())]
        assert list(prompts) == [ids for ids in dict.fromkeys(wanted) if ids not in known]
        checked.append(prompts)
        known.update(prompts)
        rewards.clear()
        return validate(prompts, *args)

    tuner.scorer.train, tuner.scorer.validate = trained, validated
    rl.fit(tuner, tmp_path, steps=6, batches=batches)
    assert len(checked) == 6 / batches


def test_without_candidates_the_greedy_prompt_is_scored(rl, lm: FrozenLM, tmp_path: Path):
    tuner = rl.build(lm, candidates=0)
    start = rl.ids_of(tuner)
    rl.fit(tuner, tmp_path, steps=1)
    validated = {ids for ids, e in tuner.ledger.entries.items() if e.validated}
    assert validated == {start, tuple(tuner.policy.greedy(lm).tolist())}


def test_the_greedy_prompt_s_metrics_are_logged(rl, lm: FrozenLM, tmp_path: Path):
    tuner, watch = rl.build(lm), rl.Watch()
    rl.fit(tuner, tmp_path, steps=5, callbacks=[watch])
    greedy = tuner.ledger[tuple(tuner.policy.greedy(lm).tolist())].validated
    logged = watch.validations[-1]
    names = {"loss", "accuracy", "reward", "log_perplexity"}
    assert {f"val/greedy_{name}" for name in (*names, "objective")} <= logged.keys()
    assert greedy.keys() == names
    assert logged["val/greedy_objective"] == logged["val/greedy_loss"]  # alpha is 0
    for name in names:
        assert logged[f"val/greedy_{name}"] == pytest.approx(greedy[name], rel=1e-6)
    assert logged["val/objective"] <= logged["val/greedy_objective"] + 1e-6


@pytest.mark.parametrize("text", [FIRST, LAST])
def test_its_metrics_are_those_of_a_manual_prompt_of_the_same_text(
    rl, lm: FrozenLM, tmp_path: Path, text: str
):
    tuner, watch = rl.build(lm, text), rl.Watch()
    rl.fit(tuner, tmp_path, steps=5, callbacks=[watch])
    words = lm.decode(tuner.hard_prompt().tolist())
    manual = ManualPrompt(lm, tuner.template, tuner.verbalizer, text=words)
    assert torch.equal(manual.hard_prompt(), tuner.hard_prompt())
    metrics = rl.fit(manual, tmp_path).callback_metrics
    for name in ("loss", "accuracy", "macro_f1", "objective"):
        assert watch.validations[-1][f"val/{name}"] == pytest.approx(metrics[f"val/{name}"].item())
    entry = tuner.ledger[rl.ids_of(tuner)].validated
    assert entry["accuracy"] == pytest.approx(metrics["val/accuracy"].item())


def test_a_validation_outside_fit_chooses_nothing(rl, lm: FrozenLM, tmp_path: Path):
    tuner, watch = rl.build(lm), rl.Watch()
    trainer = rl.fit(tuner, tmp_path, steps=4, callbacks=[watch])
    before, known = rl.ids_of(tuner), copy.deepcopy(tuner.ledger.entries)
    rl.move(tuner.policy.mlp, 3)
    loader = DataLoader([rl.make_batch(tuner, rl.validation)], batch_size=None)
    (values,) = trainer.validate(tuner, loader, verbose=False)
    assert rl.ids_of(tuner) == before
    assert tuner.ledger.entries == known
    assert values["val/loss"] == pytest.approx(watch.validations[-1]["val/loss"])
    assert not [name for name in values if "greedy" in name]


def test_the_sanity_check_chooses_nothing(rl, lm: FrozenLM, tmp_path: Path):
    tuner, seen = rl.build(lm), []

    class Look(Callback):
        def on_sanity_check_end(self, trainer, pl_module):
            seen.append(len(pl_module.ledger))

    rl.fit(tuner, tmp_path, steps=1, num_sanity_val_steps=1, callbacks=[Look()])
    assert seen == [0]


def test_what_chose_the_prompt_is_its_objective(rl, lm: FrozenLM, tmp_path: Path):
    """Whatever the evaluation that follows finds, by other roundings: the two cannot disagree."""
    tuner, watch = rl.build(lm, alpha=0.25), rl.Watch()
    validate = tuner.scorer.validate

    def shifted(prompts, *args):
        validate(prompts, *args)
        for ids in prompts:
            tuner.ledger[ids].validated["loss"] += 1.0

    tuner.scorer.validate = shifted
    trainer = rl.fit(tuner, tmp_path, steps=4, callbacks=[watch])
    chosen = [v["val/objective"] for v in watch.validations]
    assert chosen == sorted(chosen, reverse=True)
    assert chosen[-1] == pytest.approx(tuner.ledger[rl.ids_of(tuner)].objective(0.25))
    (values,) = trainer.validate(
        tuner, DataLoader([rl.make_batch(tuner, rl.validation)], batch_size=None), verbose=False
    )
    assert values["val/objective"] == pytest.approx(chosen[-1] - 0.75, abs=1e-5)


def test_a_fit_without_validations_is_refused(rl, lm: FrozenLM, tmp_path: Path):
    for tuner in (rl.build(lm), guided(lm)):
        with pytest.raises(PromptError, match=r"limit_val_batches=...\) is 0, but \w+ chooses"):
            rl.fit(tuner, tmp_path, limit_val_batches=0)


def guided(lm: FrozenLM) -> GuidedSearch:
    words = {"negative": " bad", "positive": " good"}
    parts = Template("{text}{prompt}", lm), Verbalizer(words, lm)
    return GuidedSearch(lm, *parts, prompt_length=3, candidates=4)


def test_limited_validation_batches_count_for_candidates_too(rl, lm: FrozenLM, tmp_path: Path):
    tuner, watch = rl.build(lm), rl.Watch()
    halves = [rl.make_batch(tuner, [row]) for row in rl.validation]
    trainer = Trainer(
        default_root_dir=tmp_path,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        max_steps=2,
        limit_val_batches=2,
        num_sanity_val_steps=0,
        callbacks=[watch],
    )
    loaders = [DataLoader(b, batch_size=None) for b in ([rl.make_batch(tuner)], halves)]
    trainer.fit(tuner, *loaders)
    objective = tuner.ledger[rl.ids_of(tuner)].validated["loss"]
    assert watch.validations[-1]["val/loss"] == pytest.approx(objective, rel=1e-5)
    measures = tuner.reward.measures("val", lambda x: x)
    for batch in halves[:2]:
        measures.update(tuner.token_ids[None], batch)
    assert measures.compute()["loss"].item() == pytest.approx(objective, rel=1e-6)
