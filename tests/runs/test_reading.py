"""A run's record against what fit, test and predict wrote, and the time of stopped runs."""

import json
import math
from pathlib import Path

import pytest
import torch
from torch.utils.tensorboard import SummaryWriter

from lightning_prompts.cli.main import main
from lightning_prompts.files.errors import PromptError
from lightning_prompts.runs.events import read_timeline
from lightning_prompts.runs.reading import read_run
from lightning_prompts.runs.record import RunRecord
from lightning_prompts.tuners.prompt_init import RECORD


@pytest.fixture
def run(lm_folder: Path, review_folder: Path, tmp_path: Path, monkeypatch) -> Path:
    """A tested and predicted run of a soft prompt."""
    monkeypatch.chdir(tmp_path)
    options = ["--lm.name", str(lm_folder), "--data.path", str(review_folder)]
    options += ["--trainer.max_steps", "4", "--trainer.val_check_interval", "2"]
    options += ["--trainer.enable_progress_bar", "false", "--trainer.precision", "32-true"]
    files = ["--config", "configs/tuner/soft.yaml", "--config", "configs/task/demo.yaml"]
    main(["fit", *files, *options, "--model.perplexity_weight", "0.25"], show=False)
    folder = Path("logs/soft-demo/version_0")
    for command in ("test", "predict"):
        config = str(folder / "config.yaml")
        main([command, "--config", config, "--ckpt_path", "best"], show=False)
    return folder


def test_a_record_is_what_the_run_wrote(run: Path, review_folder: Path):
    record = read_run(run)
    prompt = json.loads((run / "prompt.json").read_text())
    assert (record.tuner, record.task, record.lm.label) == (
        "SoftPrompt",
        "demo",
        prompt["lm"]["label"],
    )
    assert (record.step, record.steps, record.seed) == (prompt["step"], 4, 0)
    assert record.perplexity_weight == 0.25
    assert record.soft_in_use
    assert record.rows == {"validation": 10, "test": 8}
    assert [validation.step for validation in record.history] == [2, 4]
    assert 0 < record.history[0].seconds < record.history[1].seconds <= record.seconds
    best = next(v for v in record.history if v.step == record.step)
    assert (
        best.metrics.items()
        >= {
            name: value for name, value in record.metrics.items() if name.startswith("val/")
        }.items()
    )
    assert best.metrics["train/loss"] > 0
    # Each validation has the tokens read so far, though training itself logs none in 4 steps.
    last = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    tokens = [validation.forward_tokens for validation in record.history]
    assert 0 < tokens[0] < tokens[1] == record.forward_tokens == last["forward_tokens"]
    assert record.settings["model.prompt_length"] == 10
    assert record.settings["model"] == "lightning_prompts.SoftPrompt"
    assert record.settings["model.optimizer.lr"] == 0.01
    assert RunRecord.from_json(json.loads(json.dumps(record.to_json()))) == record

    # Which rows were right, by another command's answers and the file's own labels.
    rows = [json.loads(line) for line in (review_folder / "test.jsonl").read_text().splitlines()]
    answers = [json.loads(line) for line in (run / "predictions.jsonl").read_text().splitlines()]
    right = "".join(str(int(a["label"] == r["label"])) for a, r in zip(answers, rows, strict=True))
    assert record.correct == right
    assert record.metrics["test/accuracy"] == pytest.approx(right.count("1") / 8)
    assert set(record.test_baselines) == set(record.baselines)


def test_tokens_come_with_their_surprise_and_distance(run: Path, lm):
    record = read_run(run)
    saved = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    vectors = saved["state_dict"]["prompt"]
    table = lm.embedding_table
    for vector, token, distance in zip(vectors, record.ids, record.token_distances, strict=True):
        expected = 1 - torch.cosine_similarity(vector, table[token], dim=0)
        assert distance == pytest.approx(float(expected), abs=1e-5)
    ids = torch.tensor([[lm.bos_id, *record.ids]])
    log_p = lm.model(input_ids=ids).logits[0, :-1].log_softmax(-1)
    expected = [-float(log_p[i, token]) for i, token in enumerate(record.ids)]
    assert record.token_nats == pytest.approx(expected, abs=1e-4)
    assert sum(record.token_nats) / 10 == pytest.approx(
        record.metrics["val/log_perplexity"], abs=1e-4
    )


def test_another_prompts_test_is_not_taken(run: Path):
    content = json.loads((run / "test.json").read_text())
    (run / "test.json").write_text(json.dumps({**content, "step": 999}))
    record = read_run(run)
    assert record.correct is None
    assert "test/accuracy" not in record.metrics
    assert record.other_test
    # Tokens are the same prompt whenever they were found.
    (run / "test.json").write_text(json.dumps({**content, "step": 999}))
    prompt = json.loads((run / "prompt.json").read_text())
    (run / "prompt.json").write_text(json.dumps({**prompt, "token_distances": None}))
    assert read_run(run).correct == content["correct"]


def test_a_run_of_before_there_were_versions(run: Path):
    """Its files had other names for some things; nothing is lost."""
    record = read_run(run)
    prompt = json.loads((run / "prompt.json").read_text())
    assert prompt.pop("record_version") == 1
    test = json.loads((run / "test.json").read_text())
    old_test = {
        **{name: test[name] for name in ("step", "ids", "metrics", "correct")},
        **{"baselines": test["test_baselines"], "rows": test["rows"]["test"]},
    }
    (run / "prompt.json").write_text(json.dumps(prompt))
    (run / "test.json").write_text(json.dumps(old_test))
    assert read_run(run) == record

    study = record.to_json()
    for new, old in (("token_nats", "nats"), ("token_distances", "distances")):
        study[old] = study.pop(new)
    del study["record_version"]
    old = {**study, "lm": study["lm"]["label"], "soft_in_use": study.pop("in_use") == "vectors"}
    read = RunRecord.from_json(old)
    assert (read.token_nats, read.in_use) == (record.token_nats, "vectors")
    assert read.lm.label == record.lm.label

    path = run / "checkpoints" / "best.ckpt"
    content = torch.load(path, weights_only=True)
    saved = content[RECORD]
    content[RECORD] = {
        **{name: saved[name] for name in ("tuner", "template", "verbalizer", "text", "metrics")},
        **{"lm": saved["lm"]["label"], "lm_fingerprint": saved["lm"]["fingerprint"]},
        **{"lm_revision": None, "prompt_length": len(saved["ids"]), "token_ids": saved["ids"]},
    }
    torch.save(content, path)
    config = str(run / "config.yaml")
    main(["validate", "--config", config, "--ckpt_path", "best"], show=False)
    resume = ["fit", "--config", config, "--ckpt_path", "best", "--trainer.max_steps", "6"]
    main(resume, show=False)
    assert read_run(run).steps == 6


def test_a_later_version_is_refused_in_a_sentence(run: Path, capsys):
    content = json.loads((run / "prompt.json").read_text())
    (run / "prompt.json").write_text(json.dumps({**content, "record_version": 99}))
    said = r"prompt\.json: The record is of version 99, and this lightning-prompts knows"
    with pytest.raises(PromptError, match=said):
        read_run(run)
    path = run / "checkpoints" / "best.ckpt"
    saved = torch.load(path, weights_only=True)
    torch.save({**saved, RECORD: {**saved[RECORD], "record_version": 99}}, path)
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        main(["validate", "--config", str(run / "config.yaml"), "--ckpt_path", "best"])
    assert stopped.value.code == 2
    assert "The record is of version 99" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (None, "no such folder"),
        ({}, "is no run, it has no prompt.json"),
        ({"config.yaml": "{}"}, "has not validated a prompt yet"),
        ({"prompt.json": "{"}, "not readable as JSON"),
        ({"prompt.json": "[]"}, "not as lightning-prompts writes it"),
        ({"prompt.json": '{"metrics": {}}'}, "Not a record as lightning-prompts writes it"),
    ],
)
def test_what_is_no_run_is_said(files, said: str, tmp_path: Path):
    folder = tmp_path / "run"
    if files is not None:
        folder.mkdir()
        for name, text in files.items():
            (folder / name).write_text(text)
    with pytest.raises(PromptError, match=said):
        read_run(folder)


def test_numbers_that_are_none_are_left_out(run: Path):
    content = json.loads((run / "prompt.json").read_text())
    content["metrics"]["val/perplexity"] = None
    (run / "prompt.json").write_text(json.dumps(content))
    assert "val/perplexity" not in read_run(run).metrics


def write(folder: Path, start: float, values: list[tuple[str, int, float, float]]) -> None:
    """An event file: name, step, value, seconds after the start."""
    with SummaryWriter(str(folder), filename_suffix=f".{start}") as writer:
        # The writer's own first event has the time of now, which is what is told apart below.
        for name, step, value, seconds in values:
            writer.add_scalar(name, value, step, walltime=start + seconds)


def test_a_resumed_run_is_one_timeline(tmp_path: Path, monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr("time.time", lambda: clock[0])
    write(
        *(tmp_path, 1000.0),
        [("train/loss", 1, 5.0, 1), ("val/loss", 2, 4.0, 2), ("train/loss", 3, 9.0, 3)],
    )
    clock[0] = 90000.0  # a day later, from the checkpoint of step 2
    write(tmp_path, 90000.0, [("train/loss", 3, 3.0, 5), ("val/loss", 4, 2.0, 6)])
    clock[0] = 99000.0  # a validation apart from the fit
    write(tmp_path, 99000.0, [("val/loss", 4, 77.0, 1)])
    timeline = read_timeline(tmp_path)
    assert {step: p.value for step, p in timeline.values["train/loss"].items()} == {1: 5.0, 3: 3.0}
    assert {step: p.value for step, p in timeline.values["val/loss"].items()} == {2: 4.0, 4: 2.0}
    seconds = {step: p.seconds for step, p in timeline.values["val/loss"].items()}
    assert seconds == pytest.approx({2: 2.0, 4: 8.0})
    assert (timeline.steps, timeline.seconds) == (4, pytest.approx(8.0))
    assert timeline.latest("train/loss", 2) == 5.0
    assert timeline.latest("train/none") is None


def test_half_an_event_is_left_out(run: Path):
    (run / "history.jsonl").unlink()  # of an earlier version
    whole = read_run(run)
    events = next(run.glob("events*"))
    for path in run.glob("events*"):
        path.write_bytes(path.read_bytes()[:-7])
    assert read_run(run).ids == whole.ids
    assert events.exists()
    assert math.isfinite(read_run(run).seconds)
