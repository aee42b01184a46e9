"""Two processes write the same prompts, and learn what one process learns."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lightning_prompts.cli import main

# Imported by the processes from their working directory.
WITNESS = """
import json
from lightning.pytorch import Callback

class Witness(Callback):
    def on_train_batch_end(self, trainer, module, *args):
        self.write(trainer, module, "train")

    def on_validation_end(self, trainer, module):
        self.write(trainer, module, "val")

    def write(self, trainer, module, stage):
        # Padding is of each process's own rows.
        logged = [(k, v) for k, v in trainer.callback_metrics.items() if k != "train/padding"]
        seen = {
            "metrics": {k: float(v) for k, v in logged if k.startswith(stage)},
            "prompt": module.hard_prompt().tolist(),
            "ledger": module.listed_prompts(),
            "policy": {k: v.tolist() for k, v in module.policy.state_dict().items()},
        }
        with open(f"{stage}-{trainer.global_rank}-{trainer.global_step}.json", "w") as file:
            json.dump(seen, file)
"""
STEPS = 6


# 24 training rows: one batch an epoch, whose rewards are remembered, or three.
@pytest.mark.slow
@pytest.mark.parametrize("rows", [24, 8], ids=["one batch", "several batches"])
@pytest.mark.parametrize("text", ["{text}{prompt}", "{prompt} {text} It was"])
def test_two_processes(
    rows: int, text: str, lm_folder: Path, review_folder: Path, tmp_path: Path, monkeypatch
):
    (tmp_path / "witness.py").write_text(WITNESS)
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
    two = ["--trainer.devices", "2", "--trainer.strategy", "ddp"]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "lightning_prompts", *args, *two),
            *("--data.batch_size", str(rows // 2), "--trainer.callbacks+=witness.Witness"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    moments = [("train", step) for step in range(1, STEPS + 1)] + [("val", 3), ("val", 6)]
    for stage, step in moments:
        first, second = (
            json.loads((tmp_path / f"{stage}-{rank}-{step}.json").read_text()) for rank in (0, 1)
        )
        assert first == second
        assert first["metrics"]

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
