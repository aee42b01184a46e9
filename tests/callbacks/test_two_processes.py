"""Two processes with uneven shares of the rows measure what one measures, and both know it."""

import json
from pathlib import Path

import pytest
from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_prompts.callbacks import Baselines, Faithfulness, PromptText, Scrutability
from lightning_prompts.runs import results_of_test as tested
from lightning_prompts.runs.predictions import Predictions
from lightning_prompts.tuners import PEZ, SoftPrompt
from tests.tiny import save_model

from .conftest import MakeTask, learned, quick_trainer


class Dump(Callback):
    """Writes what this process knows at the end of validation."""

    def __init__(self, folder: Path, baselines: Baselines) -> None:
        self.folder, self.baselines = folder, baselines

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        flat = {
            f"{name} {key}": value
            for name, values in self.baselines.results.items()
            for key, value in values.items()
        }
        self.folder.mkdir(exist_ok=True)
        content = json.dumps(metrics | flat)
        (self.folder / f"{trainer.global_rank}.json").write_text(content)


@pytest.mark.parametrize("kind", [SoftPrompt, PEZ])
def test_two_processes_measure_what_one_does(
    kind: type[SoftPrompt], make_task: MakeTask, tmp_path: Path
) -> None:
    # Nine rows: five on one rank, four on the other. Forked, so that nothing is imported anew.
    for devices in (2, 1):
        task, baselines = make_task(validation_rows=9), Baselines()
        dump = Dump(tmp_path / str(devices), baselines)
        quick_trainer(
            callbacks=[Scrutability(), Faithfulness(), baselines, PromptText(), dump],
            devices=devices,
            strategy="ddp_fork" if devices == 2 else "auto",
            use_distributed_sampler=False,
        ).validate(learned(kind, task), datamodule=task, verbose=False)
    first, second = (json.loads((tmp_path / f"2/{rank}.json").read_text()) for rank in (0, 1))
    alone = json.loads((tmp_path / "1/0.json").read_text())
    assert first == second
    assert first == pytest.approx(alone, abs=1e-6)
    assert len(alone) == {SoftPrompt: 4 + 12 + 8, PEZ: 4 + 14 + 8}[kind]


class Each(Callback):
    """Writes what this process knows of each validation."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        found = {k: float(v) for k, v in trainer.callback_metrics.items() if k[:4] == "val/"}
        self.folder.mkdir(exist_ok=True)
        name = f"{trainer.global_rank}-{trainer.global_step}.json"
        (self.folder / name).write_text(json.dumps(found))


@pytest.mark.parametrize("kind", [SoftPrompt, PEZ])
def test_skipped_validations_limits_and_another_scorer(
    kind: type[SoftPrompt], make_task: MakeTask, tmp_path: Path
) -> None:
    save_model(tmp_path / "scorer", seed=1)
    for devices in (2, 1):
        # The first four of ten rows, the longest: two on each of two processes.
        task = make_task(batch_size=8 // devices, val_batch_size=2 // devices)
        quick_trainer(
            callbacks=[
                Scrutability(
                    2, scorer=str(tmp_path / "scorer"), panel=["grammar", "token_effects"]
                ),
                Faithfulness(2, max_batches=2),
                Each(tmp_path / str(devices)),
            ],
            max_steps=4,
            val_check_interval=1,
            check_val_every_n_epoch=None,
            devices=devices,
            strategy="ddp_fork" if devices == 2 else "auto",
            use_distributed_sampler=False,
        ).fit(learned(kind, task), datamodule=task)
    measured = []
    for step in range(1, 5):
        first, second, alone = (
            json.loads((tmp_path / f"{place}-{step}.json").read_text())
            for place in ("2/0", "2/1", "1/0")
        )
        assert first == second == pytest.approx(alone, abs=1e-5)
        names = ("perplexity", "grammar", "effect_of_tokens", "hard_loss")
        measured.append(all(f"val/{name}" in alone for name in names))
    assert measured == [True, False, True, True]


def test_rows_of_both_processes_are_written_in_their_order(
    make_task: MakeTask, review_folder: Path, tmp_path: Path
) -> None:
    lines = (review_folder / "test.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "seven.jsonl").write_text("".join(lines[:7]))
    seven = str(tmp_path / "seven.jsonl")
    for devices in (2, 1):
        folder = tmp_path / str(devices)
        task = make_task(test=seven, predict=seven, val_batch_size=2)
        options = {
            "default_root_dir": folder,
            "devices": devices,
            "strategy": "ddp_fork" if devices == 2 else "auto",
            "use_distributed_sampler": False,
        }
        tuner = learned(SoftPrompt, task)
        tester = quick_trainer(callbacks=[tested.Tested(), Baselines()], **options)
        tester.test(tuner, datamodule=task, verbose=False)
        predictor = quick_trainer(callbacks=[Predictions()], **options)
        predictor.predict(tuner, datamodule=task, return_predictions=False)
    both, alone = (
        json.loads(next((tmp_path / n).rglob("test.json")).read_text()) for n in ("2", "1")
    )
    assert both["rows"] == {"test": 7}
    assert both["correct"] == alone["correct"]
    assert both["metrics"] == pytest.approx(alone["metrics"], abs=1e-6)
    for name, values in alone["test_baselines"].items():
        assert both["test_baselines"][name] == pytest.approx(values, abs=1e-6)
    rows = [
        [json.loads(line) for line in next((tmp_path / n).rglob("predictions.jsonl")).open()]
        for n in ("2", "1")
    ]
    assert [row["row"] for row in rows[0]] == list(range(7))
    for own, expected in zip(*rows, strict=True):
        assert own["label"] == expected["label"]
        assert own["probabilities"] == pytest.approx(expected["probabilities"], abs=1e-6)
