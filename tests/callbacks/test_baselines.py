"""Baselines against float64 loops; measured once, kept, and not trusted for other data."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from tqdm import tqdm

from lightning_prompts.callbacks import Baselines
from lightning_prompts.tuners import SoftPrompt

from .conftest import (
    FIRST,
    LAST,
    WORDS,
    MakeTask,
    Reference,
    count_passes,
    learned,
    loss_and_accuracy,
    macro_f1,
    quick_trainer,
    read,
    validated,
    written,
)

TWO = {"max_steps": 2, "val_check_interval": 1, "check_val_every_n_epoch": None}


@pytest.fixture
def uneven_folder(tmp_path: Path) -> Path:
    """Ten training rows, seven of them positive; six validation rows, two of them positive."""
    for split, labels in (("train", "npppnppppn"), ("validation", "nnpnpn"), ("test", "pppn")):
        with (tmp_path / f"{split}.jsonl").open("w") as file:
            for i, letter in enumerate(labels):
                label = "positive" if letter == "p" else "negative"
                text = f"Film {split} {i}" + " was long" * (i % 4)
                file.write(json.dumps({"text": text, "label": label}) + "\n")
    return tmp_path


@pytest.mark.parametrize("template", [FIRST, LAST])
@pytest.mark.parametrize(("run", "split"), [("validate", "validation"), ("test", "test")])
def test_baselines_are_brute_force(
    run: str,
    split: str,
    template: str,
    make_task: MakeTask,
    uneven_folder: Path,
    reference: Reference,
) -> None:
    task = make_task(template, path=str(uneven_folder))
    callback = Baselines()
    trainer = quick_trainer(callbacks=[callback])
    getattr(trainer, run)(learned(SoftPrompt, task), datamodule=task, verbose=False)

    texts, labels = read(uneven_folder, split)
    words = [reference.encode(word)[0] for word in WORDS.values()]
    nothing = reference.table[:0]
    logits = reference.answers(template, texts, nothing)[:, words]
    train_logits = reference.answers(template, read(uneven_folder, "train")[0], nothing)[:, words]
    prior = train_logits.log_softmax(-1).mean(0)
    calibrated = logits.log_softmax(-1) - prior

    def performance(logits: torch.Tensor) -> dict[str, float]:
        loss, accuracy = loss_and_accuracy(logits, labels)
        f1 = macro_f1(logits.argmax(-1).tolist(), labels)
        return {"accuracy": accuracy, "loss": loss, "macro_f1": f1}

    majority = [1] * len(labels)
    expected = {
        "majority": {
            "accuracy": sum(label == 1 for label in labels) / len(labels),
            "macro_f1": macro_f1(majority, labels),
        },
        "no prompt": performance(logits),
        "no prompt, calibrated": performance(calibrated),
    }
    assert list(callback.results) == list(expected)
    for name, values in expected.items():
        assert callback.results[name] == pytest.approx(values, abs=1e-5), name
    assert callback.results["no prompt"] != callback.results["no prompt, calibrated"]


def test_the_bar_of_calibration_has_a_total(
    make_task: MakeTask, uneven_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    totals: list[Any] = []

    def bar(batches: Any, **options: Any) -> Any:
        totals.append(tqdm(batches, file=io.StringIO()).total)
        return batches

    monkeypatch.setattr("lightning_prompts.callbacks.baselines.tqdm", bar)
    task = make_task(FIRST, path=str(uneven_folder), val_batch_size=4)
    trainer = quick_trainer(callbacks=[Baselines()])
    trainer.validate(learned(SoftPrompt, task), datamodule=task, verbose=False)
    assert totals == [3]  # ten training rows


def test_a_written_prompt_stands_beside_them(
    make_task: MakeTask, uneven_folder: Path, reference: Reference
) -> None:
    task = make_task(LAST, path=str(uneven_folder))
    tuner, callback = learned(SoftPrompt, task), Baselines(text=" It is")
    trainer = quick_trainer(callbacks=[callback])
    trainer.validate(tuner, datamodule=task, verbose=False)
    texts, labels = read(uneven_folder, "validation")
    words = [reference.encode(word)[0] for word in WORDS.values()]
    rows = reference.table[torch.tensor(reference.encode(" It is"))]
    loss, accuracy = loss_and_accuracy(reference.answers(LAST, texts, rows)[:, words], labels)
    assert callback.results["written prompt"]["loss"] == pytest.approx(loss, abs=1e-5)
    assert callback.results["written prompt"]["accuracy"] == pytest.approx(accuracy)
    assert list(callback.results)[-1] == "written prompt"
    other = Baselines()
    other.load_state_dict(callback.state_dict())
    quick_trainer(callbacks=[other]).validate(tuner, datamodule=task, verbose=False)
    assert "written prompt" not in other.results  # it was not asked for


def test_measured_once_and_logged_once_apart_from_the_prompt(
    make_task: MakeTask, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    task = make_task()
    tuner, callback = learned(SoftPrompt, task), Baselines()
    passes = count_passes(tuner, monkeypatch)
    logger = CSVLogger(tmp_path)
    trainer = quick_trainer(callbacks=[callback], logger=logger, num_sanity_val_steps=1, **TWO)
    trainer.fit(tuner, datamodule=task)
    steps = [8, 4, 4, 2]
    calibration, beside = [4] * 6, [4, 4, 4, 4, 2, 2]
    assert passes == [4, steps[0], *calibration, *beside, *steps]
    assert not [name for name in trainer.callback_metrics if "baseline" in name]

    logger.save()
    header, *rows = (Path(logger.log_dir) / "metrics.csv").read_text().splitlines()
    names = header.split(",")
    column = names.index("baseline/val_no_prompt_calibrated_accuracy")
    values = [row.split(",")[column] for row in rows]
    assert [float(value) for value in values if value] == [
        callback.results["no prompt, calibrated"]["accuracy"]
    ]
    assert sum(name.startswith("baseline/") for name in names) == 8


def fit(task: Any, folder: Path, max_steps: int, **kwargs: Any) -> tuple[Baselines, int]:
    """Baselines of a run that saves its end, and how many it measured."""
    callback = Baselines()
    began = []
    begin = callback.begin
    callback.begin = lambda *args: (began.append(1), begin(*args))[1]  # type: ignore[method-assign]
    last = ModelCheckpoint(folder, filename="last", enable_version_counter=False)
    trainer = quick_trainer(
        callbacks=[callback, last], enable_checkpointing=True, **TWO | {"max_steps": max_steps}
    )
    trainer.fit(learned(SoftPrompt, task), datamodule=task, **kwargs)
    return callback, len(began)


def test_a_resumed_run_keeps_them(make_task: MakeTask, tmp_path: Path) -> None:
    first, measured = fit(make_task(), tmp_path, 1)
    assert measured == 1
    resumed, measured = fit(make_task(), tmp_path, 3, ckpt_path=tmp_path / "last.ckpt")
    assert measured == 0
    assert resumed.results == first.results


@pytest.mark.parametrize(
    "change",
    [{"validation_rows": 6}, {"train_rows": 10}, {"validation": "test.jsonl"}],
)
def test_other_data_are_measured_again(
    change: dict[str, Any], make_task: MakeTask, tmp_path: Path
) -> None:
    first, _ = fit(make_task(), tmp_path, 1)
    task, callback, afresh = make_task(**change), Baselines(), Baselines()
    trainer = quick_trainer(callbacks=[callback])
    checkpoint = tmp_path / "last.ckpt"
    trainer.validate(learned(SoftPrompt, task), task, ckpt_path=checkpoint, verbose=False)
    validated(learned(SoftPrompt, task), make_task(**change), afresh)
    assert callback.results == afresh.results != first.results


def test_other_texts_of_as_many_rows_are_measured_again(
    make_task: MakeTask, uneven_folder: Path, tmp_path: Path
) -> None:
    first, _ = fit(make_task(path=str(uneven_folder)), tmp_path, 1)
    for split in ("train", "validation"):
        path = uneven_folder / f"{split}.jsonl"
        path.write_text(path.read_text().replace("Film", "A fine film"))
    task, callback, afresh = make_task(path=str(uneven_folder)), Baselines(), Baselines()
    trainer = quick_trainer(callbacks=[callback])
    checkpoint = tmp_path / "last.ckpt"
    trainer.validate(learned(SoftPrompt, task), task, ckpt_path=checkpoint, verbose=False)
    validated(learned(SoftPrompt, task), make_task(path=str(uneven_folder)), afresh)
    assert callback.results == afresh.results != first.results


def test_validate_trusts_what_fit_measured_and_test_is_its_own(
    make_task: MakeTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = fit(make_task(), tmp_path, 1)
    task, callback = make_task(), Baselines()
    tuner = learned(SoftPrompt, task)
    passes = count_passes(tuner, monkeypatch)
    trainer = quick_trainer(callbacks=[callback])
    trainer.validate(tuner, datamodule=task, ckpt_path=tmp_path / "last.ckpt", verbose=False)
    assert passes == [4, 4, 2]
    assert callback.results == first.results
    trainer.test(tuner, datamodule=task, verbose=False)
    assert callback.results != first.results
    assert len(passes) > 3 + 2
    trainer.validate(tuner, datamodule=task, verbose=False)
    assert callback.results == first.results


def test_runs_of_one_folder_measure_them_once(
    make_task: MakeTask, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def run(version: str, length: int = 3, **change: Any) -> tuple[Baselines, list[int], str]:
        task, callback = make_task(**change), Baselines()
        tuner = learned(SoftPrompt, task, length)
        passes = count_passes(tuner, monkeypatch)
        logger = CSVLogger(tmp_path, name="soft", version=version)
        trainer = quick_trainer(callbacks=[callback], logger=logger, **TWO)
        trainer.fit(tuner, datamodule=task)
        logger.save()
        return callback, list(passes), (Path(logger.log_dir) / "metrics.csv").read_text()

    first, passes, _ = run("a")
    second, fewer, logged = run("b")
    assert second.results == first.results
    assert fewer == [8, 4, 4, 2] * 2  # the steps' own
    assert len(passes) > len(fewer)
    assert "baseline/val_no_prompt_calibrated_accuracy" in logged
    (kept,) = (tmp_path / ".baselines").iterdir()
    kept.write_text("half a fi")  # which no run of ours leaves
    again, passes_again, _ = run("c")
    assert again.results == first.results
    assert passes_again == passes
    longer, _, _ = run("d", length=5)  # less room for texts, and all still fit
    assert longer.results == first.results
    assert [kept] == list((tmp_path / ".baselines").iterdir())
    other, _, _ = run("e", validation_rows=6)
    assert other.results != first.results
    run("f", max_tokens=12)
    run("g", max_tokens=11)  # both cut texts
    assert len(list((tmp_path / ".baselines").iterdir())) == 4


def test_plain_loaders_have_no_training_texts(make_task: MakeTask) -> None:
    task = make_task()
    task.setup("validate")
    callback = Baselines()
    quick_trainer(callbacks=[callback]).validate(
        written(task, " a film"), dataloaders=task.val_dataloader(), verbose=False
    )
    expected = Baselines()
    validated(written(task, " a film"), make_task(), expected)
    assert callback.results == {"no prompt": expected.results["no prompt"]}
