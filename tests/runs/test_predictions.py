"""predictions.jsonl has a line for each row of the file, under the file's own name for it."""

import json
from pathlib import Path

import pytest

from lightning_prompts.cli.main import main

WORDS = '{"0": " terrible", "1": " great"}'
OPTIONS = (
    *("--config", "configs/tuner/manual.yaml", "--model.text", "Well:"),
    *("--data", "TextClassification", "--data.template", "{prompt} {Review Text} It was"),
    *("--data.verbalizer", WORDS, "--trainer.enable_progress_bar", "false"),
    *(
        "--trainer.precision",
        "32-true",
        "--data.encoding",
        "cp1252",
        "--data.label_column",
        "Stars",
    ),
)


def reviews(path: Path, *extra: str, count: int = 10) -> Path:
    rows = [f'{i};"Good film; {i}";{i % 2}' for i in range(count)]
    text = "\r\n".join(["Nr;Review Text;Stars", *rows, *extra, ""])
    path.write_bytes(text.encode("cp1252"))
    return path


def test_each_row_has_a_line(lm_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    # The label of a row to predict is not asked for; what it is called is.
    path = reviews(Path("new.csv"), "x7;;1", "x8;Fine.;unheard of", "x9;A caf\xe9.;", count=2)
    options = ("--data.predict", str(path), "--data.id_column", "Nr", "--lm.name", str(lm_folder))
    main(["predict", *OPTIONS, *options])
    (file,) = Path("logs").rglob("predictions.jsonl")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["row"] for line in lines] == [0, 1, 2, 3, 4]
    assert [line["id"] for line in lines] == ["0", "1", "x7", "x8", "x9"]
    empty = {"row": 2, "id": "x7", "label": None, "probabilities": None}
    assert lines[2] == {**empty, "left_out": "an empty 'Review Text'"}
    for line in (*lines[:2], *lines[3:]):
        assert line["label"] in ("0", "1")
        assert sum(line["probabilities"].values()) == pytest.approx(1)
        assert "left_out" not in line


def test_what_was_left_out_stands_in_the_table(
    lm_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.chdir(tmp_path)
    reviews(Path("train.csv"))
    reviews(Path("validation.csv"), "x;;1", "y;what;neutral")
    options = ("--data.path", ".", "--lm.name", str(lm_folder), "--data.skip_bad_rows", "true")
    main(["fit", *OPTIONS, *options])
    said = capsys.readouterr()
    assert "10 rows (2 bad rows of the data left out)" in said.out
    reasons = "an empty 'Review Text' (row 11); the unknown label 'neutral' (row 12)"
    assert f"validation.csv: 2 of 12 rows left out: {reasons}." in said.err
