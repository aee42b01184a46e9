"""Predictions of a file of any size: read in windows, written in parts, resumed after a kill."""

import csv
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer

from lightning_prompts.cli.main import main
from lightning_prompts.files.errors import PromptError
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.runs.prediction_files import PredictionFile, flat
from lightning_prompts.runs.predictions import Predictions
from lightning_prompts.tasks.classification import TextClassification
from lightning_prompts.tuners.manual import ManualPrompt
from tests.patience import PATIENCE
from tests.tiny import reviews

WAYS = dict.fromkeys(("nearest_tokens", "pasted_text", "calibrate"), True)
Run = Callable[..., None]


def texts(path: Path, count: int, empty: int = 7) -> Path:
    """Reviews with names of their own, of which some are empty."""
    rows = [{"id": f"r{i}", "text": row["text"]} for i, row in enumerate(reviews(count))]
    rows[empty]["text"] = " "
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def predict(lm: FrozenLM, review_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`Predictions` with some options on the 40 texts of `new.jsonl` in the present folder."""
    monkeypatch.chdir(tmp_path)
    texts(Path("new.jsonl"), 40)

    def run(
        path: str | None = None,
        text: str = "Well:",
        data: str = "new.jsonl",
        batches: int | None = None,
        **options,
    ) -> None:
        task = TextClassification(
            *(lm, "{prompt} {text} It was", {"negative": " terrible", "positive": " great"}),
            path=str(review_folder),
            predict=data,
            id_column="id" if data == "new.jsonl" else "text",
            val_batch_size=4,
        )
        trainer = Trainer(
            logger=False,
            enable_progress_bar=False,
            accelerator="cpu",
            callbacks=[Predictions(path, **options)],
            limit_predict_batches=batches,
        )
        tuner = ManualPrompt.for_task(task, text=text)
        trainer.predict(tuner, task, return_predictions=False)

    return run


def lines(path: Path | str) -> list[dict]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def numbers(line: dict) -> dict:
    return {name: value for name, value in flat(line).items() if isinstance(value, float)}


def test_windows_give_the_lines_of_all_rows_at_once(predict: Run):
    predict(**WAYS)
    predict("o.jsonl", window=16, **WAYS)
    (whole,) = Path().rglob("predictions.jsonl")
    assert len(lines("o.jsonl")) == 40
    for ours, theirs in zip(lines("o.jsonl"), lines(whole), strict=True):
        assert numbers(ours) == pytest.approx(numbers(theirs), abs=1e-5)
        assert {**flat(theirs), **numbers(ours)} == flat(ours)
    assert lines("o.jsonl")[7]["left_out"] == "an empty 'text'"
    assert not Path("o.jsonl.parts").exists()


def test_the_formats_say_the_same(predict: Run):
    import pyarrow.parquet

    for ending in ("jsonl", "csv", "parquet"):
        predict(f"o.{ending}", window=16)
    table = pyarrow.parquet.read_table("o.parquet")
    with Path("o.csv").open(newline="") as file:
        of_csv = list(csv.DictReader(file))
    expected = [flat(line) for line in lines("o.jsonl")]
    columns = ["row", "id", "label", "probabilities.negative", "probabilities.positive", "left_out"]
    assert table.column_names == list(of_csv[0]) == columns
    for number, (one, other) in enumerate(zip(table.to_pylist(), of_csv, strict=True)):
        own = {name: expected[number].get(name) for name in columns}
        assert one == own
        assert other == {k: "" if v is None else str(v) for k, v in own.items()}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("ending", ["csv", "parquet", "json"])
def test_every_format_is_read_in_parts(ending: str, packed: bool, predict: Run):
    """As the same rows from JSON lines, blank lines and bad rows too."""
    import gzip

    import pyarrow.parquet

    rows = [{**row, "id": f"{row['id']}, {i}"} for i, row in enumerate(lines("new.jsonl"))]
    Path("new.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    predict("expected.jsonl", window=16)
    path = Path(f"rows.{ending}")
    if ending == "csv":
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([["id", "text"], *(row.values() for row in rows)])
            file.write("\r\n,\r\n,\r\n")
    elif ending == "parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=10)
    else:
        path.write_text(json.dumps(rows))
    if packed:
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
        path = path.with_name(path.name + ".gz")
    predict("o.jsonl", data=str(path), window=16)
    for ours, theirs in zip(lines("o.jsonl"), lines("expected.jsonl"), strict=True):
        assert numbers(ours) == pytest.approx(numbers(theirs), abs=1e-5)
        assert {**flat(theirs), **numbers(ours)} == {**flat(ours), "id": theirs["id"]}


def test_calibrated_answers_are_those_of_the_prior(predict: Run, review_folder: Path):
    """Against the training texts predicted by themselves, and averaged by hand."""
    predict("o.jsonl", calibrate=True)
    predict("train.jsonl", data=str(review_folder / "train.jsonl"))
    of_train = [list(line["probabilities"].values()) for line in lines("train.jsonl")]
    prior = torch.tensor(of_train).log().mean(0)
    for line in lines("o.jsonl"):
        if line["label"] is None:
            continue
        scores = torch.tensor(list(line["probabilities"].values())).log() - prior
        found = list(line["calibrated_probabilities"].values())
        assert found == pytest.approx(scores.softmax(0).tolist(), abs=1e-5)
        assert line["calibrated_label"] == list(line["probabilities"])[scores.argmax()]


def test_what_is_there_stays_and_the_rest_is_added(predict: Run, monkeypatch: pytest.MonkeyPatch):
    """A run that ends in its third window; the one that goes on does not do the first two again."""
    predict("whole.jsonl", window=8)
    write, written = PredictionFile.write, []

    def failing(self: PredictionFile, index: int, *args) -> None:
        written.append(index)
        if written == [0, 1, 2]:
            raise PromptError("The power went off.")
        write(self, index, *args)

    monkeypatch.setattr(PredictionFile, "write", failing)
    with pytest.raises(PromptError, match="power"):
        predict("o.jsonl", window=8)
    assert not Path("o.jsonl").exists()
    with pytest.raises(PromptError, match=r"go on with Predictions\(resume=True\)"):
        predict("o.jsonl", window=8)
    predict("o.jsonl", window=8, resume=True)
    assert written == [0, 1, 2, 2, 3, 4]
    assert Path("o.jsonl").read_bytes() == Path("whole.jsonl").read_bytes()
    assert not Path("o.jsonl.parts").exists()


def test_killed_before_the_parts_were_removed(predict: Run, monkeypatch: pytest.MonkeyPatch):
    """All of them are there, and no batch is left to read."""
    predict("whole.csv", window=8)
    with monkeypatch.context() as patched:
        patched.setattr(PredictionFile, "join", lambda *_: None)
        predict("o.csv", window=8)
    predict("o.csv", window=8, resume=True)
    assert Path("o.csv").read_bytes() == Path("whole.csv").read_bytes()
    with pytest.raises(PromptError, match="is there and whole"):
        predict("o.csv", window=8, resume=True)


def test_rows_that_have_changed_are_predicted_anew(
    predict: Run, capsys: pytest.CaptureFixture[str]
):
    predict("o.jsonl", window=8, batches=6)  # three windows of two batches
    rows = lines("new.jsonl")
    rows[9]["text"] = "Another text."
    Path("new.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    capsys.readouterr()
    predict("o.jsonl", window=8, resume=True)
    assert "15 of 39 rows are there; going on" in capsys.readouterr().err
    predict("whole.jsonl", window=8)
    assert Path("o.jsonl").read_bytes() == Path("whole.jsonl").read_bytes()


def test_mistakes_are_one_sentence(predict: Run):
    Path("there.csv").write_text("")
    with pytest.raises(PromptError, match="is there and whole"):
        predict("there.csv")
    predict("o.csv", batches=1)
    with pytest.raises(PromptError, match=r"begun with another prompt \(ckpt_path\); go on"):
        predict("o.csv", resume=True, text="Hmm.:")
    with Path("new.jsonl").open("a") as file:
        file.write('{"id": "x"}\n')
    with pytest.raises(PromptError, match="row 41 has no column 'text'"):
        predict("p.csv")
    texts(Path("new.jsonl"), 1, empty=0)
    with pytest.raises(PromptError, match="no row to predict: 1 left out"):
        predict("p.csv")
    assert not list(Path().glob("p.csv*"))


def test_options_are_checked_when_they_are_given():
    with pytest.raises(PromptError, match="window is 0"):
        Predictions("a.jsonl", window=0)
    with pytest.raises(PromptError, match="says no format"):
        Predictions("a.txt")
    with pytest.raises(PromptError, match=r"give Predictions\(path"):
        Predictions(resume=True)


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_killed_three_times(
    ending: str, lm_folder: Path, review_folder: Path, tmp_path: Path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    texts(Path("new.jsonl"), 5000)
    command = ["predict", "--config", "configs/tuner/manual.yaml", "--model.text", "Well:"]
    command += ["--config", "configs/task/demo.yaml", "--data.predict", "new.jsonl"]
    command += ["--lm.name", str(lm_folder), "--data.path", str(review_folder)]
    command += ["--predictions.window", "256", "--predictions.resume", "true"]
    main([*command, f"--predictions.path=whole.{ending}"])
    parts, kills = Path(f"o.{ending}.parts"), 0
    while not Path(f"o.{ending}").exists():
        before = len(list(parts.glob("0*")))
        program = [sys.executable, "-m", "lightning_prompts"]
        run = subprocess.Popen([*program, *command, f"--predictions.path=o.{ending}"])
        end = time.monotonic() + PATIENCE
        while kills < 3 and run.poll() is None and time.monotonic() < end:
            if len(list(parts.glob("0*"))) > before:
                run.send_signal(signal.SIGKILL)
                break
            time.sleep(0.01)
        ended = run.wait(PATIENCE)
        assert ended == (0 if kills == 3 else -signal.SIGKILL)
        kills += 1
    assert kills == 4
    assert Path(f"o.{ending}").read_bytes() == Path(f"whole.{ending}").read_bytes()
