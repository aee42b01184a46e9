"""A run's history.jsonl is that of one that went through, whatever stopped it and however often."""

import json
from pathlib import Path

import pytest
from torch.utils.tensorboard import SummaryWriter

from lightning_prompts.cli.main import main
from lightning_prompts.files.errors import PromptError
from lightning_prompts.runs.history import History, read_history
from lightning_prompts.runs.reading import read_run


def steps(run: Path) -> list[int]:
    return [validation.step for validation in read_history(run)]


def test_a_resumed_run_drops_what_lies_beyond_its_checkpoint(tmp_path: Path):
    history = History()
    history.begin(tmp_path, 0)
    for step in (2, 4, 6):
        history.add(step, 10.0 * step, {"val/loss": 1.0 / step, "val/none": float("nan")})
    whole = read_history(tmp_path)
    assert [(v.step, v.forward_tokens, v.metrics) for v in whole] == [
        (step, 10.0 * step, {"val/loss": 1.0 / step}) for step in (2, 4, 6)
    ]
    with (tmp_path / "history.jsonl").open("a") as file:
        file.write('{"step": 8, "secon')  # of a killed process
    assert read_history(tmp_path) == whole
    history = History()
    history.resume(100.0)
    history.begin(tmp_path, 4)
    assert read_history(tmp_path) == whole[:2]
    history.add(4, 40.0, {"val/loss": 0.25})  # once more, as its checkpoint was due to
    history.end(5, 50.0)
    assert steps(tmp_path) == [2, 4, 5]
    last = read_history(tmp_path)[-1]
    assert (last.metrics, last.seconds > 100) == ({}, True)
    history.begin(tmp_path, 5)  # in the same process; where it was stopped is no validation
    assert steps(tmp_path) == [2, 4]
    assert history.seconds > 100
    history.begin(tmp_path, 0)  # another run in the same place
    assert (steps(tmp_path), history.seconds < 100) == ([], True)


def test_a_run_that_ends_with_a_validation_has_no_line_beyond(tmp_path: Path):
    history = History()
    history.begin(tmp_path, 0)
    history.add(2, None, {"val/loss": 1.0})
    history.end(2, None)
    assert steps(tmp_path) == [2]
    history.end(3, None)  # nothing is under way
    assert steps(tmp_path) == [2]


@pytest.mark.parametrize("line", ["[]", "{", '{"step": 1}', '{"a": 1}', "null"])
def test_a_damaged_line_is_said(line: str, tmp_path: Path):
    (tmp_path / "history.jsonl").write_text(f"{line}\n")
    with pytest.raises(PromptError, match=r"history\.jsonl: not as fit writes it"):
        read_history(tmp_path)


def test_a_run_of_before_goes_on_with_what_it_logged_to_tensorboard(tmp_path: Path):
    with SummaryWriter(str(tmp_path)) as writer:
        for step in (2, 4, 6):
            writer.add_scalar("train/forward_tokens", 10 * step, step)
            writer.add_scalar("val/loss", 1 / step, step)
    assert [(v.step, bool(v.metrics)) for v in read_history(tmp_path)] == [
        *((2, True), (4, True), (6, True), (6, False))
    ]
    history = History()
    history.begin(tmp_path, 4)
    history.add(6, 60.0, {"val/loss": 0.5})
    lines = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    assert [(line["step"], line["forward_tokens"]) for line in lines] == [(2, 20), (4, 40), (6, 60)]
    assert [line["metrics"]["val/loss"] for line in lines] == pytest.approx([0.5, 0.25, 0.5])


def test_it_needs_no_logger(lm_folder: Path, review_folder: Path, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    args = ["fit", "--config", "configs/tuner/pez.yaml", "--config", "configs/task/demo.yaml"]
    args += ["--lm.name", str(lm_folder), "--data.path", str(review_folder)]
    args += ["--trainer.max_steps", "3", "--trainer.val_check_interval", "2"]
    args += ["--trainer.enable_progress_bar", "false", "--trainer.logger", "false"]
    main(args, show=False)
    run = Path("logs/pez-demo/version_0")
    assert not list(run.rglob("events*"))
    record = read_run(run)
    assert [validation.step for validation in record.history] == [2, 3]
    assert record.seconds >= record.history[-1].seconds > record.history[0].seconds > 0
    assert record.forward_tokens == record.history[-1].forward_tokens > 0
    assert {"train/loss", "val/accuracy", "val/objective"} <= record.history[0].metrics.keys()
