"""What holds for every tuner, with Lightning's real Trainer on the tiny model."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_prompts.files.errors import PromptError
from lightning_prompts.lm.batch import Batch, collate
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.lm.template import Template
from lightning_prompts.lm.verbalizer import Verbalizer
from lightning_prompts.tuners import (
    PEZ,
    BoundedPrompt,
    GuidedSearch,
    ManualPrompt,
    PromptTuner,
    RLPrompt,
    SoftPrompt,
)
from lightning_prompts.tuners.prompt_init import FromText
from lightning_prompts.tuners.rl.policy import PolicySettings

ROWS = [("A warm and funny film", 1), ("Dull", 0), ("Fine work!", 1), ("No plot, no jokes", 0)] * 2
ADAMW = partial(torch.optim.AdamW, lr=0.05, weight_decay=0.0)
MAKE: dict[str, Callable[..., PromptTuner]] = {
    "soft": partial(SoftPrompt, prompt_length=4, optimizer=ADAMW),
    "pez": partial(PEZ, prompt_length=4, optimizer=partial(ADAMW, lr=0.1)),
    "released": partial(PEZ, prompt_length=4, optimizer=ADAMW, keep_continuous=False),
    "bounded": partial(BoundedPrompt, init=FromText("It is"), optimizer=ADAMW),
    "manual": partial(ManualPrompt, text="It is"),
    "rlprompt": partial(
        RLPrompt,
        prompt_length=4,
        prompts_per_step=8,
        policy=PolicySettings(mlp_size=32),
        optimizer=ADAMW,
    ),
    "guided": partial(GuidedSearch, prompt_length=4, max_length=6, candidates=16, race=[2]),
}
MLP = {
    f"{part}.{i}.{name}"
    for part in ("mlp", "target")
    for i in (0, 2)
    for name in ("weight", "bias")
}


def build(
    name: str, lm: FrozenLM, text: str = "{prompt} {text} It was", **kwargs: Any
) -> PromptTuner:
    words = {"negative": " bad", "positive": " good"}
    return MAKE[name](lm, Template(text, lm), Verbalizer(words, lm), **kwargs)


def make_batch(tuner: PromptTuner) -> Batch:
    examples = [tuner.template.encode({"text": text}) for text, _ in ROWS]
    return collate(examples, [label for _, label in ROWS], range(len(ROWS)))


def fit(tuner: PromptTuner, folder: Path, steps: int = 3, **kwargs: Any) -> Trainer:
    loader = DataLoader([make_batch(tuner)] * steps, batch_size=None)
    options = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False}
    options |= {"enable_model_summary": False, "num_sanity_val_steps": 0, "max_steps": steps}
    trainer = Trainer(default_root_dir=folder, **(options | kwargs))
    trainer.fit(tuner, loader, DataLoader([make_batch(tuner)], batch_size=None))
    return trainer


class Unsaid(PromptTuner):
    """A tuner that says all but whether vectors or tokens are in use."""

    def soft_prompt(self) -> Tensor:
        return self.lm.embedding_table[:3]

    prompt_embeddings = soft_prompt


def test_a_tuner_has_to_say_what_is_in_use(lm: FrozenLM):
    parts = lm, Template("{text}{prompt}", lm), Verbalizer({"0": " bad", "1": " good"}, lm)
    with pytest.raises(PromptError, match=r"Unsaid does not say .* `soft_in_use = True`"):
        Unsaid(*parts)

    class Said(Unsaid):
        soft_in_use = True

    assert Said(*parts).slug == "unsaid"


@pytest.mark.parametrize("name", MAKE)
@pytest.mark.parametrize("text", ["{prompt} {text} It was", "{text}{prompt}"])
def test_fit_leaves_the_lm_bit_identical(lm: FrozenLM, tmp_path: Path, name: str, text: str):
    before = {key: value.clone() for key, value in lm.state_dict().items()}
    tuner = build(name, lm, text)
    start = tuner.soft_prompt().detach().clone()
    trainer = fit(tuner, tmp_path)
    assert all(torch.equal(value, before[key]) for key, value in lm.state_dict().items())
    assert all(parameter.grad is None for parameter in lm.parameters())
    assert torch.equal(tuner.soft_prompt(), start) is not tuner.learns
    logged = {"val/loss", "val/accuracy", "val/macro_f1", "val/objective"}
    assert logged <= trainer.callback_metrics.keys()


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("soft", {"prompt"}),
        ("pez", {"prompt"}),
        ("bounded", {"prompt", "text_ids"}),
        ("manual", {"token_ids", "idle"}),
        ("guided", {"token_ids", "idle"}),
        ("rlprompt", {f"policy.{key}" for key in MLP} | {"token_ids"}),
    ],
)
def test_a_checkpoint_holds_the_prompt_alone_and_loads_strictly(
    lm: FrozenLM, tmp_path: Path, name: str, keys: set[str]
):
    tuner = build(name, lm)
    trainer = fit(tuner, tmp_path)
    trainer.save_checkpoint(path := tmp_path / "a.ckpt")
    saved = torch.load(path, weights_only=True)
    assert saved["state_dict"].keys() == keys
    assert saved["lightning_prompts"]["ids"] == tuner.hard_prompt().tolist()
    assert saved["lightning_prompts"]["metrics"]["val/loss"] == pytest.approx(
        trainer.callback_metrics["val/loss"].item()
    )

    other = build(name, lm, seed=5) if name != "manual" else build(name, lm)
    other.on_load_checkpoint(saved)
    other.load_state_dict(saved["state_dict"], strict=True)
    assert torch.equal(other.soft_prompt(), tuner.soft_prompt())


@pytest.mark.parametrize("name", ["soft", "pez"])
def test_a_misspelt_prompt_key_is_not_loaded_silently(lm: FrozenLM, tmp_path: Path, name: str):
    tuner = build(name, lm)
    fit(tuner, tmp_path).save_checkpoint(path := tmp_path / "a.ckpt")
    saved = torch.load(path, weights_only=True)
    saved["state_dict"]["promt"] = saved["state_dict"].pop("prompt")
    tuner.on_load_checkpoint(saved)
    with pytest.raises(RuntimeError, match="promt"):
        tuner.load_state_dict(saved["state_dict"], strict=True)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"text": "{prompt} {text} So:"}, "template is '{prompt} {text} It was'.*So:"),
        ({"prompt_length": 7}, "prompt length is 4 .* 7"),
        ({"name": "released"}, None),
        ({"name": "soft"}, "tuner is 'PEZ' .* 'SoftPrompt'"),
    ],
)
def test_another_settings_checkpoint_is_refused(
    lm: FrozenLM, tmp_path: Path, change: dict[str, Any], named: str | None
):
    tuner = build("pez", lm)
    fit(tuner, tmp_path).save_checkpoint(path := tmp_path / "a.ckpt")
    saved = torch.load(path, weights_only=True)
    other = build(**({"name": "pez", "lm": lm} | change))
    if named is None:
        other.on_load_checkpoint(saved)
    else:
        with pytest.raises(PromptError, match=named):
            other.on_load_checkpoint(saved)


def test_another_lm_or_verbalizer_is_refused(lm: FrozenLM, tmp_path: Path):
    tuner = build("soft", lm)
    fit(tuner, tmp_path).save_checkpoint(path := tmp_path / "a.ckpt")
    saved = torch.load(path, weights_only=True)
    words = Verbalizer({"negative": " terrible", "positive": " great"}, lm)
    other = SoftPrompt(lm, tuner.template, words, prompt_length=4)
    with pytest.raises(PromptError, match=r"verbalizer is .* good.* great"):
        other.on_load_checkpoint(saved)
    saved["lightning_prompts"]["lm"] |= {"label": "other-lm", "fingerprint": "0" * 16}
    with pytest.raises(PromptError, match="language model is 'other-lm"):
        tuner.on_load_checkpoint(saved)
    with pytest.raises(PromptError, match="no prompt record"):
        tuner.on_load_checkpoint({"state_dict": {}})


@pytest.mark.parametrize("name", ["soft", "pez"])
def test_the_loss_falls_on_eight_rows(lm: FrozenLM, tmp_path: Path, name: str):
    first, last = (
        fit(build(name, lm), tmp_path, steps).callback_metrics["val/loss"] for steps in (1, 60)
    )
    assert last < first - 0.01


@pytest.mark.parametrize("name", MAKE)
def test_fit_validates_at_its_last_step(lm: FrozenLM, tmp_path: Path, name: str):
    tuner, steps = build(name, lm), []
    tuner.on_validation_epoch_start = lambda: steps.append(tuner.global_step)
    fit(tuner, tmp_path, steps=5, val_check_interval=4, check_val_every_n_epoch=None)
    assert steps == ([4, 5] if tuner.learns else [1])


def test_fit_validates_at_the_end_of_its_last_epoch(lm: FrozenLM, tmp_path: Path):
    tuner, steps = build("soft", lm), []
    tuner.on_validation_epoch_start = lambda: steps.append(tuner.global_step)
    fit(
        tuner,
        tmp_path,
        5,
        max_steps=-1,
        max_epochs=2,
        val_check_interval=4,
        check_val_every_n_epoch=None,
    )
    assert steps == [4, 8, 10]


def reference_log_perplexity(tuner: PromptTuner, inputs: Tensor, ids: Tensor) -> Tensor:
    """-1/P sum_i log p(u_i | bos, u_<i), one position at a time through the whole model."""
    lm, total = tuner.lm, torch.zeros(())
    for i, token in enumerate(ids.tolist()):
        bos = lm.embed(torch.tensor([lm.bos_id]))
        logits = lm.model(inputs_embeds=torch.cat([bos, inputs[:i]])[None]).logits[0, -1]
        total = total - logits.log_softmax(-1)[token]
    return total / len(ids)


@pytest.mark.parametrize("name", ["soft", "pez"])
@pytest.mark.parametrize("w", [0.1, 0.5, 1.0])
def test_the_perplexity_weight_changes_loss_and_gradient(lm: FrozenLM, name: str, w: float):
    plain, weighted = build(name, lm), build(name, lm, perplexity_weight=w)
    losses = [tuner.training_step(make_batch(tuner), 0) for tuner in (plain, weighted)]
    for loss in losses:
        loss.backward()

    rows = lm.embed(plain.hard_prompt()).clone().requires_grad_()
    log_perplexity = reference_log_perplexity(plain, rows, plain.hard_prompt())
    log_perplexity.backward()
    expected = (1 - w) * losses[0] + w * log_perplexity
    torch.testing.assert_close(losses[1], expected)
    expected_grad = (1 - w) * plain.prompt.grad + w * rows.grad
    torch.testing.assert_close(weighted.prompt.grad, expected_grad, rtol=1e-4, atol=1e-6)
    assert (weighted.prompt.grad - plain.prompt.grad).norm() > 0.1 * plain.prompt.grad.norm() * w


def test_objective_is_the_weighted_sum(lm: FrozenLM, tmp_path: Path):
    tuner = build("pez", lm, perplexity_weight=0.3)
    metrics = fit(tuner, tmp_path).callback_metrics
    nats = reference_log_perplexity(tuner, tuner.prompt_embeddings(), tuner.hard_prompt())
    assert metrics["val/objective"].item() == pytest.approx(
        0.7 * metrics["val/loss"].item() + 0.3 * nats.item(), rel=1e-5
    )


def test_hard_log_perplexity_follows_the_prompt(lm: FrozenLM):
    tuner = build("soft", lm)
    first = tuner.hard_log_perplexity()
    assert tuner.hard_log_perplexity() is first
    with torch.no_grad():
        tuner.prompt.copy_(lm.embed(torch.tensor(lm.encode("Good"))))
    assert tuner.hard_log_perplexity() != first


def test_metrics_are_those_of_the_prompt_in_use(lm: FrozenLM, tmp_path: Path):
    tuner = build("manual", lm)
    metrics = fit(tuner, tmp_path).callback_metrics
    losses, hits = [], []
    for text, label in ROWS:
        ids = torch.tensor([lm.encode(f"It is {text} It was")])
        logits = lm.model(ids).logits[0, -1, tuner.verbalizer.token_ids].double()
        losses.append(-logits.log_softmax(-1)[label].item())
        hits.append(logits.argmax().item() == label)
    assert metrics["val/loss"].item() == pytest.approx(sum(losses) / 8, rel=1e-5)
    assert metrics["val/accuracy"].item() == pytest.approx(sum(hits) / 8)


def test_a_loss_that_is_no_number_stops_the_run(lm: FrozenLM, tmp_path: Path):
    tuner = build("soft", lm)
    with torch.no_grad():
        tuner.prompt.fill_(float("nan"))
    with pytest.raises(
        PromptError,
        match=r"At step 3 val/objective is nan; lower opt",
    ):
        fit(tuner, tmp_path)


def test_a_weight_outside_zero_to_one_is_refused(lm: FrozenLM):
    with pytest.raises(PromptError, match="from 0 to 1"):
        build("soft", lm, perplexity_weight=1.5)


def test_every_tuner_is_an_abstract_base_s_subclass(lm: FrozenLM):
    assert all(isinstance(build(name, lm), PromptTuner | LightningModule) for name in MAKE)
    with pytest.raises(TypeError, match="abstract"):
        PromptTuner(lm, Template("{prompt}{text}", lm), Verbalizer({"a": " bad", "b": " good"}, lm))


@pytest.mark.parametrize("name", ["soft", "rlprompt"])
@pytest.mark.parametrize("text", ["{prompt} {text}", "{text}{prompt}", "{text}{prompt} {text}"])
def test_padding_is_a_share_of_the_batch(lm: FrozenLM, tmp_path: Path, name: str, text: str):
    tuner = build(name, lm, text)
    quiet = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False}
    quiet |= {"enable_progress_bar": False, "enable_model_summary": False}
    for texts in [("A warm film", "Dull", "No jokes"), ("Fine work!", "ab"), ("a", "abcdefgh")]:
        examples = [tuner.template.encode({"text": each}) for each in texts]
        batch = collate(examples, [0] * len(texts), range(len(texts)))
        slots = padding = 0
        for side in ("before_ids", "after_ids"):
            lengths = [len(getattr(example, side)) for example in examples]
            slots += len(lengths) * max(lengths)
            padding += sum(max(lengths) - length for length in lengths)
        trainer = Trainer(max_epochs=1, log_every_n_steps=1, **quiet)
        trainer.fit(tuner, DataLoader([batch], batch_size=None))
        assert padding > 0.2 * slots
        assert trainer.callback_metrics["train/padding"] == pytest.approx(padding / slots)


@pytest.mark.parametrize(("spread", "said"), [(0.14, False), (1.03, True)])
def test_a_model_of_large_embeddings_wants_larger_steps(
    lm_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, spread: float, said: bool
):
    lm = FrozenLM(str(lm_folder))
    table = lm.embedding_table.data
    table.mul_(spread / table.std())
    caplog.set_level("INFO", "lightning_prompts")
    for name in ("soft", "pez", "manual"):
        caplog.clear()
        fit(build(name, lm), tmp_path, steps=1)
        found = [r.getMessage() for r in caplog.records if "times as large" in r.getMessage()]
        assert bool(found) is (said and name != "manual")
        assert all("are 7 times as large" in message for message in found)
