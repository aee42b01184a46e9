"""A stopped RLPrompt run goes on bit by bit: policy, target, prompts seen, and what was chosen."""

import json
from pathlib import Path

import pytest
import torch

from lightning_prompts.cli.app import PromptCLI
from lightning_prompts.cli.main import main
from tests.resuming import assert_resumes_after_a_signal, assert_same, last, logged

STEPS = 8  # validations at 5 and 8
FULL = Path("logs/full/version_0")


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
    assert last(FULL)["global_step"] == STEPS
    assert_resumes_after_a_signal(fit, step, FULL, ("state_dict", "optimizer_states", "prompts"))


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
