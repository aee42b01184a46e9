"""Two processes share a task's rows, through a real trainer."""

import json
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch

from lightning_prompts.files.errors import PromptError
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.tasks import TextClassification

WORDS = {"negative": " terrible", "positive": " great"}


class Writer(pl.LightningModule):
    """Writes down the rows of each step of each process."""

    prompt_length = 3

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def _write(self, split: str, batch: Any) -> None:
        with (self.folder / f"{split}-{self.global_rank}").open("a") as file:
            file.write(json.dumps(batch["rows"].tolist()) + "\n")

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        self._write("train", batch)
        return self.weight.sum()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self._write("validation", batch)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(folder: Path, task: TextClassification, **options: Any) -> None:
    pl.Trainer(
        accelerator="cpu",
        devices=2,
        strategy="ddp_spawn",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        num_sanity_val_steps=0,
        **options,
    ).fit(Writer(folder), datamodule=task)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_each_row_is_on_one_process(lm: FrozenLM, review_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "nine.jsonl").write_text(
        "".join((review_folder / "validation.jsonl").read_text().splitlines(keepends=True)[:9])
    )
    task = TextClassification(
        lm,
        "{prompt} {text} It was",
        WORDS,
        path=str(review_folder),
        validation=str(tmp_path / "nine.jsonl"),
        batch_size=5,
        val_batch_size=4,
    )
    with pytest.raises(Exception, match=r"Trainer\(use_distributed_sampler=False\)") as caught:
        fit(tmp_path, task)
    assert PromptError.__name__ in str(caught.getrepr())
    fit(tmp_path, task, use_distributed_sampler=False)
    for split, num_rows, num_batches in (("train", 24, 3), ("validation", 9, 2)):
        parts = [(tmp_path / f"{split}-{rank}").read_text().splitlines() for rank in (0, 1)]
        assert [len(part) for part in parts] == [num_batches] * 2
        assert sorted(i for part in parts for line in part for i in json.loads(line)) == list(
            range(num_rows)
        )
