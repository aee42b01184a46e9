"""A stopped RLPrompt run goes on bit by bit: policy, target, prompts seen, and what was chosen."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_prompts.cli import PromptCLI, main

STEPS = 8  # validations at 5 and 8
FULL = Path("logs/full/version_0")


class Stop(Callback):
    """Sends this process SIGTERM after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer, *args):
        if trainer.global_step == self.step:
            os.kill(os.getpid(), signal.SIGTERM)


# 24 training rows: one batch an epoch, whose rewards are remembered, or three.
@pytest.fixture(scope="module", params=[24, 8], ids=["one batch", "several batches"])
def fit(request, lm_folder: Path, review_folder: Path, tmp_path_factory: pytest.TempPathFactory):
    """Runs `fit` in a folder where one run has been left to its end."""
    options = [
        *("--config", "configs/tuner/rlprompt.yaml", "--config", "configs/task/demo.yaml"),
        *("--lm.name", str(lm_folder), "--data.path", str(review_folder)),
        *("--data.template", "{text}{prompt}", "--data.batch_size", str(request.param)),
        # Few tokens to choose from, so that prompts recur; steps long enough to change them.
        *("--model.policy.top_k", "3", "--model.policy.mlp_size", "32"),
        *("--model.prompts_per_step", "6", "--model.alpha", "0.2"),
        *("--model.optimizer.lr", "0.01", "--model.target_rate", "0.2"),
        *("--trainer.val_check_interval", "5", "--trainer.log_every_n_steps", "1"),
        *("--trainer.enable_progress_bar", "false"),
    ]

    def run(name: str, *args: str, run: bool = True, steps: int = STEPS) -> PromptCLI:
        own = ("--experiment", name, "--trainer.max_steps", str(steps))
        return main(["fit", *options, *own, *args], run=run, show=False)

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("rlprompt"))
        run("full")
        yield run


def last(run: Path) -> dict[str, Any]:
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)


def logged(run: Path) -> dict[str, dict[int, float]]:
    """All values that a run's event files hold, by name and step."""
    found: dict[str, dict[int, float]] = {}
    for path in sorted(run.glob("events*"), key=lambda path: path.stat().st_mtime):
        events = EventAccumulator(str(path), size_guidance={"scalars": 0})
        events.Reload()
        for name in events.Tags()["scalars"]:
            for event in events.Scalars(name):
                found.setdefault(name, {})[event.step] = event.value
    return {k: v for k, v in found.items() if k.startswith(("train/", "val/"))}


def assert_same(own: Any, expected: Any, place: str = "") -> None:
    """Nested values equal, to the last bit."""
    assert type(own) is type(expected), place
    if isinstance(expected, torch.Tensor):
        # NaN where a prompt was validated and never written
        torch.testing.assert_close(own, expected, rtol=0, atol=0, equal_nan=True, msg=place)
    elif isinstance(expected, dict):
        assert list(own) == list(expected), place
        for key in expected:
            assert_same(own[key], expected[key], f"{place}/{key}")
    elif isinstance(expected, list):
        assert len(own) == len(expected), place
        for i, (a, b) in enumerate(zip(own, expected, strict=True)):
            assert_same(a, b, f"{place}/{i}")
    else:
        assert own == expected, place


def test_the_run_is_worth_resuming(fit):
    """Prompts recur, the policy learns, and a later prompt is chosen."""
    content = last(FULL)
    times = content["prompts"]["numbers"][:, 1]
    assert times.sum() == 6 * STEPS
    assert times.max() > 1
    assert len(content["prompts"]["validated"]) >= 4
    weights = content["state_dict"]
    assert not torch.equal(weights["policy.mlp.2.weight"], weights["policy.target.2.weight"])
    curves = logged(FULL)
    assert list(curves["train/reward"]) == list(range(STEPS))
    assert list(curves["val/objective"]) == list(curves["val/greedy_objective"]) == [5, 8]


@pytest.mark.parametrize("step", [2, 5, 6, 7])
def test_a_signal(fit, step: int):
    cli = fit(f"signal-{step}", run=False)
    cli.trainer.callbacks.insert(0, Stop(step))
    with pytest.raises(SystemExit) as stopped:
        cli.start()
    assert stopped.value.code == 128 + signal.SIGTERM
    run = Path(f"logs/signal-{step}/version_0")
    assert last(run)["global_step"] == step
    main(["fit", "--config", str(run / "config.yaml"), "--ckpt_path", "last"], show=False)

    own, expected = last(run), last(FULL)
    assert own["global_step"] == STEPS
    for key in ("state_dict", "optimizer_states", "prompts"):
        assert_same(own[key], expected[key], key)
    assert logged(run) == logged(FULL)
    for name in ("prompt.json", "prompts.jsonl"):
        assert (run / name).read_text() == (FULL / name).read_text()


def test_a_smaller_number_of_steps(fit):
    """Its end was one validation more, which may choose another prompt and teaches nothing."""
    fit("steps-3", steps=3)
    fit("steps-3", "--ckpt_path", "last")
    run = Path("logs/steps-3/version_0")
    own, expected = last(run), last(FULL)
    assert_same(own["optimizer_states"], expected["optimizer_states"])
    for key, value in expected["state_dict"].items():
        if key.startswith("policy."):
            assert torch.equal(own["state_dict"][key], value), key
    curves, full = logged(run), logged(FULL)
    train = {name for name in full if name.startswith("train/")} - {"train/distinct_prompts"}
    assert {name: curves[name] for name in train} == {name: full[name] for name in train}
    best = json.loads((run / "prompt.json").read_text())["metrics"]["val/objective"]
    assert best <= json.loads((FULL / "prompt.json").read_text())["metrics"]["val/objective"]
