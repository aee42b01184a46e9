"""Two processes through the command line: one run, one prompt, the same metrics in both."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lightning_prompts.cli import main

# Imported by the processes from their working directory.
WITNESS = """
import json, os
from lightning.pytorch import Callback

class Witness(Callback):
    def on_validation_end(self, trainer, module):
        values = {k: float(v) for k, v in trainer.callback_metrics.items() if k[:4] == "val/"}
        values["prompt"] = module.soft_prompt().tolist()
        name = f"rank{trainer.global_rank}-{trainer.global_step}.json"
        with open(name, "w") as file:
            json.dump(values, file)
"""


@pytest.mark.slow
@pytest.mark.parametrize("tuner", ["soft", "pez"])
def test_two_processes(tuner: str, lm_folder: Path, review_folder: Path, tmp_path, monkeypatch):
    (tmp_path / "witness.py").write_text(WITNESS)
    args = [
        *("fit", "--config", f"configs/tuner/{tuner}.yaml", "--config", "configs/task/demo.yaml"),
        *("--lm.name", str(lm_folder), "--data.path", str(review_folder)),
        *("--data.batch_size", "4", "--trainer.precision", "32-true"),
        *("--trainer.max_steps", "4", "--trainer.val_check_interval", "2"),
        *("--trainer.accelerator", "cpu", "--trainer.devices", "2", "--trainer.strategy", "ddp"),
        "--trainer.callbacks+=witness.Witness",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "lightning_prompts", *args],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("majority") == 1  # one table

    experiment = tmp_path / "logs" / f"{tuner}-demo"
    assert [path.name for path in experiment.iterdir()] == ["version_0"]
    run = experiment / "version_0"
    assert len(list(run.glob("events*"))) == 1
    for step in (2, 4):
        first, second = (
            json.loads((tmp_path / f"rank{rank}-{step}.json").read_text()) for rank in (0, 1)
        )
        assert first == second

    # Each row was counted once: one process alone measures the same.
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    alone = ("--trainer.devices", "1", "--trainer.strategy", "auto", "--trainer.callbacks", "null")
    cli = main(["validate", "--config", str(run / "config.yaml"), "--ckpt_path", "best", *alone])
    written = json.loads((run / "prompt.json").read_text())["metrics"]
    measured = {name: float(value) for name, value in cli.trainer.callback_metrics.items()}
    assert measured == pytest.approx(written, abs=1e-5)
    content = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert set(content["state_dict"]) == {"prompt"}
