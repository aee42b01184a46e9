"""SLURM's signal: a run is saved after a whole step, its job queued again, and it goes on."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.patience import PATIENCE
from tests.resuming import assert_same

# Sends SLURM's signal to one process alone, within a step: the other one learns of it.
SIGNAL = """
import os, signal
from lightning.pytorch import Callback

class Warned(Callback):
    def on_train_batch_start(self, trainer, *args):
        if trainer.global_rank == 1 and trainer.global_step == 2:
            os.kill(os.getpid(), signal.SIGUSR1)
"""
SCONTROL = """#!/bin/sh
echo "$@" >> "$(dirname "$0")/asked"
"""


def job(folder: Path, *args: str) -> list[tuple[int, str]]:
    """Run a command line as srun would run two tasks of a job; exit status and errors of each."""
    shared = {
        **os.environ,
        "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join([str(folder), *sys.path]),
        "OMP_NUM_THREADS": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(20000 + os.getpid() % 20000),
        "SLURM_JOB_ID": "4711",
        "SLURM_JOB_NAME": "prompts",
        "SLURM_NTASKS": "2",
        "SLURM_NTASKS_PER_NODE": "2",
        "SLURM_NNODES": "1",
        "SLURM_NODEID": "0",
    }
    tasks = [
        subprocess.Popen(
            [sys.executable, "-m", "lightning_prompts", *args],
            cwd=folder,
            env={**shared, "SLURM_PROCID": rank, "SLURM_LOCALID": rank},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in ("0", "1")
    ]
    try:
        said = [task.communicate(timeout=PATIENCE) for task in tasks]
    finally:
        for task in tasks:
            task.kill()
    return [
        (task.returncode, out + errors) for task, (out, errors) in zip(tasks, said, strict=True)
    ]


@pytest.mark.slow
def test_a_job_goes_on_as_if_it_had_not_been_stopped(
    lm_folder: Path, review_folder: Path, tmp_path: Path
):
    (tmp_path / "warned.py").write_text(SIGNAL)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "scontrol").write_text(SCONTROL)
    (tmp_path / "bin" / "scontrol").chmod(0o755)
    args = [
        *("fit", "--config", "configs/tuner/soft.yaml", "--config", "configs/task/demo.yaml"),
        *("--config", "configs/trainer/slurm.yaml", "--trainer.devices", "2"),
        *("--lm.name", str(lm_folder), "--data.path", str(review_folder)),
        *("--data.batch_size", "4", "--trainer.precision", "32-true"),
        *("--trainer.accelerator", "cpu", "--trainer.max_steps", "5"),
        *("--trainer.val_check_interval", "5"),
    ]
    stopped = job(tmp_path, *args, "--experiment", "stopped", "--trainer.callbacks+=warned.Warned")
    assert [status for status, _ in stopped] == [138, 0], stopped
    assert "job 4711 in its queue again" in stopped[0][1]
    assert (tmp_path / "bin" / "asked").read_text() == "requeue 4711\n"
    assert not list(tmp_path.rglob("hpc_ckpt*"))  # which any later fit would begin with
    run = tmp_path / "logs" / "stopped" / "version_0"
    last = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == 3

    again = job(
        tmp_path,
        *("fit", "--config", str(run / "config.yaml"), "--ckpt_path", "last"),
        *("--trainer.callbacks", "null"),
    )
    whole = job(tmp_path, *args, "--experiment", "whole")
    assert [status for status, _ in (*again, *whole)] == [0] * 4, (again, whole)
    own, expected = (
        torch.load(tmp_path / f"logs/{name}/version_0/checkpoints/last.ckpt", weights_only=True)
        for name in ("stopped", "whole")
    )
    assert own["global_step"] == expected["global_step"] == 5
    for key in ("state_dict", "optimizer_states", "lr_schedulers"):
        assert_same(own[key], expected[key], key)
    assert (tmp_path / "bin" / "asked").read_text().count("requeue") == 1
