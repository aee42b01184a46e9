"""The demo runs its three tuners and says what their numbers show."""

import json
from pathlib import Path

import pytest

from lightning_prompts.cli.evaluation import Evaluation
from lightning_prompts.cli.main import main
from lightning_prompts.studies.demo import lesson
from tests.records import make_record


def test_the_demo_is_one_table(lm_folder: Path, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    args = ["--lm.name", str(lm_folder), "--trainer.max_steps", "3", "--data.validation_rows", "40"]
    quick = ["--trainer.val_check_interval", "1", "--trainer.enable_progress_bar", "false"]
    assert main(["demo", *args, *quick]) is None
    out = capsys.readouterr().out
    lines = [line.strip() for line in out.splitlines()]
    names = [line[:28].strip() for line in lines[3:12]]
    kinds = ("no prompt", "no prompt, calibrated", "written prompt (46 tokens)")
    assert [n for n in names if n and "─" not in n] == [
        *("prompt", "majority", *kinds, "SoftPrompt (10 vectors)", "its nearest tokens"),
        "PEZ (10 tokens)",
    ]
    for tuner in ("manual", "soft", "pez"):
        run = Path(f"logs/{tuner}-demo/version_0")
        metrics = json.loads((run / "prompt.json").read_text())["metrics"]
        assert f"{metrics['val/accuracy']:.3f}" in out
        assert tuner == "manual" or any(line.endswith(f"Files: {run}") for line in lines)
    assert out.count("3 steps.") == 2
    page = Path("logs/demo-report/report.html")
    assert lines[-1] == f"Open in a browser: {page}"
    written = page.read_text(encoding="utf-8")
    assert written.count("<img ") >= 4
    assert all(name in written for name in ("ManualPrompt", "SoftPrompt", "PEZ"))
    assert "the validation rows that chose each prompt also score it" in written


def test_a_missing_model_ends_the_demo(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SystemExit) as stop:
        main(["demo"])
    assert stop.value.code == 2
    assert "pip install" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("vectors", "tokens", "said"),
    [
        (0.88, 0.51, "cannot be read off them"),
        (0.88, 0.87, "the tokens stand for the vectors"),
        (0.70, 0.51, "do not beat the calibrated empty prompt (0.690) yet"),
    ],
)
def test_the_lesson_follows_from_the_numbers(vectors: float, tokens: float, said: str):
    prompt = make_record(in_use="vectors")
    baselines = {"no prompt, calibrated": {"accuracy": 0.69}}

    def evaluation(**metrics: float) -> Evaluation:
        return Evaluation(prompt, metrics, baselines, "val", rows=120)

    found = {
        "manual": evaluation(accuracy=0.81),
        "soft": evaluation(accuracy=vectors, hard_accuracy=tokens),
        "pez": evaluation(accuracy=0.65),
    }
    sentence = lesson(found)
    assert said in sentence
    assert "a written text reaches 0.810, PEZ's tokens 0.650" in sentence
