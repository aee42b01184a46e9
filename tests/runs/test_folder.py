"""`best` and `last` mean one run: the given configuration's, else the experiment's newest."""

from pathlib import Path

import pytest

from lightning_prompts.files.errors import PromptError
from lightning_prompts.runs.folder import (
    find_checkpoint,
    newest_run,
    next_version,
    run_of_checkpoint,
    run_of_config,
)


def make_run(folder: Path, *checkpoints: str) -> Path:
    """A run's folder with a configuration and empty checkpoints."""
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").touch()
    for name in checkpoints:
        (folder / "checkpoints" / f"{name}.ckpt").touch()
    return folder


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    """Runs 0, 9 and 10, the newest of which has only its last checkpoint; and an evaluation, 11."""
    experiment = tmp_path / "logs" / "soft-demo"
    make_run(experiment / "version_0", "best", "last")
    make_run(experiment / "version_10", "last")
    make_run(experiment / "version_9", "best", "last")
    (experiment / "version_11").mkdir()
    (experiment / "notes.txt").touch()
    make_run(tmp_path / "logs" / "pez-demo" / "version_20", "best", "last")
    return experiment


def test_versions_count_on(experiment: Path, tmp_path: Path):
    assert next_version(experiment) == experiment / "version_12"
    assert next_version(tmp_path / "new") == tmp_path / "new" / "version_0"
    assert newest_run(experiment) == experiment / "version_10"  # by number, not by spelling
    assert newest_run(tmp_path / "new") is None


def test_a_named_run_is_found_where_nothing_is_counted(tmp_path: Path):
    make_run(tmp_path / "trial-a", "best")
    assert newest_run(tmp_path) == tmp_path / "trial-a"


def test_the_configuration_decides(experiment: Path, tmp_path: Path):
    config = experiment / "version_0" / "config.yaml"
    tuner = tmp_path / "configs" / "soft.yaml"
    for configs in ([config], [tuner, config], [config, tuner]):
        found = find_checkpoint("best", configs, experiment)
        assert found == experiment / "version_0" / "checkpoints" / "best.ckpt"
    assert run_of_config([tuner]) is None
    assert find_checkpoint("last", [tuner], experiment).parents[1].name == "version_10"


def test_no_other_run_stands_in(experiment: Path, tmp_path: Path):
    with pytest.raises(PromptError, match=r"version_10 has not saved best\.ckpt"):
        find_checkpoint("best", [], experiment)
    with pytest.raises(PromptError, match=r"no run in .*soft-other"):
        find_checkpoint("best", [], tmp_path / "logs" / "soft-other")
    with pytest.raises(PromptError, match="no such file"):
        find_checkpoint(str(tmp_path / "x.ckpt"), [], experiment)


def test_a_checkpoint_knows_its_run(experiment: Path, tmp_path: Path, monkeypatch):
    run = experiment / "version_9"
    assert run_of_checkpoint(run / "checkpoints" / "best.ckpt") == run
    monkeypatch.chdir(run / "checkpoints")
    assert run_of_checkpoint(Path("best.ckpt")) == run
    assert run_of_checkpoint(tmp_path / "copied.ckpt") is None
