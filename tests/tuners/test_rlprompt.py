"""RLPrompt with Lightning's real Trainer on the tiny model."""

import copy
import json
import math
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_prompts.errors import PromptError
from lightning_prompts.language_model import FrozenLM
from lightning_prompts.policy import PolicySettings, Sampled
from lightning_prompts.prompt_init import FromText
from lightning_prompts.prompt_list import PromptList
from lightning_prompts.rewards import ClassificationGap, PromptMeasures, Reward, Scores
from lightning_prompts.rewards.base import Reduce, standardise
from lightning_prompts.tasks import TextClassification
from lightning_prompts.template import Batch, Template, collate
from lightning_prompts.tuners import ManualPrompt, RLPrompt, SoftPrompt
from lightning_prompts.verbalizer import Verbalizer

ROWS = [("A warm and funny film", 1), ("Dull", 0), ("Fine work!", 1), ("No plot, no jokes", 0)]
VALIDATION = [("Quiet, clever and kind.", 1), ("A mess.", 0), ("So flat", 0)]
WORDS = {"negative": " bad", "positive": " good"}
P, K = 3, 6
FIRST, LAST = "{prompt} {text} It was", "{text}{prompt}"
MLP = {f"{i}.{name}" for i in (0, 2) for name in ("weight", "bias")}


class Spy(ClassificationGap):
    """Writes down which prompts are scored on which rows."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.calls: list[tuple[list[tuple[int, ...]], list[int]]] = []

    def __call__(self, prompts: Tensor, batch: Batch, seed: int, reduce: Reduce) -> Scores:
        ids = [tuple(prompt) for prompt in prompts.tolist()]
        self.calls.append((ids, batch["rows"].tolist()))
        return super().__call__(prompts, batch, seed, reduce)


class Watch(Callback):
    """Keeps every logged value, the sampled prompts and the gradients of every step."""

    def __init__(self) -> None:
        self.validations: list[dict[str, float]] = []
        self.train: list[dict[str, float]] = []
        self.gradients: list[dict[str, Tensor]] = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        grads = {n: p.grad for n, p in pl_module.named_parameters() if p.grad is not None}
        self.gradients.append({name: grad.clone() for name, grad in grads.items()})

    def on_train_batch_end(self, trainer, *args):
        logged = trainer.callback_metrics.items()
        self.train.append({k: float(v) for k, v in logged if k.startswith("train/")})

    def on_validation_end(self, trainer, pl_module):
        logged = trainer.callback_metrics.items()
        self.validations.append({k: float(v) for k, v in logged if k.startswith("val/")})


def build(lm: FrozenLM, text: str = LAST, policy: Mapping[str, Any] | None = None, **kwargs: Any):
    options = {"prompt_length": P, "prompts_per_step": K, "candidates": 2} | kwargs
    options.setdefault("optimizer", partial(torch.optim.Adam, lr=1e-2))
    settings = PolicySettings(**({"mlp_size": 32, "top_k": 20} | dict(policy or {})))
    parts = Template(text, lm), Verbalizer(WORDS, lm)
    return RLPrompt(lm, *parts, policy=settings, **options)


def make_batch(tuner: RLPrompt | ManualPrompt, rows: list[tuple[str, int]] = ROWS) -> Batch:
    examples = [tuner.template.encode({"text": text}) for text, _ in rows]
    return collate(examples, [label for _, label in rows], range(len(rows)))


def fit(tuner: Any, folder: Path, steps: int = 3, batches: int = 1, **kwargs: Any) -> Trainer:
    """`batches` of the same rows an epoch, and a validation at the end of each."""
    loader = DataLoader([make_batch(tuner)] * batches, batch_size=None)
    options = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False}
    options |= {"enable_model_summary": False, "num_sanity_val_steps": 0, "max_steps": steps}
    options |= {"enable_checkpointing": False, "log_every_n_steps": 1}
    trainer = Trainer(default_root_dir=folder, **(options | kwargs))
    trainer.fit(tuner, loader, DataLoader([make_batch(tuner, VALIDATION)], batch_size=None))
    return trainer


def ids_of(tuner: RLPrompt) -> tuple[int, ...]:
    return tuple(tuner.hard_prompt().tolist())


# ---- what learns, and what is saved


@pytest.mark.parametrize("text", [FIRST, LAST])
def test_only_the_policy_s_mlp_learns(lm: FrozenLM, tmp_path: Path, text: str):
    before = {key: value.clone() for key, value in lm.state_dict().items()}
    tuner, watch = build(lm, text), Watch()
    start = copy.deepcopy(tuner.policy.mlp.state_dict())
    fit(tuner, tmp_path, callbacks=[watch])
    assert all(torch.equal(value, before[key]) for key, value in lm.state_dict().items())
    assert all(parameter.grad is None for parameter in lm.parameters())
    for gradients in watch.gradients:
        assert gradients.keys() == {f"policy.mlp.{name}" for name in MLP}
    learned = tuner.policy.mlp.state_dict()
    assert not any(torch.equal(learned[name], start[name]) for name in MLP)


def test_the_target_follows_before_each_step(lm: FrozenLM, tmp_path: Path):
    tuner = build(lm, target_rate=0.25)
    expected = {name: value.clone() for name, value in tuner.policy.mlp.state_dict().items()}

    class Follow(Callback):
        def on_train_batch_start(self, trainer, pl_module, *args):
            for name, value in pl_module.policy.mlp.state_dict().items():
                expected[name] = 0.75 * expected[name] + 0.25 * value

    fit(tuner, tmp_path, steps=4, callbacks=[Follow()])
    for name, value in tuner.policy.target.state_dict().items():
        torch.testing.assert_close(value, expected[name])
        assert not torch.allclose(value, tuner.policy.mlp.state_dict()[name])


def test_a_checkpoint_holds_the_policy_the_prompt_and_the_ledger(lm: FrozenLM, tmp_path: Path):
    tuner = build(lm)
    trainer = fit(tuner, tmp_path, steps=4)
    trainer.save_checkpoint(path := tmp_path / "a.ckpt")
    saved = torch.load(path, weights_only=True)
    both = {f"policy.{part}.{name}" for part in ("mlp", "target") for name in MLP}
    assert saved["state_dict"].keys() == both | {"token_ids", "incumbent_objective"}
    assert saved["lightning_prompts"]["token_ids"] == tuner.hard_prompt().tolist()
    assert len(saved["prompts"]["ids"]) == len(tuner.ledger) > K

    other = build(lm, seed=5)
    assert not torch.equal(other.policy.mlp[0].weight, tuner.policy.mlp[0].weight)
    other.on_load_checkpoint(saved)
    other.load_state_dict(saved["state_dict"], strict=True)
    assert ids_of(other) == ids_of(tuner)
    assert other.ledger.entries == tuner.ledger.entries
    for name, value in tuner.policy.state_dict().items():
        assert torch.equal(other.policy.state_dict()[name], value)
    saved["state_dict"]["token_id"] = saved["state_dict"].pop("token_ids")
    with pytest.raises(RuntimeError, match="token_id"):
        other.load_state_dict(saved["state_dict"], strict=True)


def test_another_setting_s_checkpoint_is_refused(lm: FrozenLM, tmp_path: Path):
    fit(build(lm), tmp_path).save_checkpoint(path := tmp_path / "a.ckpt")
    saved = torch.load(path, weights_only=True)
    with pytest.raises(PromptError, match=r"prompt length is 3 .* 4"):
        build(lm, prompt_length=4).on_load_checkpoint(saved)
    soft = SoftPrompt(lm, Template(LAST, lm), Verbalizer(WORDS, lm), prompt_length=P)
    with pytest.raises(PromptError, match="tuner is 'RLPrompt'"):
        soft.on_load_checkpoint(saved)


def test_another_language_model_may_write(lm: FrozenLM, lm_folder: Path, tmp_path: Path):
    shutil.copytree(lm_folder, tmp_path / "other")
    other = FrozenLM(str(lm_folder))
    with torch.no_grad():
        other.embedding_table.add_(0.3 * torch.randn_like(other.embedding_table))
    other.model.save_pretrained(tmp_path / "other")
    before = {key: value.clone() for key, value in other.state_dict().items()}
    tuner, plain = build(lm, policy={"lm": str(tmp_path / "other")}), build(lm)
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
    trainer = fit(tuner, tmp_path)
    assert all(torch.equal(v, before[k]) for k, v in tuner.policy_lm.state_dict().items())
    trainer.save_checkpoint(path := tmp_path / "a.ckpt")
    keys = torch.load(path, weights_only=True)["state_dict"].keys()
    assert not [key for key in keys if "lm." in key]


def test_a_language_model_of_other_tokens_is_refused(lm: FrozenLM, lm_folder: Path, tmp_path: Path):
    shutil.copytree(lm_folder, tmp_path / "other")
    path = tmp_path / "other" / "tokenizer.json"
    content = json.loads(path.read_text())
    words = content["model"]["vocab"]
    words["a"], words["b"] = words["b"], words["a"]
    path.write_text(json.dumps(content))
    with pytest.raises(PromptError, match=r"policy\.lm .* other tokens"):
        build(lm, policy={"lm": str(tmp_path / "other")})


# ---- the loss, end to end


def reference_rewards(tuner: RLPrompt, prompts: Tensor) -> Tensor:
    """[K] One prompt and one example at a time, by whole strings of tokens."""
    lm, raw = tuner.lm, []
    before, after = tuner.template.text.split("{prompt}")
    for prompt in prompts.tolist():
        total = 0.0
        for text, label in ROWS:
            ids = [lm.encode(piece.format(text=text)) for piece in (before, after)]
            logits = lm.model(torch.tensor([ids[0] + prompt + ids[1]])).logits[0, -1].double()
            shares = logits[tuner.verbalizer.token_ids].softmax(-1).tolist()
            gap = shares[label] - shares[1 - label]
            total += (200 if gap > 0 else 180) * gap / len(ROWS)
        raw.append(total)
    return torch.tensor(raw)


def reference_nats(lm: FrozenLM, prompts: Tensor) -> Tensor:
    """[K] Nats per token."""
    ids = torch.cat([torch.full((len(prompts), 1), lm.bos_id), prompts], dim=1)
    log_p = lm.model(ids).logits[:, :-1].log_softmax(-1)
    return -log_p.gather(-1, prompts[..., None])[..., 0].mean(1)


def reference_loss(tuner: RLPrompt, mlp: nn.Module, target: nn.Module, prompts: Tensor) -> Tensor:
    """The loss of one step, written out, with another copy of the networks."""
    lm, ones = tuner.lm, torch.ones(len(prompts))
    ids = torch.cat([torch.full((len(prompts), 1), lm.bos_id), prompts], dim=1)
    hidden = lm.model(ids, output_hidden_states=True).hidden_states[-1][:, :-1].detach()

    def q_values(network: nn.Module | None) -> Tensor:
        states = hidden if network is None else hidden + network(hidden)
        values = states @ lm.embedding_table.T
        values[..., lm.special_ids] = -torch.inf
        return values

    def log_p_of(values: Tensor) -> Tensor:
        return values.log_softmax(-1).gather(-1, prompts[..., None])[..., 0]

    values = q_values(mlp)
    log_p, prior = log_p_of(values), log_p_of(q_values(None)).detach()
    terms = standardise(reference_rewards(tuner, prompts)), -reference_nats(lm, prompts).detach()
    reward = (1 - tuner.alpha) * terms[0] + tuner.alpha * standardise(terms[1])
    shaped, w = 5 * reward, 5 * tuner.kl_weight  # rewards of 0 to 1 become 0 to 5
    if tuner.loss == "soft_q":
        v = q_values(target).logsumexp(-1).detach()
        if w:
            log_p, v = log_p - prior, v - q_values(None).logsumexp(-1).detach()
            shaped = shaped / w
        loss = torch.zeros(())
        for k in range(len(prompts)):
            for t in range(P):
                following = shaped[k] if t == P - 1 else v[k, t + 1]
                loss = loss + (log_p[k, t] - following + v[k, t]) ** 2 / 2
                loss = loss + (log_p[k, t:].sum() - shaped[k] + v[k, t]) ** 2 / 2
        loss = loss / len(prompts)
    else:
        shaped = shaped - w * (log_p.detach() - prior).sum(1)
        if tuner.loss == "grpo":
            above = (shaped - shaped.mean()) / (shaped.std(correction=0) + 1e-4)
        else:
            above = shaped - (shaped.sum() - shaped) / (len(prompts) - 1)
        loss = -(above * log_p.sum(1) * ones).mean()
    if tuner.entropy_weight:
        shares = values.softmax(-1)
        nats = -(shares * shares.clamp(min=1e-30).log()).sum(-1).mean()
        loss = loss - tuner.entropy_weight * nats
    return loss


def move(network: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)


def first_step(tuner: RLPrompt, folder: Path) -> tuple[Tensor, dict[str, Tensor], Watch]:
    """The prompts of one step, its gradients, and what was logged."""
    drawn: list[Sampled] = []
    sample, watch = tuner.policy.sample, Watch()

    def keep(*args: Any) -> Sampled:
        drawn.append(sample(*args))
        return drawn[-1]

    tuner.policy.sample = keep
    fit(tuner, folder, steps=1, callbacks=[watch])
    return drawn[0].token_ids, watch.gradients[0], watch


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(
    "loss",
    [
        {"loss": "soft_q"},
        {"loss": "soft_q", "kl_weight": 1.0},
        {"loss": "soft_q", "kl_weight": 0.5, "entropy_weight": 2.0},
        {"loss": "reinforce"},
        {"loss": "reinforce", "kl_weight": 0.3},
        {"loss": "grpo", "entropy_weight": 0.1},
        {"loss": "grpo", "kl_weight": 1.0},
    ],
    ids=str,
)
@pytest.mark.parametrize("text", [FIRST, LAST])
def test_a_step_s_gradient_is_that_of_the_written_out_loss(
    lm: FrozenLM, tmp_path: Path, text: str, loss: dict[str, Any], alpha: float
):
    tuner = build(lm, text, alpha=alpha, target_rate=0.5, **loss)
    move(tuner.policy.mlp, 0)
    move(tuner.policy.target, 1)
    mlp, target = copy.deepcopy(tuner.policy.mlp), copy.deepcopy(tuner.policy.target)
    with torch.no_grad():
        for own, other in zip(mlp.parameters(), target.parameters(), strict=True):
            other.copy_(0.5 * own + 0.5 * other)
    prompts, gradients, watch = first_step(tuner, tmp_path)
    assert prompts.shape == (K, P)
    expected = reference_loss(tuner, mlp, target, prompts)
    expected.backward()
    assert watch.train[0]["train/loss"] == pytest.approx(expected.item(), rel=1e-3, abs=1e-3)
    for name, parameter in mlp.named_parameters():
        size = parameter.grad.abs().max().item()
        assert size > 1e-4
        got = gradients[f"policy.mlp.{name}"]
        torch.testing.assert_close(got, parameter.grad, rtol=1e-3, atol=2e-3 * size)


@pytest.mark.parametrize("loss", ["soft_q", "reinforce", "grpo"])
@pytest.mark.parametrize("change", [{"alpha": 0.5}, {"alpha": 1.0}, {"kl_weight": 1.0}], ids=str)
def test_each_weight_changes_the_gradient(
    lm: FrozenLM, tmp_path: Path, loss: str, change: dict[str, float]
):
    found = []
    for options in ({}, change):
        tuner = build(lm, loss=loss, **options)
        move(tuner.policy.mlp, 0)
        found.append(first_step(tuner, tmp_path))
    assert torch.equal(found[0][0], found[1][0])
    plain, changed = (gradients["policy.mlp.2.weight"] for _, gradients, _ in found)
    assert (changed - plain).norm() > 0.1 * plain.norm()


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_mix_raw_takes_both_as_measured(lm: FrozenLM, tmp_path: Path, scale: float):
    tuner = build(lm, alpha=0.9, mix="raw", scrutability_scale=scale, loss="reinforce")
    prompts, _, watch = first_step(tuner, tmp_path)
    nats = reference_nats(lm, prompts).detach()
    shaped = 5 * (0.1 * reference_rewards(tuner, prompts) - 0.9 * scale * nats)
    above = (shaped - shaped.mean()) * K / (K - 1)
    # The policy begins as the language model, which may not say its special tokens.
    ids = torch.cat([torch.full((K, 1), lm.bos_id), prompts], dim=1)
    log_p = lm.model(ids).logits[:, :-1].index_fill(-1, torch.tensor(lm.special_ids), -torch.inf)
    log_p = log_p.log_softmax(-1).gather(-1, prompts[..., None])[..., 0].sum(1)
    expected = -(above * log_p).mean().item()
    assert watch.train[0]["train/loss"] == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("loss", ["soft_q", "reinforce", "grpo"])
def test_equal_prompts_do_no_harm(lm: FrozenLM, tmp_path: Path, loss: str):
    """With one token to choose from, all prompts of a step and their rewards are equal."""
    tuner, watch = build(lm, loss=loss, policy={"top_k": 1}), Watch()
    fit(tuner, tmp_path, steps=4, callbacks=[watch])
    assert all(math.isfinite(v) for logged in watch.train for v in logged.values())
    assert all(p.isfinite().all() for p in tuner.policy.parameters())
    if loss != "soft_q":  # whose values are learned even so
        assert all(g.abs().max() < 1e-3 for grads in watch.gradients for g in grads.values())


@pytest.mark.parametrize(
    "loss",
    [{"loss": "soft_q", "kl_weight": 0.2}, {"loss": "reinforce"}, {"loss": "grpo"}],
    ids=str,
)
def test_rewards_rise(lm: FrozenLM, tmp_path: Path, loss: dict[str, Any]):
    tuner, watch = build(lm, prompts_per_step=16, **loss), Watch()
    fit(tuner, tmp_path, 60, 60, callbacks=[watch])
    rewards = [logged["train/reward"] for logged in watch.train]
    spread = torch.tensor(rewards[:10]).std().item()
    assert sum(rewards[-10:]) / 10 > sum(rewards[:10]) / 10 + spread


def test_alpha_makes_prompts_readable(lm: FrozenLM, tmp_path: Path):
    found = []
    for alpha in (0.0, 1.0):
        tuner, watch = build(lm, alpha=alpha, prompts_per_step=16, loss="reinforce"), Watch()
        fit(tuner, tmp_path, 60, 60, callbacks=[watch])
        found.append(watch.train[-1]["train/log_perplexity"])
    assert found[1] < found[0] - 0.3


def test_bfloat16_leaves_the_policy_in_float32(lm: FrozenLM, tmp_path: Path):
    tuner, watch = build(lm), Watch()
    fit(tuner, tmp_path, callbacks=[watch], precision="bf16-mixed")
    assert all(p.dtype == torch.float32 for p in tuner.policy.parameters())
    assert all(math.isfinite(v) for logged in watch.train for v in logged.values())


# ---- the incumbent


@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_the_incumbent_is_the_best_that_was_validated(lm: FrozenLM, tmp_path: Path, alpha: float):
    tuner, watch = build(lm, alpha=alpha), Watch()
    fit(tuner, tmp_path, steps=12, batches=2, callbacks=[watch])
    validated = {ids: e.validated for ids, e in tuner.ledger.entries.items() if e.validated}
    assert len(validated) > 6
    best = min(validated, key=lambda ids: validated[ids]["objective"])
    assert ids_of(tuner) == best
    assert tuner.incumbent_objective.item() == validated[best]["objective"]

    objectives = [logged["val/objective"] for logged in watch.validations]
    assert objectives == sorted(objectives, reverse=True)
    if alpha == 0.0:  # with readability the first, the language model's own greedy text, stays
        assert objectives[-1] < objectives[0]
    assert objectives[-1] == pytest.approx(validated[best]["objective"], rel=1e-5)
    for values in validated.values():
        expected = (1 - alpha) * values["loss"] + alpha * values["log_perplexity"]
        assert values["objective"] == pytest.approx(expected, rel=1e-6)


def test_each_validation_scores_the_best_new_prompts_and_the_greedy_one(
    lm: FrozenLM, tmp_path: Path
):
    tuner = build(lm, candidates=2, policy={"top_k": 3})
    train, validate = tuner.scorer.train, tuner.scorer.validate
    rewards: dict[tuple[int, ...], list[float]] = {}
    known: set[tuple[int, ...]] = set()
    checked = []

    def trained(token_ids, *args):
        scored = train(token_ids, *args)
        for ids, reward in zip(token_ids.tolist(), scored.task.raw.tolist(), strict=True):
            rewards.setdefault(tuple(ids), []).append(reward)
        return scored

    def validated(prompts, *args):
        means = {ids: sum(values) / len(values) for ids, values in rewards.items()}
        wanted = sorted(means, key=lambda ids: -means[ids])[:2]
        wanted.append(tuple(tuner.policy.greedy(lm).tolist()))
        if not checked:
            wanted.append(ids_of(tuner))  # what the run began with
        assert list(prompts) == [ids for ids in dict.fromkeys(wanted) if ids not in known]
        checked.append(prompts)
        known.update(prompts)
        rewards.clear()
        return validate(prompts, *args)

    tuner.scorer.train, tuner.scorer.validate = trained, validated
    fit(tuner, tmp_path, steps=6, batches=2)
    assert len(checked) == 3


def test_without_candidates_the_greedy_prompt_is_scored(lm: FrozenLM, tmp_path: Path):
    tuner = build(lm, candidates=0)
    start = ids_of(tuner)
    fit(tuner, tmp_path, steps=1)
    validated = {ids for ids, e in tuner.ledger.entries.items() if e.validated}
    assert validated == {start, tuple(tuner.policy.greedy(lm).tolist())}


def test_the_greedy_prompt_s_metrics_are_logged(lm: FrozenLM, tmp_path: Path):
    tuner, watch = build(lm), Watch()
    fit(tuner, tmp_path, steps=5, callbacks=[watch])
    greedy = tuner.ledger[tuple(tuner.policy.greedy(lm).tolist())].validated
    logged = watch.validations[-1]
    names = {"loss", "accuracy", "reward", "objective", "log_perplexity"}
    assert {f"val/greedy_{name}" for name in names} <= logged.keys()
    assert greedy.keys() == names
    for name in names:
        assert logged[f"val/greedy_{name}"] == pytest.approx(greedy[name], rel=1e-6)
    assert logged["val/objective"] <= logged["val/greedy_objective"] + 1e-6


@pytest.mark.parametrize("text", [FIRST, LAST])
def test_its_metrics_are_those_of_a_manual_prompt_of_the_same_text(
    lm: FrozenLM, tmp_path: Path, text: str
):
    tuner, watch = build(lm, text), Watch()
    fit(tuner, tmp_path, steps=5, callbacks=[watch])
    words = lm.decode(tuner.hard_prompt().tolist())
    manual = ManualPrompt(lm, tuner.template, tuner.verbalizer, text=words)
    assert torch.equal(manual.hard_prompt(), tuner.hard_prompt())
    metrics = fit(manual, tmp_path).callback_metrics
    for name in ("loss", "accuracy", "macro_f1", "objective"):
        assert watch.validations[-1][f"val/{name}"] == pytest.approx(metrics[f"val/{name}"].item())
    entry = tuner.ledger[ids_of(tuner)].validated
    assert entry["accuracy"] == pytest.approx(metrics["val/accuracy"].item())


def test_a_validation_outside_fit_chooses_nothing(lm: FrozenLM, tmp_path: Path):
    tuner, watch = build(lm), Watch()
    trainer = fit(tuner, tmp_path, steps=4, callbacks=[watch])
    before, known = ids_of(tuner), copy.deepcopy(tuner.ledger.entries)
    move(tuner.policy.mlp, 3)
    loader = DataLoader([make_batch(tuner, VALIDATION)], batch_size=None)
    (values,) = trainer.validate(tuner, loader, verbose=False)
    assert ids_of(tuner) == before
    assert tuner.ledger.entries == known
    assert values["val/loss"] == pytest.approx(watch.validations[-1]["val/loss"])
    assert not [name for name in values if "greedy" in name]


def test_the_sanity_check_chooses_nothing(lm: FrozenLM, tmp_path: Path):
    tuner, seen = build(lm), []

    class Look(Callback):
        def on_sanity_check_end(self, trainer, pl_module):
            seen.append(len(pl_module.ledger))

    fit(tuner, tmp_path, steps=1, num_sanity_val_steps=1, callbacks=[Look()])
    assert seen == [0]


def test_limited_validation_batches_count_for_candidates_too(lm: FrozenLM, tmp_path: Path):
    tuner, watch = build(lm), Watch()
    halves = [make_batch(tuner, [row]) for row in VALIDATION]
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
    loaders = [DataLoader(b, batch_size=None) for b in ([make_batch(tuner)], halves)]
    trainer.fit(tuner, *loaders)
    objective = tuner.incumbent_objective.item()
    assert watch.validations[-1]["val/loss"] == pytest.approx(objective, rel=1e-5)
    measures = tuner.reward.measures("val", lambda x: x)
    for batch in halves[:2]:
        measures.update(tuner.token_ids[None], batch)
    assert measures.compute()["loss"].item() == pytest.approx(objective, rel=1e-6)


# ---- where it begins


def test_without_init_the_greedy_prompt_comes_first(lm: FrozenLM):
    tuner = build(lm)
    assert torch.equal(tuner.hard_prompt(), tuner.policy.greedy(lm))
    assert torch.equal(tuner.soft_prompt(), lm.embed(tuner.hard_prompt()))
    assert torch.equal(tuner.prompt_embeddings(), tuner.soft_prompt())
    assert not tuner.has_soft_prompt


def test_a_given_text_is_the_first_incumbent(lm: FrozenLM, tmp_path: Path):
    tuner = build(lm, init=FromText("Wow"), policy={"mlp_size": 512, "top_k": 101})
    ids = tuple(lm.encode("Wow"))
    assert ids_of(tuner) == ids
    logits = tuner.policy(lm, tuner.policy.read(lm, torch.tensor([ids])).hidden)
    log_p = logits.log_softmax(-1)[0].gather(-1, torch.tensor(ids)[:, None])
    assert log_p.mean().exp() >= 0.1
    fit(tuner, tmp_path, steps=1)
    assert tuner.ledger[ids].validated  # whatever else was better


def test_a_given_text_of_another_length_is_cut_or_repeated(lm: FrozenLM):
    tuner = build(lm, init=FromText("ab"))
    assert lm.decode(tuner.hard_prompt().tolist()) == "aba"


# ---- what is remembered


def test_one_batch_is_scored_once_for_each_prompt(lm: FrozenLM, tmp_path: Path):
    spy, watch = Spy(), Watch()
    tuner = build(lm, reward=spy, policy={"top_k": 2})  # few prompts, which soon recur
    fit(tuner, tmp_path, steps=8, callbacks=[watch])
    scored = [ids for prompts, _ in spy.calls for ids in prompts]
    written = {ids for ids, e in tuner.ledger.entries.items() if e.times}
    assert len(scored) == len(set(scored)) == len(written) < 8 * K / 2
    assert set(scored) == written
    assert sum(e.times for e in tuner.ledger.entries.values()) == 8 * K
    assert len(spy.calls) < 8
    assert watch.train[-1]["train/distinct_prompts"] <= len(tuner.ledger)


def test_remembered_rewards_are_the_measured_ones(lm: FrozenLM, tmp_path: Path):
    """A run that measures every prompt anew learns the same."""
    found = []
    for remembers in (True, False):
        tuner, watch = build(lm, policy={"top_k": 2}), Watch()
        if not remembers:
            tuner.scorer._remembered = lambda prompts: {}
        fit(tuner, tmp_path, steps=8, callbacks=[watch])
        found.append((tuner.policy.mlp.state_dict(), watch.train))
    for logged, expected in zip(found[0][1], found[1][1], strict=True):
        assert logged == pytest.approx(expected, rel=1e-4, abs=1e-4)
    for name in MLP:
        torch.testing.assert_close(found[0][0][name], found[1][0][name], rtol=1e-3, atol=1e-4)


def test_several_batches_are_scored_at_every_step(lm: FrozenLM, tmp_path: Path):
    spy = Spy()
    tuner = build(lm, reward=spy, policy={"top_k": 2})
    fit(tuner, tmp_path, steps=8, batches=4)
    assert len(spy.calls) == 8
    for prompts, _ in spy.calls:
        assert len(prompts) == len(set(prompts))  # equal ones once a step
    again = [ids for prompts, _ in spy.calls for ids in prompts]
    assert len(again) > len(set(again))
    assert sum(e.times for e in tuner.ledger.entries.values()) == 8 * K


def test_a_first_batch_of_several_is_not_all_there_is(
    lm: FrozenLM, review_folder: Path, tmp_path: Path
):
    """`limit_train_batches 1` takes other rows in each epoch: nothing may be remembered."""
    task = TextClassification(lm, LAST, WORDS, path=str(review_folder), batch_size=8)
    spy = Spy()
    tuner = build(lm, reward=spy, policy={"top_k": 1})
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
        return Scores(raw, standardise(raw), {"sevens": (prompts == 7).float().sum(1)})

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


def test_a_task_without_an_accuracy_logs_what_its_reward_measures(lm: FrozenLM, tmp_path: Path):
    reward, watch = Sevens(), Watch()
    tuner = build(lm, reward=reward, policy={"top_k": 2}, prompt_length=2)
    trainer = fit(tuner, tmp_path, steps=4, callbacks=[watch])
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

    loader = DataLoader([make_batch(tuner, VALIDATION)] * 2, batch_size=None)
    (values,) = trainer.test(tuner, loader, verbose=False)
    assert reward.stages[-1] == "test"
    assert (values["test/sevens"], values["test/rows"]) == (sevens, 6)
    assert "test/accuracy" not in values


def test_the_seed_of_what_is_drawn_follows_from_run_and_step(lm: FrozenLM, tmp_path: Path):
    seeds = []
    for seed in (0, 0, 1):
        reward = Sevens()
        fit(build(lm, reward=reward, seed=seed), tmp_path)
        seeds.append([s for _, s in reward.calls])
    assert seeds[0] == seeds[1]
    assert not set(seeds[0]) & set(seeds[2])


# ---- prompts.jsonl


def test_the_listed_prompts(lm: FrozenLM, tmp_path: Path):
    tuner = build(lm)
    fit(tuner, tmp_path, steps=6, batches=2, callbacks=[PromptList()])
    lines = (tmp_path / "prompts.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert rows == tuner.listed_prompts()
    assert rows[0]["ids"] == tuner.hard_prompt().tolist()
    assert len(rows) == len(tuner.ledger)  # fewer than a hundred
    assert len({row["text"] for row in rows}) == len(rows)
    for row in rows:
        assert row["text"] == lm.decode(row["ids"])
        nats = reference_nats(lm, torch.tensor([row["ids"]])).item()
        assert row["perplexity"] == pytest.approx(math.exp(nats), rel=1e-4)
        assert row["times"] or "reward" not in row
        if row["times"]:
            raw = reference_rewards(tuner, torch.tensor([row["ids"]])).item()
            assert row["reward"] == pytest.approx(raw, abs=2e-3)
    number = sum("val_objective" in row for row in rows)
    assert 0 < number < len(rows)
    objectives = [row["val_objective"] for row in rows[:number]]
    assert objectives == sorted(objectives)
    rewards = [row["reward"] for row in rows[number:]]
    assert rewards == sorted(rewards, reverse=True)


def test_tuners_that_know_one_prompt_list_none(lm: FrozenLM, tmp_path: Path):
    parts = Template(LAST, lm), Verbalizer(WORDS, lm)
    fit(ManualPrompt(lm, *parts, text="It is"), tmp_path, callbacks=[PromptList()])
    assert not list(tmp_path.iterdir())


# ---- mistakes


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"alpha": 1.5}, r"--model\.alpha is 1\.5.*0 to 1"),
        ({"alpha": -0.1}, r"--model\.alpha is -0\.1"),
        ({"prompt_length": 0}, r"--model\.prompt_length is 0; give at least 1"),
        ({"prompts_per_step": 1}, r"--model\.prompts_per_step is 1; give at least 2"),
        ({"candidates": -1}, r"--model\.candidates is -1; give at least 0"),
        ({"kl_weight": -1.0}, r"--model\.kl_weight is -1\.0; give 0 or more"),
        ({"entropy_weight": -1.0}, r"--model\.entropy_weight is -1\.0"),
        ({"scrutability_scale": -1.0}, r"--model\.scrutability_scale is -1\.0"),
        ({"target_rate": 0.0}, r"--model\.target_rate is 0\.0"),
        ({"target_rate": 1.1}, r"--model\.target_rate is 1\.1"),
        ({"policy": {"top_k": 0}}, r"--model\.policy\.top_k is 0"),
    ],
    ids=str,
)
def test_numbers_out_of_range_are_refused(lm: FrozenLM, change: dict[str, Any], named: str):
    with pytest.raises(PromptError, match=named):
        build(lm, **change)
