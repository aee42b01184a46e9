"""Tasks of tables, and data sets as the Hub's library leaves them in its cache: no hub needed."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lightning_prompts.files import hub
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.tasks import TextClassification
from tests.tasks.everyday import WORDS, Make


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that cannot reach the hub."""
    monkeypatch.setattr(hub, "hub_reachable", lambda: False)


@pytest.fixture
def cached_on_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_hub: None
) -> Callable[..., None]:
    """Put `{split: datasets.Dataset}` into the library's cache as the Hub data set `owner/name`."""
    import datasets

    cache = tmp_path / "hub_cache"
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)
    datasets.disable_progress_bars()

    def put(repository: str, splits: dict[str, Any]) -> None:
        owner, name = repository.split("/")
        files = {}
        for split, rows in splits.items():
            files[split] = str(tmp_path / f"{name}-{split}.parquet")
            rows.to_parquet(files[split])
        datasets.load_dataset("parquet", data_files=files, cache_dir=str(cache))
        made = next(cache.glob("parquet/*/*/*/dataset_info.json")).parent
        folder = cache / f"{owner}___{name}" / "default" / "0.0.0" / made.name
        shutil.copytree(made, folder)
        shutil.rmtree(cache / "parquet")
        for file in folder.glob("parquet-*.arrow"):
            file.rename(folder / file.name.replace("parquet", name))
        info = json.loads((folder / "dataset_info.json").read_text())
        (folder / "dataset_info.json").write_text(json.dumps({**info, "dataset_name": name}))

    return put


@pytest.fixture
def task(lm: FrozenLM) -> Make:
    """Makes the task of a table of reviews; options as of `TextClassification`."""

    def make(path: Path | None, **options: Any) -> TextClassification:
        given = {"template": "{prompt} {text} It was", "verbalizer": WORDS, **options}
        return TextClassification(lm, path=None if path is None else str(path), **given)

    return make
