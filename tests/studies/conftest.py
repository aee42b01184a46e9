"""The smallest study that has everything, on the tiny model; reviews to inspect prompts on."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml

from lightning_prompts.cli.quiet import silence
from lightning_prompts.files.option_names import speaking_flags
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.studies.config import StudyConfig
from lightning_prompts.studies.files import read_config
from lightning_prompts.studies.shared import SharedLM
from lightning_prompts.studies.storage import open_storage, open_study
from tests.studies.inspecting import HOSTILE


def opened(config: StudyConfig) -> optuna.Study:
    """The study in its storage, with its runs planned."""
    return open_study(config, open_storage(config))


@pytest.fixture
def models_read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many models were read so far, at each time that one was asked for."""
    counts: list[int] = []
    make = SharedLM.__call__

    def count(shared: SharedLM, **options: Any) -> FrozenLM:
        lm = make(shared, **options)
        counts.append(shared.loaded)
        return lm

    monkeypatch.setattr(SharedLM, "__call__", count)
    return counts


@pytest.fixture
def content(lm_folder: Path, review_folder: Path) -> dict[str, Any]:
    """Of a study's file: soft, and PEZ with two weights, each with two seeds."""
    return {
        "study": {"name": "tiny", "seeds": [0, 1]},
        "base": ["configs/task/demo.yaml"],
        "set": {
            "lm.name": str(lm_folder),
            "data.path": str(review_folder),
            "trainer.max_steps": 4,
            "trainer.val_check_interval": 2,
            "trainer.enable_progress_bar": False,
            "trainer.precision": "32-true",
        },
        "variants": {
            "soft": {"configs": ["configs/tuner/soft.yaml"]},
            "pez": {
                "configs": ["configs/tuner/pez.yaml"],
                "space": {"model.perplexity_weight": [0.0, 0.3]},
            },
        },
    }


@pytest.fixture
def study_file(
    content: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Path]:
    """Writes the study, with blocks changed, in an empty working folder."""
    monkeypatch.chdir(tmp_path)
    silence()

    def write(**blocks: Any) -> Path:
        path = Path("study.yaml")
        path.write_text(yaml.safe_dump({**content, **blocks}, sort_keys=False), encoding="utf-8")
        return path

    return write


@pytest.fixture
def configure(study_file: Callable[..., Path]) -> Callable[..., StudyConfig]:
    """The same, read."""

    def read(options: dict[str, str] | None = None, **blocks: Any) -> StudyConfig:
        return read_config([study_file(**blocks)], options or {})

    return read


@pytest.fixture(autouse=True)
def _speaking_flags() -> Iterator[None]:
    """As `main` does: these tests call parts of the command line by themselves."""
    with speaking_flags():
        yield


@pytest.fixture
def reviews(review_folder: Path, tmp_path: Path) -> Path:
    """The reviews, of which one looks hostile; the working folder is an empty one."""
    folder = tmp_path / "reviews"
    folder.mkdir()
    for name in ("train", "validation"):
        rows = [json.loads(line) for line in (review_folder / f"{name}.jsonl").open()]
        if name == "validation":
            rows = [{**row, "text": f"{HOSTILE} {row['text']}"} for row in rows]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder
