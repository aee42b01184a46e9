"""A process leaves its group before it ends, whatever ends it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lightning_prompts.tuners.process_group import leave_group, leave_group_at_exit
from tests.patience import PATIENCE

# Registered before all others, so it runs after them, when only threads of C++ are left.
LOOK = """
import atexit, os, sys

def look():
    import torch
    name = f"left-{os.environ.get('LOCAL_RANK', 0)}"
    with open(os.path.join(os.path.dirname(__file__), name), "w") as file:
        file.write(str(not torch.distributed.is_initialized()))

if "-m" in sys.orig_argv:  # not in multiprocessing's own processes
    atexit.register(look)
"""
# What ends the run within its third step, on one of the processes.
WAYS = """
import os, signal
from lightning.pytorch import Callback
from lightning_prompts.files.errors import PromptError

class Ends(Callback):
    def __init__(self, way: str, rank: int):
        self.way, self.rank = way, rank

    def on_train_batch_end(self, trainer, *args):
        assert trainer.world_size == 2
        if trainer.global_step != 3 or trainer.global_rank != self.rank:
            return
        if self.way == "signal":
            os.kill(os.getpid(), signal.SIGTERM)
        elif self.way == "mistake":
            raise PromptError("This is a mistake.")
        elif self.way == "bug":
            raise KeyError("a bug")
"""


def test_a_group_is_left(monkeypatch):
    registered = []
    monkeypatch.setattr("atexit.register", registered.append)
    leave_group_at_exit.cache_clear()
    leave_group_at_exit()
    leave_group_at_exit()
    assert registered == [leave_group]  # once, however many tuners there are
    leave_group()  # where there is no group
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    leave_group()
    assert not torch.distributed.is_initialized()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("way", "rank", "status"), [("end", 0, 0), ("signal", 1, 143), ("mistake", 0, 2), ("bug", 0, 1)]
)
def test_each_way_out_leaves_the_group(
    way: str, rank: int, status: int, lm_folder: Path, review_folder: Path, tmp_path: Path
):
    (tmp_path / "sitecustomize.py").write_text(LOOK)
    (tmp_path / "ways.py").write_text(WAYS)
    args = [
        *("fit", "--config", "configs/tuner/soft.yaml", "--config", "configs/task/demo.yaml"),
        *("--lm.name", str(lm_folder), "--data.path", str(review_folder)),
        *("--data.batch_size", "4", "--trainer.precision", "32-true"),
        *("--trainer.accelerator", "cpu", "--trainer.max_steps", "4"),
        *("--trainer.val_check_interval", "4", "--trainer.devices", "2"),
        *("--trainer.strategy", "ddp", "--trainer.callbacks+=ways.Ends"),
        *("--trainer.callbacks.way", way, "--trainer.callbacks.rank", str(rank)),
    ]
    path = os.pathsep.join([str(tmp_path), *sys.path])
    done = subprocess.run(
        [sys.executable, "-m", "lightning_prompts", *args],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == status, done.stderr
    assert "active exception" not in done.stderr
    # Where the first process ends with an error, the other one may be killed.
    for process in (0, 1) if way in ("end", "signal") else (0,):
        assert (tmp_path / f"left-{process}").read_text() == "True"
