"""RLPrompt with Lightning's real Trainer: what learns, what is saved, where it begins."""

import copy
import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback

from lightning_prompts.files.errors import PromptError
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.lm.template import Template
from lightning_prompts.lm.verbalizer import Verbalizer
from lightning_prompts.runs.prompt_list import PromptList
from lightning_prompts.tuners import ManualPrompt, SoftPrompt
from lightning_prompts.tuners.prompt_init import FromText

P, K = 3, 6
FIRST, LAST = "{prompt} {text} It was", "{text}{prompt}"
MLP = {f"{i}.{name}" for i in (0, 2) for name in ("weight", "bias")}


# ---- what learns, and what is saved


@pytest.mark.parametrize("text", [FIRST, LAST])
def test_only_the_policy_s_mlp_learns(rl, lm: FrozenLM, tmp_path: Path, text: str):
    before = {key: value.clone() for key, value in lm.state_dict().items()}
    tuner, watch = rl.build(lm, text), rl.Watch()
    start = copy.deepcopy(tuner.policy.mlp.state_dict())
    rl.fit(tuner, tmp_path, callbacks=[watch])
    assert all(torch.equal(value, before[key]) for key, value in lm.state_dict().items())
    assert all(parameter.grad is None for parameter in lm.parameters())
    for gradients in watch.gradients:
        assert gradients.keys() == {f"policy.mlp.{name}" for name in MLP}
    learned = tuner.policy.mlp.state_dict()
    assert not any(torch.equal(learned[name], start[name]) for name in MLP)


def test_the_target_follows_before_each_step(rl, lm: FrozenLM, tmp_path: Path):
    tuner = rl.build(lm, target_rate=0.25)
    expected = {name: value.clone() for name, value in tuner.policy.mlp.state_dict().items()}

    class Follow(Callback):
        def on_train_batch_start(self, trainer, pl_module, *args):
            for name, value in pl_module.policy.mlp.state_dict().items():
                expected[name] = 0.75 * expected[name] + 0.25 * value

    rl.fit(tuner, tmp_path, steps=4, callbacks=[Follow()])
    for name, value in tuner.policy.target.state_dict().items():
        torch.testing.assert_close(value, expected[name])
        assert not torch.allclose(value, tuner.policy.mlp.state_dict()[name])


def test_a_checkpoint_holds_the_policy_the_prompt_and_the_ledger(rl, lm: FrozenLM, tmp_path: Path):
    tuner = rl.build(lm)
    trainer = rl.fit(tuner, tmp_path, steps=4)
    trainer.save_checkpoint(path := tmp_path / "a.ckpt")
    saved = torch.load(path, weights_only=True)
    both = {f"policy.{part}.{name}" for part in ("mlp", "target") for name in MLP}
    assert saved["state_dict"].keys() == both | {"token_ids"}
    assert saved["lightning_prompts"]["ids"] == tuner.hard_prompt().tolist()
    assert len(saved["prompts"]["ids"]) == len(tuner.ledger) > K

    other = rl.build(lm, seed=5)
    assert not torch.equal(other.policy.mlp[0].weight, tuner.policy.mlp[0].weight)
    other.on_load_checkpoint(saved)
    other.load_state_dict(saved["state_dict"], strict=True)
    assert rl.ids_of(other) == rl.ids_of(tuner)
    assert other.ledger.entries == tuner.ledger.entries
    for name, value in tuner.policy.state_dict().items():
        assert torch.equal(other.policy.state_dict()[name], value)
    saved["state_dict"]["token_id"] = saved["state_dict"].pop("token_ids")
    with pytest.raises(RuntimeError, match="token_id"):
        other.load_state_dict(saved["state_dict"], strict=True)


def test_another_setting_s_checkpoint_is_refused(rl, lm: FrozenLM, tmp_path: Path):
    rl.fit(rl.build(lm), tmp_path).save_checkpoint(path := tmp_path / "a.ckpt")
    saved = torch.load(path, weights_only=True)
    with pytest.raises(PromptError, match=r"prompt length is 3 .* 4"):
        rl.build(lm, prompt_length=4).on_load_checkpoint(saved)
    soft = SoftPrompt(lm, Template(LAST, lm), Verbalizer(rl.words, lm), prompt_length=P)
    with pytest.raises(PromptError, match="tuner is 'RLPrompt'"):
        soft.on_load_checkpoint(saved)


def test_another_language_model_may_write(rl, lm: FrozenLM, lm_folder: Path, tmp_path: Path):
    shutil.copytree(lm_folder, tmp_path / "other")
    other = FrozenLM(str(lm_folder))
    with torch.no_grad():
        other.embedding_table.add_(0.3 * torch.randn_like(other.embedding_table))
    other.model.save_pretrained(tmp_path / "other")
    before = {key: value.clone() for key, value in other.state_dict().items()}
    tuner, plain = rl.build(lm, policy={"lm": str(tmp_path / "other")}), rl.build(lm)
    assert tuner.writer is tuner.policy_lm
    assert plain.writer is lm
    generator = torch.Generator()
    sampled = tuner.policy.sample(tuner.writer, 9, generator.manual_seed(0))
    torch.testing.assert_close(
        sampled.hidden[:, 0],
        tuner.writer.model.base_model(torch.tensor([[lm.bos_id]]))[0][:, -1].expand(9, -1),
    )
    assert not torch.equal(
        sampled.token_ids, plain.policy.sample(lm, 9, generator.manual_seed(0)).token_ids
    )
    trainer = rl.fit(tuner, tmp_path)
    assert all(torch.equal(v, before[k]) for k, v in tuner.policy_lm.state_dict().items())
    trainer.save_checkpoint(path := tmp_path / "a.ckpt")
    keys = torch.load(path, weights_only=True)["state_dict"].keys()
    assert not [key for key in keys if "lm." in key]


def test_a_language_model_of_other_tokens_is_refused(
    rl, lm: FrozenLM, lm_folder: Path, tmp_path: Path
):
    shutil.copytree(lm_folder, tmp_path / "other")
    path = tmp_path / "other" / "tokenizer.json"
    content = json.loads(path.read_text())
    words = content["model"]["vocab"]
    words["a"], words["b"] = words["b"], words["a"]
    path.write_text(json.dumps(content))
    with pytest.raises(PromptError, match=r"policy\.lm .* other tokens"):
        rl.build(lm, policy={"lm": str(tmp_path / "other")})


# ---- where it begins


def test_without_init_the_greedy_prompt_comes_first(rl, lm: FrozenLM):
    tuner = rl.build(lm)
    assert torch.equal(tuner.hard_prompt(), tuner.policy.greedy(lm))
    assert torch.equal(tuner.soft_prompt(), lm.embed(tuner.hard_prompt()))
    assert torch.equal(tuner.prompt_embeddings(), tuner.soft_prompt())
    assert not tuner.has_soft_prompt


def test_a_given_text_is_the_first_incumbent(rl, lm: FrozenLM, tmp_path: Path):
    tuner = rl.build(lm, init=FromText("Wow"), policy={"mlp_size": 512, "top_k": 101})
    ids = tuple(lm.encode("Wow"))
    assert rl.ids_of(tuner) == ids
    logits = tuner.policy(lm, tuner.policy.read(lm, torch.tensor([ids])).hidden)
    log_p = logits.log_softmax(-1)[0].gather(-1, torch.tensor(ids)[:, None])
    assert log_p.mean().exp() >= 0.1
    rl.fit(tuner, tmp_path, steps=1)
    assert tuner.ledger[ids].validated  # whatever else was better


def test_a_given_text_of_another_length_is_cut_or_repeated(rl, lm: FrozenLM):
    tuner = rl.build(lm, init=FromText("ab"))
    assert lm.decode(tuner.hard_prompt().tolist()) == "aba"


# ---- prompts.jsonl


def test_the_listed_prompts(rl, lm: FrozenLM, tmp_path: Path):
    tuner = rl.build(lm)
    rl.fit(tuner, tmp_path, steps=6, batches=1, callbacks=[PromptList()])
    (path,) = tmp_path.rglob("prompts.jsonl")
    lines = path.read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert rows == tuner.listed_prompts()
    assert rows[0]["ids"] == tuner.hard_prompt().tolist()
    assert len(rows) == len(tuner.ledger)  # fewer than a hundred
    assert len({row["text"] for row in rows}) == len(rows)
    for row in rows:
        assert row["text"] == lm.decode(row["ids"])
        nats = rl.reference_nats(lm, torch.tensor([row["ids"]])).item()
        assert row["perplexity"] == pytest.approx(math.exp(nats), rel=1e-4)
        assert row["times"] or "reward" not in row
        if row["times"]:
            raw = rl.reference_rewards(tuner, torch.tensor([row["ids"]])).item()
            assert row["reward"] == pytest.approx(raw, abs=2e-3)
    number = sum("val_objective" in row for row in rows)
    assert 0 < number < len(rows)
    objectives = [row["val_objective"] for row in rows[:number]]
    assert objectives == sorted(objectives)
    rewards = [row["reward"] for row in rows[number:]]
    assert rewards == sorted(rewards, reverse=True)


def test_tuners_that_know_one_prompt_list_none(rl, lm: FrozenLM, tmp_path: Path):
    parts = Template(LAST, lm), Verbalizer(rl.words, lm)
    rl.fit(ManualPrompt(lm, *parts, text="It is"), tmp_path, callbacks=[PromptList()])
    assert not list(tmp_path.iterdir())


# ---- mistakes


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"alpha": 1.5}, r"^alpha is 1\.5.*0 to 1"),
        ({"alpha": -0.1}, r"^alpha is -0\.1"),
        ({"prompt_length": 0}, r"^prompt_length is 0; give at least 1"),
        ({"prompts_per_step": 1}, r"^prompts_per_step is 1; give at least 2"),
        ({"candidates": -1}, r"^candidates is -1; give at least 0"),
        ({"kl_weight": -1.0}, r"^kl_weight is -1\.0; give at least 0"),
        ({"entropy_weight": -1.0}, r"^entropy_weight is -1\.0"),
        ({"scrutability_scale": -1.0}, r"^scrutability_scale is -1\.0"),
        ({"target_rate": 0.0}, r"^target_rate is 0\.0"),
        ({"target_rate": 1.1}, r"^target_rate is 1\.1"),
        ({"policy": {"top_k": 0}}, r"^top_k is 0"),
    ],
    ids=str,
)
def test_numbers_out_of_range_are_refused(rl, lm: FrozenLM, change: dict[str, Any], named: str):
    with pytest.raises(PromptError, match=named):
        rl.build(lm, **change)


def test_a_policy_in_half_precision_is_refused(rl, lm: FrozenLM, tmp_path: Path):
    with pytest.raises(PromptError, match=r"bf16-true'\) keeps the policy in half precision"):
        rl.fit(rl.build(lm), tmp_path, precision="bf16-true")
    assert lm.embedding_table.dtype == torch.float32
