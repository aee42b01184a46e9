"""Two processes through the command line do what one process does on the same global batches."""

import json
from pathlib import Path

import pytest
import torch

from lightning_prompts.cli.main import main
from soak.processes import CASES, EVERY, ROWS, STEPS, compare
from tests.tiny import save_reviews


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows that two processes cannot share evenly."""
    folder = tmp_path_factory.mktemp("odd")
    save_reviews(folder, ROWS)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_two_processes(name: str, lm_folder: Path, data: Path, tmp_path: Path, monkeypatch):
    found = compare(tmp_path, lm_folder, data, CASES[name], "64-true")
    assert found.validations >= STEPS // EVERY
    assert found.alike
    assert found.ids
    assert found.accuracy
    apart = found.parameters, found.losses, found.metrics, found.prompts
    assert max(apart) < 1e-8, found

    logs = tmp_path / "logs"
    runs = [logs / f"with-{processes}" / "version_0" for processes in (1, 2)]
    assert sorted(logs.glob("with-*/*")) == runs
    kept = []
    for run in runs:
        assert len(list(run.glob("events*"))) == 1
        kept.append(torch.load(run / "checkpoints" / "last.ckpt", weights_only=True))
    assert kept[0]["state_dict"].keys() == kept[1]["state_dict"].keys()
    assert not any(key.startswith("lm.") for key in kept[1]["state_dict"])

    # One process reads what two have saved.
    monkeypatch.chdir(tmp_path)
    alone = ("--trainer.devices", "1", "--trainer.strategy", "auto", "--trainer.callbacks", "null")
    config = runs[1] / "config.yaml"
    cli = main(["validate", "--config", str(config), "--ckpt_path", "best", *alone], show=False)
    written = json.loads((runs[1] / "prompt.json").read_text())["metrics"]
    measured = {name: float(value) for name, value in cli.trainer.callback_metrics.items()}
    # The greedy prompt is not the best one.
    of_best = {name: value for name, value in written.items() if "greedy" not in name}
    assert measured == pytest.approx(of_best, abs=1e-8)
