"""Two processes write the same prompts, and learn what one process learns."""

import json
from pathlib import Path

import pytest
import torch

from lightning_prompts.cli.main import main
from tests.two_processes import assert_two_agree

STEPS = 6
# What a process writes down beside metrics and prompts.
SEEN = '"policy": {k: v.tolist() for k, v in module.policy.state_dict().items()},'


# 24 training rows: one batch an epoch, whose rewards are remembered, or three.
@pytest.mark.slow
@pytest.mark.parametrize("rows", [24, 8], ids=["one batch", "several batches"])
@pytest.mark.parametrize("text", ["{text}{prompt}", "{prompt} {text} It was"])
def test_two_processes(
    rows: int, text: str, lm_folder: Path, review_folder: Path, tmp_path: Path, monkeypatch
):
    args = [
        *("fit", "--config", "configs/tuner/rlprompt.yaml", "--config", "configs/task/demo.yaml"),
        *("--lm.name", str(lm_folder), "--data.path", str(review_folder)),
        *("--data.template", text, "--trainer.precision", "32-true"),
        *("--model.policy.top_k", "5", "--model.policy.mlp_size", "32", "--model.alpha", "0.2"),
        *("--model.prompts_per_step", "8", "--model.optimizer.lr", "0.001"),
        *("--trainer.max_steps", str(STEPS), "--trainer.val_check_interval", "3"),
        *("--trainer.log_every_n_steps", "1", "--trainer.accelerator", "cpu"),
        *("--trainer.enable_progress_bar", "false"),
    ]
    moments = [("train", step) for step in range(1, STEPS + 1)] + [("val", 3), ("val", 6)]
    assert_two_agree([*args, "--data.batch_size", str(rows // 2)], tmp_path, SEEN, moments)

    experiment = tmp_path / "logs" / "rlprompt-demo"
    assert [path.name for path in experiment.iterdir()] == ["version_0"]
    monkeypatch.chdir(tmp_path)
    cli = main([*args, "--data.batch_size", str(rows), "--experiment", "alone"], show=False)
    assert cli.trainer.global_step == STEPS
    runs = experiment / "version_0", tmp_path / "logs" / "alone" / "version_0"
    own, alone = (torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in runs)
    assert own["state_dict"].keys() == alone["state_dict"].keys()
    assert torch.equal(own["prompts"]["ids"], alone["prompts"]["ids"])
    for name, value in alone["state_dict"].items():
        torch.testing.assert_close(own["state_dict"][name], value, rtol=0, atol=1e-6, msg=name)
    listed = [[json.loads(line) for line in (run / "prompts.jsonl").open()] for run in runs]
    assert len(listed[0]) == len(listed[1]) > 8
    for row, expected in zip(*listed, strict=True):
        assert row.pop("text") == expected.pop("text")
        assert row.pop("ids") == expected.pop("ids")
        assert row == pytest.approx(expected, abs=1e-3)
    metrics = [json.loads((run / "prompt.json").read_text())["metrics"] for run in runs]
    assert metrics[0] == pytest.approx(metrics[1], abs=1e-5)
