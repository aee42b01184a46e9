"""One process against two on GPUs with NCCL: `make test-gpus`, where there are two."""

from pathlib import Path

import pytest
import torch

from soak.processes import CASES, DDP, ROWS, SHARDED, compare
from tests.tiny import save_reviews

pytestmark = [
    pytest.mark.slow,
    pytest.mark.gpu,
    pytest.mark.skipif(
        torch.cuda.device_count() < 2,
        reason=f"NOTHING WAS CHECKED: needs two GPUs, and there are {torch.cuda.device_count()}",
    ),
]
COMPILING = 1200  # seconds, for a run whose shapes are compiled


@pytest.mark.parametrize("name", CASES)
def test_two_gpus(name: str, lm_folder: Path, tmp_path: Path):
    save_reviews(tmp_path / "data", ROWS)
    found = compare(
        *(tmp_path, lm_folder, tmp_path / "data", CASES[name], "64-true"), accelerator="gpu"
    )
    assert found.alike
    assert found.ids
    assert found.accuracy
    assert max(found.parameters, found.losses, found.metrics, found.prompts) < 1e-8, found


@pytest.mark.parametrize("name", ["SoftPrompt", "PEZ"])
@pytest.mark.parametrize("way", ["compiled", "divided"])
def test_two_gpus_in_other_ways(name: str, way: str, lm_folder: Path, tmp_path: Path):
    save_reviews(tmp_path / "data", ROWS)
    options = ("--lm.compile", "true") if way == "compiled" else ()
    found = compare(
        *(tmp_path, lm_folder, tmp_path / "data", CASES[name].with_options(*options), "32-true"),
        strategy=DDP if way == "compiled" else SHARDED,
        accelerator="gpu",
        seconds=COMPILING,
    )
    assert found.alike
    assert found.ids
    assert max(found.parameters, found.losses, found.metrics) < 1e-3, found
