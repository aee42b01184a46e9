"""Two processes with uneven shares of the rows measure what one measures, and both know it."""

import json
from pathlib import Path

import pytest
from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_prompts.callbacks import Baselines, Faithfulness, PromptText, Scrutability
from lightning_prompts.tuners import PEZ, SoftPrompt

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
    assert len(alone) == {SoftPrompt: 4 + 11 + 8, PEZ: 4 + 13 + 8}[kind]
