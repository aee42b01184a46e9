"""What every task does with its rows: tokenize once, cut, report, load for each rank."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch

from lightning_prompts.files.errors import PromptError
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.tasks import Demo, TextClassification

WORDS = {"negative": " terrible", "positive": " great"}
Task = Callable[..., TextClassification]


@pytest.fixture
def task(lm: FrozenLM, review_folder: Path) -> Task:
    """Makes the reviews' task on the tiny model."""

    def make(**options: Any) -> TextClassification:
        options = {"template": "{prompt} {text} It was", "verbalizer": WORDS, **options}
        return TextClassification(lm, path=str(review_folder), **options)

    return make


class Attached:
    """What a task asks of its trainer."""

    limit_train_batches = 1.0
    _accelerator_connector = type("Connector", (), {"use_distributed_sampler": False})()

    def __init__(self, prompt_length: int = 0, rank: int = 0, num_replicas: int = 1) -> None:
        self.lightning_module = type("Tuner", (), {"prompt_length": prompt_length})()
        self.distributed_sampler_kwargs = {"rank": rank, "num_replicas": num_replicas}


def test_report_tells_what_was_read(task: Task, review_folder: Path) -> None:
    data = task()
    data.setup("fit")
    assert data.report.rows == {"train": 24, "validation": 10}
    assert data.report.cut == {"train": 0, "validation": 0}
    assert data.report.classes["train"] == {"negative": 12, "positive": 12}
    assert data.report.majority_label == "negative"  # a tie: the verbalizer's first
    assert data.report.sources["train"] == str(review_folder / "train.jsonl")
    assert data.report.max_tokens == 256
    data.setup("test")
    assert data.report.rows["test"] == 8
    assert data.report.cut["test"] == 0


def test_majority_is_of_the_training_rows_even_if_only_tested(task: Task, tmp_path: Path) -> None:
    rows = ['{"text": "a", "label": "positive"}'] * 3 + ['{"text": "b", "label": "negative"}']
    (tmp_path / "train.jsonl").write_text("\n".join(rows))
    data = task(train=str(tmp_path / "train.jsonl"))
    data.setup("test")
    assert data.report.majority_label == "positive"
    assert data.report.cut == {"test": 0}  # the training rows are not tokenized for it


def test_room_for_the_text_is_what_the_prompt_leaves(task: Task, lm: FrozenLM) -> None:
    data = task()
    data.trainer = Attached(prompt_length=200)
    data.setup("fit")
    assert data.report.max_tokens == lm.max_positions - 200 == 56
    lengths = data._encoded["train"].lengths
    assert max(lengths) == 56
    assert data.report.cut["train"] == sum(n == 56 for n in lengths) > 0
    # The words after the text stay, its own end goes.
    assert all(e.after.endswith(" It was") for e in data._encoded["train"].examples)
    data.trainer = Attached(prompt_length=100)
    data.setup("fit")
    assert data.report.max_tokens == 156
    assert data.report.cut["train"] == 0


@pytest.mark.parametrize("prompt_length", [256, 300])
def test_prompt_longer_than_the_model_is_refused(task: Task, prompt_length: int) -> None:
    data = task()
    data.trainer = Attached(prompt_length=prompt_length)
    with pytest.raises(PromptError, match=rf"{prompt_length} tokens .* positions; lower prompt"):
        data.setup("fit")


def test_max_tokens_is_a_limit_within_the_models(task: Task) -> None:
    data = task(max_tokens=40)
    data.setup("validate")
    assert data.report.max_tokens == 40
    assert data.report.cut["validation"] > 0
    wide = task(max_tokens=4000)
    wide.setup("validate")
    assert wide.report.max_tokens == 256
    with pytest.raises(PromptError, match=r"max_tokens is 0"):
        task(max_tokens=0)


def test_row_that_cannot_be_cut_enough_is_named(task: Task) -> None:
    with pytest.raises(PromptError, match=r"train.jsonl, row 1: .*max_tokens"):
        task(max_tokens=5).setup("fit")


def test_truncated_column_must_be_in_the_template(task: Task) -> None:
    with pytest.raises(PromptError, match=r"truncate passage .* has text"):
        task(truncate="passage")


def test_class_that_is_never_seen_is_refused(task: Task) -> None:
    data = task(verbalizer={**WORDS, "neutral": " bad"})
    with pytest.raises(PromptError, match=r"24 rows\) has the label 'neutral'"):
        data.setup("fit")
    data.setup("validate")  # nothing is trained


def test_every_evaluation_row_is_loaded_once(task: Task) -> None:
    data = task(val_batch_size=4)
    data.setup("fit")
    batches = list(data.val_dataloader())
    assert [len(b["rows"]) for b in batches] == [4, 4, 2]
    assert sorted(torch.cat([b["rows"] for b in batches]).tolist()) == list(range(10))
    rows = data.read("validation")
    for batch in batches:
        for i, row in enumerate(batch["rows"].tolist()):
            assert batch["labels"][i] == rows.labels[row]
            assert batch["texts"][i] == ("", f" {rows.rows[row]['text']} It was")


@pytest.mark.parametrize("num_ranks", [2, 3])
def test_ranks_share_the_rows(task: Task, num_ranks: int) -> None:
    seen: dict[str, list[int]] = {"train": [], "validation": []}
    counts = set()
    for rank in range(num_ranks):
        data = task(batch_size=4, val_batch_size=2)
        data.trainer = Attached(rank=rank, num_replicas=num_ranks)
        data.setup("fit")
        loaders = {"train": data.train_dataloader(), "validation": data.val_dataloader()}
        counts.add(tuple(len(loader) for loader in loaders.values()))
        for split, loader in loaders.items():
            seen[split] += [row for batch in loader for row in batch["rows"].tolist()]
    assert len(counts) == 1
    assert sorted(seen["train"]) == list(range(24))
    assert sorted(seen["validation"]) == list(range(10))


def test_lightnings_sampler_is_refused(task: Task) -> None:
    data = task()
    data.trainer = Attached(num_replicas=2)
    data.trainer._accelerator_connector = type("C", (), {"use_distributed_sampler": True})()
    with pytest.raises(PromptError, match=r"Trainer\(use_distributed_sampler=False\)"):
        data.setup("fit")


def ddp(devices: int, **options: Any) -> pl.Trainer:
    """Of this many processes, which it has not started."""
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    options = {"use_distributed_sampler": False, **quiet, **options}
    return pl.Trainer(accelerator="cpu", devices=devices, strategy="ddp", **options)


@pytest.mark.parametrize(("stage", "split"), [("fit", "validation"), ("test", "test")])
def test_rows_that_cannot_be_shared_are_seen_before_processes_start(
    task: Task, stage: str, split: str
) -> None:
    few = {f"{split}_rows": 1}
    with pytest.raises(PromptError, match=r"^1 row cannot be shared by 2 devices; use fewer"):
        task(**few).read_ahead(ddp(2), stage)
    data = task(**few)
    data.read_ahead(ddp(1), stage)
    assert data.report.rows == {}
    data.read_ahead(ddp(2), "fit" if stage == "test" else "test")  # does not evaluate that split
    task().read_ahead(ddp(2), stage)


def test_bad_rows_and_settings_are_seen_before_processes_start(task: Task, tmp_path: Path) -> None:
    with pytest.raises(PromptError, match=r"Trainer\(use_distributed_sampler=False\)"):
        task().read_ahead(ddp(2, use_distributed_sampler=True), "fit")
    (tmp_path / "bad.jsonl").write_text("{")
    with pytest.raises(PromptError, match=r"bad\.jsonl"):
        task(validation=str(tmp_path / "bad.jsonl")).read_ahead(ddp(2), "validate")


def test_calibration_texts_are_training_texts_without_labels(task: Task) -> None:
    data = task(val_batch_size=4)
    data.setup("validate")
    batches = list(data.calibration_batches(n=10))
    assert [len(b["rows"]) for b in batches] == [4, 4, 2]
    assert all((b["labels"] == -1).all() for b in batches)
    rows = torch.cat([b["rows"] for b in batches]).tolist()
    assert len(set(rows)) == 10
    train = data.read("train")
    texts = [text for b in batches for text in b["texts"]]
    assert texts == [("", f" {train.rows[i]['text']} It was") for i in rows]
    again = torch.cat([b["rows"] for b in data.calibration_batches(n=10)]).tolist()
    other = task(seed=1)
    other.setup("validate")
    assert rows == again
    assert set(rows) != set(next(iter(other.calibration_batches(n=10)))["rows"].tolist())
    assert sum(len(b["rows"]) for b in data.calibration_batches()) == 24


def test_without_training_rows_the_evaluated_ones_stand_in(lm: FrozenLM, tmp_path: Path) -> None:
    (tmp_path / "test.csv").write_text("text,label\na,positive\nb,positive\nc,negative\n")
    data = TextClassification(lm, "{text}{prompt}", WORDS, test=str(tmp_path / "test.csv"))
    data.setup("test")
    assert data.report.majority_label == "positive"
    assert sum(len(b["rows"]) for b in data.calibration_batches()) == 3


# ---- in a trainer


class Answers(pl.LightningModule):
    """Returns the rows that it is given to predict."""

    prompt_length = 5

    def predict_step(self, batch: Any, batch_idx: int) -> list[int]:
        return batch["rows"].tolist()

    def training_step(self, batch: Any, batch_idx: int) -> None:
        return None

    def configure_optimizers(self) -> None:
        return None


def trainer(**options: Any) -> pl.Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return pl.Trainer(accelerator="cpu", enable_checkpointing=False, **quiet, **options)


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.filterwarnings("error:.*batch sampler")
def test_predict_takes_each_row_once(task: Task) -> None:
    data = task(val_batch_size=3)
    found = trainer().predict(Answers(), datamodule=data)
    assert found is not None
    assert [len(rows) for rows in found] == [3, 3, 2]
    assert sorted(row for rows in found for row in rows) == list(range(8))
    assert data.report.max_tokens == 251


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("limit", "steps"), [(4, 4), (0.5, 3), (1.0, 6)])
def test_limited_epochs_begin_anew(task: Task, limit: float, steps: int) -> None:
    data = task(batch_size=4)
    fitting = trainer(limit_train_batches=limit, max_epochs=2, limit_val_batches=0)
    fitting.fit(Answers(), datamodule=data)
    state = fitting.train_dataloader.state_dict()
    assert (state["epoch"], state["done"], state["batches"]) == (1, steps, steps)


def test_demo_needs_no_path(lm: FrozenLM) -> None:
    data = Demo(lm)
    data.setup("fit")
    data.setup("test")
    assert data.slug == "demo"
    assert data.report.rows == {"train": 200, "validation": 120, "test": 120}
    for split, counts in data.report.classes.items():
        assert counts["negative"] == counts["positive"], split
