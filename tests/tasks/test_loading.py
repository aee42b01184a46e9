"""Batches: every row once an epoch, similar lengths, shared by ranks, and resumed exactly."""

import itertools
import random
from collections import Counter
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch

from lightning_prompts.files.errors import PromptError
from lightning_prompts.lm.batch import Example
from lightning_prompts.tasks.loading import (
    BucketBatches,
    EncodedRows,
    EpochOrder,
    LongestFirst,
    ResumableLoader,
    collate_rows,
    even_batch_size,
)


def encoded(num_rows: int) -> EncodedRows:
    """Rows of 1 to 40 tokens; row i has number 100 + i."""
    lengths = random.Random(0).choices(range(1, 41), k=num_rows)
    examples = [Example("", "x" * n, [], [i] * n, False) for i, n in enumerate(lengths)]
    return EncodedRows(
        examples, [i % 2 for i in range(num_rows)], [100 + i for i in range(num_rows)]
    )


def batches(num_rows: int, batch_size: int, seed: int = 0, epoch: int = 0, **ranks: int) -> Any:
    found = BucketBatches(
        EpochOrder(num_rows, seed), encoded(num_rows).lengths, batch_size, **ranks
    )
    found.start(epoch)
    return list(found)


@pytest.mark.parametrize(("num_rows", "batch_size"), [(200, 8), (203, 8), (5, 8), (1, 1)])
def test_every_row_is_in_one_batch(num_rows: int, batch_size: int) -> None:
    found = batches(num_rows, batch_size)
    assert sorted(itertools.chain(*found)) == list(range(num_rows))
    assert len(found) == -(-num_rows // batch_size)
    sizes = Counter(map(len, found))
    assert sizes[batch_size] >= num_rows // batch_size


def test_order_follows_from_seed_and_epoch() -> None:
    assert batches(200, 8, seed=3, epoch=2) == batches(200, 8, seed=3, epoch=2)
    assert batches(200, 8, seed=3, epoch=2) != batches(200, 8, seed=3, epoch=1)
    assert batches(200, 8, seed=3, epoch=2) != batches(200, 8, seed=4, epoch=2)


def test_batches_hold_rows_of_similar_length() -> None:
    lengths = encoded(4000).lengths
    found = batches(4000, 16)
    padded = sum(len(b) * max(lengths[i] for i in b) for b in found)
    assert padded < 1.12 * sum(lengths)
    # The same rows, not sorted: most of the work would be padding.
    shuffled = torch.randperm(4000, generator=torch.Generator().manual_seed(0)).split(16)
    assert sum(len(b) * max(lengths[i] for i in b.tolist()) for b in shuffled) > 1.6 * sum(lengths)


def test_small_data_is_mixed_anew_each_epoch() -> None:
    first, second = ({frozenset(b) for b in batches(32, 8, epoch=e)} for e in (0, 1))
    assert not first & second


@pytest.mark.parametrize("num_rows", [96, 97, 99, 101])
def test_ranks_share_each_global_batch(num_rows: int) -> None:
    per_rank = [batches(num_rows, 4, rank=r, num_ranks=3) for r in range(3)]
    assert len({len(found) for found in per_rank}) == 1
    assert all(batch for found in per_rank for batch in found)
    whole = batches(num_rows, 12)
    for parts, batch in zip(zip(*per_rank, strict=True), whole, strict=True):
        rows = list(itertools.chain(*parts))
        assert Counter(i for i in rows if i >= 0) == Counter(batch)
        borrowed = [~i for i in rows if i < 0]  # where a rank would have had none
        assert len(borrowed) == max(0, 3 - len(batch))
        assert set(borrowed) <= set(batch)


def test_a_borrowed_row_is_marked() -> None:
    rows = encoded(4)
    own, borrowed = collate_rows([rows[2], rows[3]]), collate_rows([rows[~2]])
    assert not own["borrowed"]
    assert borrowed["borrowed"]
    assert borrowed["rows"].tolist() == [rows.numbers[2]]
    assert borrowed["texts"] == own["texts"][:1]


def test_evaluation_order_is_longest_first_and_shared() -> None:
    lengths = encoded(33).lengths
    alone = list(LongestFirst(lengths))
    assert [lengths[i] for i in alone] == sorted(lengths, reverse=True)
    assert sorted([*LongestFirst(lengths, 0, 2), *LongestFirst(lengths, 1, 2)]) == list(range(33))
    assert len(LongestFirst(lengths, 0, 2)) == 17


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 7])
def test_ranks_have_equally_many_evaluation_batches(num_ranks: int) -> None:
    for num_rows, batch_size in itertools.product(range(num_ranks, 70), (1, 2, 16, 64)):
        size = even_batch_size(num_rows, batch_size, num_ranks)
        shares = [len(range(r, num_rows, num_ranks)) for r in range(num_ranks)]
        assert len({-(-share // size) for share in shares}) == 1
        if num_rows % num_ranks == 0:
            assert size == batch_size


def test_more_ranks_than_rows_is_refused() -> None:
    with pytest.raises(PromptError, match=r"3 rows cannot be shared by 4 devices"):
        even_batch_size(3, 64, num_ranks=4)


def test_collated_items_keep_their_numbers() -> None:
    data = encoded(10)
    batch = collate_rows([data[3], data[7]])
    assert batch["rows"].tolist() == [103, 107]
    assert batch["labels"].tolist() == [1, 1]
    assert batch["after_lengths"].tolist() == [data.lengths[3], data.lengths[7]]
    assert batch["after_ids"][0, : data.lengths[3]].tolist() == [3] * data.lengths[3]


# ---- resuming, in a real trainer


class Recorder(pl.LightningModule):
    """Writes down the rows of each step."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.steps: list[list[int]] = []

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        self.steps.append(batch["rows"].tolist())
        return (self.weight * batch["after_lengths"].float().mean()).sum()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val/loss", torch.tensor(0.0), batch_size=len(batch["rows"]))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.01)


class Saver(pl.Callback):
    """Saves once, right after training batch `step` or at the end of an epoch or validation."""

    def __init__(self, path: Path, step: int, hook: str) -> None:
        self.path, self.step, self.hook = path, step, hook

    def _save(self, trainer: pl.Trainer, hook: str) -> None:
        if hook == self.hook and trainer.global_step == self.step and not trainer.sanity_checking:
            trainer.save_checkpoint(self.path)

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        self._save(trainer, "batch")

    def on_train_epoch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        self._save(trainer, "epoch")

    def on_validation_end(self, trainer: pl.Trainer, *args: Any) -> None:
        self._save(trainer, "validation")


def fit(
    steps: int,
    *callbacks: pl.Callback,
    ckpt_path: Path | None = None,
    num_workers: int = 0,
    batch_size: int = 4,
    **options: Any,
) -> Recorder:
    """Fit on 18 rows in batches of 4: five batches an epoch, the last of two rows."""
    data = encoded(18)
    sampler = BucketBatches(EpochOrder(18, seed=1), data.lengths, batch_size)
    loader = ResumableLoader(
        data,
        batch_sampler=sampler,
        max_batches=options.get("limit_train_batches"),
        collate_fn=collate_rows,
        num_workers=num_workers,
    )
    module = Recorder()
    trainer = pl.Trainer(
        **{
            "accelerator": "cpu",
            "max_steps": steps,
            "max_epochs": -1,
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "num_sanity_val_steps": 0,
            "callbacks": list(callbacks),
            **options,
        }
    )
    validation = torch.utils.data.DataLoader(data, batch_size=18, collate_fn=collate_rows)
    trainer.fit(module, loader, validation, ckpt_path=ckpt_path)
    return module


VALIDATIONS = {
    "each epoch": {},
    "by steps": {"val_check_interval": 3, "check_val_every_n_epoch": None},
    "never": {"limit_val_batches": 0},
    "short epochs": {"limit_train_batches": 4},
    "by epochs": {"max_steps": -1, "max_epochs": 4, "limit_val_batches": 0},
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("validation", VALIDATIONS)
@pytest.mark.parametrize(
    ("hook", "steps"),
    [("batch", (1, 4, 5, 7, 10)), ("epoch", (4, 5, 8, 10)), ("validation", (3, 4, 5, 6, 8))],
)
def test_resumed_run_sees_the_rows_of_the_uninterrupted_one(
    tmp_path: Path, validation: str, hook: str, steps: Any
) -> None:
    options = VALIDATIONS[validation]
    savers = [Saver(tmp_path / f"{step}.ckpt", step, hook) for step in steps]
    whole = fit(17, *savers, **options).steps
    assert len(whole) >= 17
    for saver in savers:
        if saver.path.exists():
            resumed = fit(17, ckpt_path=saver.path, **options).steps
            assert resumed == whole[saver.step :], (saver.hook, saver.step)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("step", [3, 5, 7, 10])
def test_run_stopped_by_max_steps_resumes(tmp_path: Path, step: int) -> None:
    whole = fit(12).steps

    class AtEnd(pl.Callback):
        def on_fit_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
            trainer.save_checkpoint(tmp_path / "end.ckpt")

    stopped = fit(step, AtEnd()).steps
    assert stopped + fit(12, ckpt_path=tmp_path / "end.ckpt").steps == whole


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("step", "hook"), [(7, "batch"), (10, "epoch")])
def test_resumed_run_with_a_worker(tmp_path: Path, step: int, hook: str) -> None:
    saver = Saver(tmp_path / "saved.ckpt", step, hook)
    whole = fit(12, saver, num_workers=1).steps
    assert whole == fit(12).steps
    assert fit(12, ckpt_path=saver.path, num_workers=1).steps == whole[step:]


@pytest.mark.filterwarnings("ignore")
def test_other_batches_within_an_epoch_are_refused(tmp_path: Path) -> None:
    savers = [Saver(tmp_path / f"{step}.ckpt", step, "batch") for step in (3, 5)]
    fit(6, *savers)
    with pytest.raises(PromptError, match=r"global_batch_size 4, .* global_batch_size 6, "):
        fit(9, ckpt_path=savers[0].path, batch_size=6)
    assert len(fit(9, ckpt_path=savers[1].path, batch_size=6).steps) == 4  # a new epoch: no harm


def test_loader_leaves_the_global_random_numbers_alone() -> None:
    sampler = BucketBatches(EpochOrder(18, seed=1), encoded(18).lengths, 4)
    loader = ResumableLoader(encoded(18), batch_sampler=sampler, collate_fn=collate_rows)
    before = torch.get_rng_state()
    assert len(list(loader)) == len(loader) == 5
    assert torch.equal(torch.get_rng_state(), before)
