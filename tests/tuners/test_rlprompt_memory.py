"""What RLPrompt's reward is asked for, and what is remembered."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_prompts.lm.batch import Batch
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.tasks import TextClassification
from lightning_prompts.tuners.rewards import ClassificationGap, PromptMeasures, Reward, Scores
from lightning_prompts.tuners.rewards.base import Reduce

K = 6
LAST = "{text}{prompt}"
MLP = {f"{i}.{name}" for i in (0, 2) for name in ("weight", "bias")}


# ---- what is remembered


class Spy(ClassificationGap):
    """Writes down which prompts are scored on which rows."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.calls: list[tuple[list[tuple[int, ...]], list[int]]] = []

    def __call__(self, prompts: Tensor, batch: Batch, seed: int, reduce: Reduce) -> Scores:
        ids = [tuple(prompt) for prompt in prompts.tolist()]
        self.calls.append((ids, batch["rows"].tolist()))
        return super().__call__(prompts, batch, seed, reduce)


def test_one_batch_is_scored_once_for_each_prompt(rl, lm: FrozenLM, tmp_path: Path):
    spy, watch = Spy(), rl.Watch()
    tuner = rl.build(lm, reward=spy, policy={"top_k": 2})  # few prompts, which soon recur
    rl.fit(tuner, tmp_path, steps=8, callbacks=[watch])
    scored = [ids for prompts, _ in spy.calls for ids in prompts]
    written = {ids for ids, e in tuner.ledger.entries.items() if e.times}
    assert len(scored) == len(set(scored)) == len(written) < 8 * K / 2
    assert set(scored) == written
    assert sum(e.times for e in tuner.ledger.entries.values()) == 8 * K
    assert len(spy.calls) < 8
    assert watch.train[-1]["train/distinct_prompts"] <= len(tuner.ledger)


def test_remembered_rewards_are_the_measured_ones(rl, lm: FrozenLM, tmp_path: Path):
    """A run that measures every prompt anew learns the same."""
    found = []
    for remembers in (True, False):
        tuner, watch = rl.build(lm, policy={"top_k": 2}), rl.Watch()
        if not remembers:
            tuner.scorer._remembered = lambda prompts: {}
        rl.fit(tuner, tmp_path, steps=8, callbacks=[watch])
        found.append((tuner.policy.mlp.state_dict(), watch.train))
    for logged, expected in zip(found[0][1], found[1][1], strict=True):
        assert logged == pytest.approx(expected, rel=1e-4, abs=1e-4)
    for name in MLP:
        torch.testing.assert_close(found[0][0][name], found[1][0][name], rtol=1e-3, atol=1e-4)


def test_several_batches_are_scored_at_every_step(rl, lm: FrozenLM, tmp_path: Path):
    spy = Spy()
    tuner = rl.build(lm, reward=spy, policy={"top_k": 2})
    rl.fit(tuner, tmp_path, steps=8, batches=4)
    assert len(spy.calls) == 8
    for prompts, _ in spy.calls:
        assert len(prompts) == len(set(prompts))  # equal ones once a step
    again = [ids for prompts, _ in spy.calls for ids in prompts]
    assert len(again) > len(set(again))
    assert sum(e.times for e in tuner.ledger.entries.values()) == 8 * K


def test_a_first_batch_of_several_is_not_all_there_is(
    rl, lm: FrozenLM, review_folder: Path, tmp_path: Path
):
    """`limit_train_batches 1` takes other rows in each epoch: nothing may be remembered."""
    task = TextClassification(lm, LAST, rl.words, path=str(review_folder), batch_size=8)
    spy = Spy()
    tuner = rl.build(lm, reward=spy, policy={"top_k": 1})
    trainer = Trainer(
        default_root_dir=tmp_path,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        num_sanity_val_steps=0,
        max_steps=3,
        limit_train_batches=1,
        use_distributed_sampler=False,
    )
    trainer.fit(tuner, datamodule=task)
    assert len(spy.calls) == 3
    assert len({tuple(rows) for _, rows in spy.calls}) == 3


# ---- rewards that are drawn, and tasks without an accuracy


class Sevens(Reward):
    """How often token 7 stands in a prompt; with some luck."""

    deterministic, classifies = False, False
    low, high = -20.0, 80.0

    def __init__(self) -> None:
        self.calls: list[tuple[list[list[int]], int]] = []
        self.stages: list[str] = []

    def __call__(self, prompts: Tensor, batch: Batch, seed: int, reduce: Reduce) -> Scores:
        self.calls.append((prompts.tolist(), seed))
        generator = torch.Generator().manual_seed(seed)
        raw = (prompts == 7).float().sum(1) + torch.rand(len(prompts), generator=generator)
        return Scores.of_same_rows(raw, {"sevens": (prompts == 7).float().sum(1)})

    def measures(self, stage: str, reduce: Reduce) -> PromptMeasures:
        self.stages.append(stage)
        return CountedSevens()


class CountedSevens(PromptMeasures):
    def __init__(self) -> None:
        self.rows, self.counts = 0, torch.zeros(1)

    def update(self, prompts: Tensor, batch: Batch) -> None:
        self.rows += len(batch["labels"])
        self.counts = (prompts == 7).float().sum(1)

    def compute(self) -> dict[str, Tensor]:
        rows = torch.full_like(self.counts, self.rows)
        return {"loss": 1 - self.counts / 10, "sevens": self.counts, "rows": rows}


def test_a_task_without_an_accuracy_logs_what_its_reward_measures(rl, lm: FrozenLM, tmp_path: Path):
    reward, watch = Sevens(), rl.Watch()
    tuner = rl.build(lm, reward=reward, policy={"top_k": 2}, prompt_length=2)
    trainer = rl.fit(tuner, tmp_path, steps=4, callbacks=[watch])
    own = {"val/loss", "val/sevens", "val/rows", "val/objective"}
    logged = watch.validations[-1]
    assert own <= logged.keys()
    assert "val/accuracy" not in logged
    sevens = tuner.hard_prompt().tolist().count(7)
    assert (logged["val/sevens"], logged["val/rows"]) == (sevens, 3)
    assert logged["val/objective"] == pytest.approx(1 - sevens / 10)
    assert [len(prompts) for prompts, _ in reward.calls] == [K] * 4  # equal prompts too
    assert len({seed for _, seed in reward.calls}) == 4
    assert set(reward.stages) == {"val"}
    assert {"train/sevens", "train/reward", "train/reward_best"} <= watch.train[0].keys()

    loader = DataLoader([rl.make_batch(tuner, rl.validation)] * 2, batch_size=None)
    (values,) = trainer.test(tuner, loader, verbose=False)
    assert reward.stages[-1] == "test"
    assert (values["test/sevens"], values["test/rows"]) == (sevens, 6)
    assert "test/accuracy" not in values


class Halves(Sevens):
    """Two groups of prompts on two sources, of which the first is the easier by far."""

    def __call__(self, prompts: Tensor, batch: Batch, seed: int, reduce: Reduce) -> Scores:
        easy = torch.arange(len(prompts)) < len(prompts) // 2
        gain = super().__call__(prompts, batch, seed, reduce).gain
        return Scores(gain + 50 * easy, gain, gain, {}, num_tokens=1000)


def test_prompts_on_different_sources_compare_by_their_gains(rl, lm: FrozenLM, tmp_path: Path):
    reward = Halves()
    tuner = rl.build(lm, reward=reward, policy={"top_k": 4})
    rl.fit(tuner, tmp_path, steps=4)  # the same rows at each step, and yet other sources
    sums: dict[tuple[int, ...], list[float]] = {}
    for prompts, seed in reward.calls[:4]:
        gains = Sevens()(torch.tensor(prompts), {}, seed, lambda values: values).gain
        for ids, gain in zip(prompts, gains.tolist(), strict=True):
            sums.setdefault(tuple(ids), []).append(gain)
    for ids, gains in sums.items():
        assert tuner.ledger[ids].mean_reward == pytest.approx(sum(gains) / len(gains), abs=1e-5)
    listed = [row for row in tuner.listed_prompts() if row["times"]]
    assert all("gain" in row and "reward" not in row for row in listed)
    # What the reward says that it read, and the prompts themselves, which the policy wrote.
    assert int(tuner.forward_tokens) == 4 * (1000 + K * tuner.prompt_length)


def test_the_seed_of_what_is_drawn_follows_from_run_and_step(rl, lm: FrozenLM, tmp_path: Path):
    seeds = []
    for seed in (0, 0, 1):
        reward = Sevens()
        rl.fit(rl.build(lm, reward=reward, seed=seed), tmp_path)
        seeds.append([s for _, s in reward.calls])
    assert seeds[0] == seeds[1]
    assert not set(seeds[0]) & set(seeds[2])


def test_other_rows_are_not_remembered(rl, lm: FrozenLM, review_folder: Path, tmp_path: Path):
    """A run that goes on with other few-shot rows measures its prompts anew."""
    spy = Spy()
    for seed, steps in ((0, 2), (1, 4)):
        task = TextClassification(
            lm, LAST, rl.words, path=str(review_folder), shots=2, seed=seed, batch_size=8
        )
        tuner = rl.build(lm, reward=spy, policy={"top_k": 1})
        trainer = Trainer(
            default_root_dir=tmp_path,
            accelerator="cpu",
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            max_steps=steps,
            use_distributed_sampler=False,
        )
        last = tmp_path / "last.ckpt"
        trainer.fit(tuner, datamodule=task, ckpt_path=last if steps > 2 else None)
        trainer.save_checkpoint(last)
    assert len(spy.calls) == 2  # once on each set of rows: there is one prompt alone
    assert spy.calls[0][1] != spy.calls[1][1]
