"""Runs and studies that nothing trained: records with numbers that a test chooses."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState, create_trial

from lightning_prompts.runs.record import RunRecord, Validation
from tests.records import make_record

ROWS = 100


def make_run(
    tuner: str = "PEZ", weight: float = 0.0, seed: int = 0, accuracy: float = 0.7, **changed: Any
) -> RunRecord:
    """A tested run; `changed` replaces fields, `settings` and `metrics` are added to."""
    right = round(accuracy * ROWS)
    vectors = tuner == "SoftPrompt"
    metrics = {
        name: value
        for split in ("val", "test")
        for name, value in {
            f"{split}/accuracy": accuracy,
            f"{split}/hard_accuracy": 0.5 if vectors else accuracy,
            f"{split}/round_trip_accuracy": accuracy - 0.01,
            f"{split}/perplexity": 1000.0 * (1 + weight),
            f"{split}/objective": 1 - accuracy,
        }.items()
    }
    if tuner == "PEZ":
        metrics |= {"val/soft_accuracy": accuracy + 0.1, "test/soft_accuracy": accuracy + 0.1}
    baselines = {"majority": {"accuracy": 0.51}, "no prompt, calibrated": {"accuracy": 0.6}}
    history = [
        Validation(step, step * 2.0, step * 50.0, {**metrics, "val/accuracy": accuracy - shift})
        for step, shift in ((10, 0.1), (20, 0.0))
    ]
    settings = {
        "model": f"lightning_prompts.tuners.{tuner}",
        "model.perplexity_weight": weight,
        "data.template": "{prompt} {text}",
        "seed_everything": seed,
    }
    run = make_record(
        name=f"runs/{tuner}_{weight}_{seed}_{changed.get('settings', '')}",
        tuner=tuner,
        perplexity_weight=weight,
        seed=seed,
        steps=20,
        seconds=40.0,
        forward_tokens=1000.0,
        token_distances=[0.1, 0.9] if vectors else None,
        token_nats=[2.0, 7.5],
        in_use="vectors" if vectors else "tokens",
        metrics=metrics | changed.pop("metrics", {}),
        baselines=baselines,
        test_baselines=baselines,
        rows={"validation": 50, "test": ROWS},
        correct="1" * right + "0" * (ROWS - right),
        history=history,
        settings=settings | changed.pop("settings", {}),
        symbols={"model.perplexity_weight": "w"},
    )
    for name, value in changed.items():
        setattr(run, name, value)
    return run


@pytest.fixture
def run() -> Callable[..., RunRecord]:
    return make_run


@pytest.fixture
def runs() -> list[RunRecord]:
    """Soft, PEZ with two weights and a written prompt, with three seeds each."""
    accuracies = {("SoftPrompt", 0.0): 0.9, ("PEZ", 0.0): 0.7, ("PEZ", 0.5): 0.6}
    found = [
        make_run(tuner, weight, seed, accuracy + 0.02 * seed)
        for (tuner, weight), accuracy in accuracies.items()
        for seed in range(3)
    ]
    return found + [make_run("ManualPrompt", 0.0, seed, 0.8) for seed in range(3)]


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Writes a study's folder with records, failed and running trials."""
    monkeypatch.chdir(tmp_path)

    def write(
        records: Sequence[RunRecord],
        errors: Sequence[str] = (),
        running: int = 0,
        name: str = "own",
    ) -> Path:
        folder = Path("logs/studies") / name
        folder.mkdir(parents=True)
        (folder / "study.yaml").write_text(f"study: {{name: {name}}}\n", encoding="utf-8")
        storage = JournalStorage(JournalFileBackend(str(folder / "journal.log")))
        created = optuna.create_study(
            study_name=name, storage=storage, directions=["maximize", "minimize"]
        )
        created.set_user_attr("description", "What it asks.")
        for record in records:
            values = [record.metrics["val/accuracy"], record.metrics["val/perplexity"]]
            attrs: dict[str, Any] = {"record": record.to_json(), "seconds": record.seconds}
            if record.variant:
                attrs["settings"] = {"variant": attrs["record"].pop("variant")}
            created.add_trial(
                create_trial(state=TrialState.COMPLETE, values=values, user_attrs=attrs)
            )
        for error in errors:
            created.add_trial(
                create_trial(state=TrialState.FAIL, user_attrs={"error": error, "settings": {}})
            )
        for _ in range(running):
            created.add_trial(create_trial(state=TrialState.RUNNING))
        return folder

    return write
