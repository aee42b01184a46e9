"""A run that an earlier version made: measured, predicted, reported and gone on with as it is."""

import json
import shutil
from pathlib import Path

import pytest

from lightning_prompts.cli.main import main
from tests.tiny import save_model

# Made at f3becd1, before files moved: a soft prompt of 4 tokens, 4 steps on the package's reviews.
EARLIER = Path(__file__).with_name("of_f3becd1")
RUN = Path("logs/soft-demo/version_0")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The run where it was made, beside its language model."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(EARLIER, RUN)
    save_model(Path("lm"))
    return RUN


def run_again(*args: str) -> None:
    main([*args, "--config", str(RUN / "config.yaml"), "--trainer.enable_progress_bar", "false"])


def test_it_is_measured_as_it_was(run: Path):
    before = json.loads((run / "prompt.json").read_text())
    assert "lightning_prompts.prompt_init.FromVocabulary" in (run / "config.yaml").read_text()
    run_again("validate", "--ckpt_path", "best")
    run_again("test", "--ckpt_path", "best")
    assert json.loads((run / "test.json").read_text())["ids"] == before["ids"]
    run_again("predict", "--ckpt_path", "best")
    assert (run / "predictions.jsonl").read_text().count("\n") == 120


def test_it_goes_on(run: Path):
    run_again("fit", "--ckpt_path", "last", "--trainer.max_steps", "6")
    assert json.loads((run / "prompt.json").read_text())["lm"]["label"] == "lm"
    assert "lightning_prompts.WarmupLinear" in (run / "config.yaml").read_text()


def test_it_is_reported(run: Path):
    main(["report", str(run), "--output", "report"])
    table = Path("report/results.csv").read_text()
    record = json.loads((run / "prompt.json").read_text())
    assert record["text"] in table
    assert f"{record['metrics']['val/accuracy']}" in table


def test_it_is_of_one_problem_with_a_run_of_today(run: Path):
    """Options that came since are what they were without them."""
    run_again("fit", "--experiment", "today", "--seed_everything", "7")
    main(["report", str(run), "logs/today", "--output", "report"])
    told = Path("report/results.md").read_text()
    assert "answer" not in told
    assert "quantize" not in told
    (row,) = [line for line in told.splitlines() if "SoftPrompt | " in line]
    assert "| 2 |" in row  # two seeds of one setting
