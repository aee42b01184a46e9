"""Checkpoints are written whole whatever plugins a user gives, and by the user's own way if any."""

from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.plugins import TorchCheckpointIO
from lightning.pytorch.plugins.environments import LightningEnvironment

from lightning_prompts.cli.main import main
from lightning_prompts.runs.checkpoint_io import WholeCheckpoints
from lightning_prompts.runs.folder import CHECKPOINTS, CONFIG
from lightning_prompts.studies.trial import _left


class Own(TorchCheckpointIO):
    """A user's."""


@pytest.mark.parametrize(
    ("plugins", "expected"),
    [
        ([], WholeCheckpoints),
        ([f"{LightningEnvironment.__module__}.LightningEnvironment"], WholeCheckpoints),
        ([f"{__name__}.Own"], Own),
    ],
    ids=["none", "another", "its own"],
)
def test_plugins(plugins: list[str], expected: type, lm_folder: Path, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cli = main(
        [
            *("fit", "--config", "configs/tuner/soft.yaml", "--config", "configs/task/demo.yaml"),
            *("--lm.name", str(lm_folder)),
            *(f"--trainer.plugins+={plugin}" for plugin in plugins),
        ],
        run=False,
    )
    assert type(cli.trainer.strategy.checkpoint_io).__name__ == expected.__name__


def test_only_the_last_one_leaves_a_previous_one(tmp_path: Path):
    io = WholeCheckpoints()
    content: dict[str, Any] = {"global_step": 1}
    for name in ("best", "last"):
        for step in (1, 2):
            io.save_checkpoint({**content, "global_step": step}, tmp_path / f"{name}.ckpt")
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["best.ckpt", "last.ckpt", "previous.ckpt"]
    steps = [io.load_checkpoint(tmp_path / name)["global_step"] for name in names]
    assert steps == [2, 2, 1]


def test_a_study_takes_the_one_before_a_damaged_one(tmp_path: Path):
    assert _left(tmp_path) is None
    (tmp_path / CONFIG).touch()
    io, folder = WholeCheckpoints(), tmp_path / CHECKPOINTS
    content = {"state_dict": {}, "pytorch-lightning_version": "2.6"}
    for step in (1, 2):
        io.save_checkpoint({**content, "global_step": step}, folder / "last.ckpt")
    assert _left(tmp_path) == folder / "last.ckpt"
    (folder / "last.ckpt").write_bytes((folder / "last.ckpt").read_bytes()[:-40])
    assert _left(tmp_path) == folder / "previous.ckpt"
    (folder / "previous.ckpt").write_text("half of it")
    assert _left(tmp_path) is None
