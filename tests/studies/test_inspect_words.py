"""`inspect`: what its words mean, and mistakes, which end before a model is read."""

import json
from pathlib import Path
from shutil import copyfile

import pytest

from lightning_prompts.cli.main import main
from lightning_prompts.files.atomic_files import write_json
from lightning_prompts.metrics.panel.measures import CHEAP
from lightning_prompts.studies.given import run_of
from lightning_prompts.studies.inspect import Asked, divide
from lightning_prompts.studies.inspect_alike import given_comparisons
from tests.records import make_record


def test_what_a_word_means(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert divide(["a", "--in_words", "--rows", "8"]).in_words
    asked = divide(["a b", "--rows=8", "--panel", "all", "--compare", " c", "--data.seed", "1"])
    assert (asked.prompt, asked.rows, asked.compare) == ("a b", 8, [" c"])
    assert asked.options == ["--data.seed", "1"]
    assert (asked.split, divide(["a", "--split=test"]).split) == ("validation", "test")
    assert "simulatability" in asked.measures
    assert Asked("a").measures == CHEAP
    named = ("grammar", "repetition")
    for given in (named, ["[grammar, repetition]"], ["grammar,repetition"]):
        assert divide(["a", "--panel", *given]).measures == named
    Path("run").mkdir()
    Path("run/prompt.json").write_text("{}")
    assert run_of("run") == Path("run")
    Path("texts.txt").write_text(" one\n two\n")
    Path("run/prompt.json").write_text(json.dumps(make_record().to_json()))
    found = given_comparisons([" good", "run", "texts.txt", "bad"])
    assert found == ([" good", " one", " two", "bad"], [("run", Path("run"))])
    assert run_of(" run") is None


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ([], "Say first which prompt to look at"),
        (["--rows", "5", "a"], "Say first which prompt to look at"),
        (["a", "b"], "2 prompts are given, and inspect looks at one"),
        ([" "], "The prompt is empty"),
        (["a", "--rows", "none"], "--rows none: give a whole number, at least 1"),
        (["a", "--rows"], "--rows needs a value"),
        (["a", "--in_words=yes"], "--in_words=yes: --in_words takes no value; give it alone"),
        (["a", "--split", "train"], "--split train: give validation or test"),
        (["a", "--compare", "./gone"], "--compare ./gone: neither a run's folder nor a file"),
        (["a", "--compare", "empty"], "empty: neither a run with a validated prompt"),
        (["a", "--compare", "bad"], "Not a record as lightning-prompts writes it"),
        (["a", "--panel", "beauty"], "--panel names 'beauty', which is no measure"),
        (["a", "--model.lr", "1"], "--model.lr: a prompt that is looked at has no tuner"),
        (["a", "--output", "two.txt"], "two.txt cannot be written"),
        (["./nowhere"], "./nowhere: no such file or folder"),
        (["gone.ckpt"], "gone.ckpt: no such file or folder"),
        (["empty"], "empty: neither a run with a validated prompt nor an adapter of PEFT"),
        (["two.txt"], "two.txt has 2 texts, and inspect looks at one"),
        (["bad"], "Not a record as lightning-prompts writes it"),
        (["bare"], "bare: no config.yaml lies there that says its task"),
        (["a"], "Missing --data"),
    ],
)
def test_mistakes_end_before_a_model_is_read(
    args: list[str], said: str, tmp_path: Path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    for name in ("empty", "bad", "bare"):
        Path(name).mkdir()
    Path("two.txt").write_text("a\nb\n")
    Path("bad/prompt.json").write_text("{}")
    write_json(Path("bare/prompt.json"), make_record().to_json())
    with pytest.raises(SystemExit) as stop:
        main(["inspect", *args])
    assert stop.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--compare", " word" * 60], "has 300 tokens in"),
        (["--split", "test"], "--split test: the data have no test rows; name a file with"),
        (["--lm.name", "./gone"], "./gone': no such folder"),
    ],
)
def test_what_does_not_fit_the_model(
    more: list[str],
    said: str,
    lm_folder: Path,
    review_folder: Path,
    tmp_path: Path,
    monkeypatch,
    capsys,
):
    monkeypatch.chdir(tmp_path)
    Path("reviews").mkdir()
    for name in ("train.jsonl", "validation.jsonl"):
        copyfile(review_folder / name, Path("reviews") / name)
    options = ["--config", "configs/task/demo.yaml", "--data.path", "reviews"]
    options += ["--data.template={text}{prompt}", "--lm.name", str(lm_folder)]
    options += ["--trainer.precision", "32-true"]
    with pytest.raises(SystemExit) as stop:
        main(["inspect", " good", *options, *more])
    assert stop.value.code == 2
    assert said in capsys.readouterr().err
    assert not Path("logs/inspect").exists()
