"""`check` names what is wrong with a data set, with the exit status for it."""

import json
import random
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from lightning_prompts import FrozenLM, TextClassification
from lightning_prompts.cli.main import main
from lightning_prompts.studies.check_data import data_warnings, look_at
from tests.tiny import reviews

OPTIONS = ("--config", "configs/tuner/soft.yaml", "--config", "configs/task/demo.yaml")
FOUR = '{"negative": " terrible", "positive": " abc"}'


def splits() -> dict[str, list[dict[str, str]]]:
    rows = list(reviews(220))
    random.Random(0).shuffle(rows)
    # Each says something of its own, also where the reviews repeat.
    rows = [{**row, "text": f"{row['text']} ({i})"} for i, row in enumerate(rows)]
    return {"train": rows[:100], "validation": rows[100:180], "test": rows[180:]}


def swapped(rows: dict[str, list[dict[str, str]]]) -> None:
    other = {"positive": "negative", "negative": "positive"}
    rows["validation"] = [{**r, "label": other[r["label"]]} for r in rows["validation"]]


def leaked(rows: dict[str, list[dict[str, str]]]) -> None:
    rows["train"] += [{**row, "text": row["text"].upper()} for row in rows["test"][:12]]


def without_a_class(rows: dict[str, list[dict[str, str]]]) -> None:
    rows["validation"] = [row for row in rows["validation"] if row["label"] == "positive"]


def too_long(rows: dict[str, list[dict[str, str]]]) -> None:
    rows["train"][:20] = [{**row, "text": row["text"] * 10} for row in rows["train"][:20]]


def few(rows: dict[str, list[dict[str, str]]]) -> None:
    rows["validation"] = rows["validation"][:6]


def nothing(rows: dict[str, list[dict[str, str]]]) -> None:
    pass


Check = Callable[..., tuple[int, str, list[str]]]


@pytest.fixture
def check(
    lm_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Check:
    monkeypatch.chdir(tmp_path)

    def run(breaks: Callable = nothing, *more: str) -> tuple[int, str, list[str]]:
        rows: Mapping[str, list] = splits()
        breaks(rows)
        for name, some in rows.items():
            Path(f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
        code = 0
        try:
            main(["check", *OPTIONS, "--lm.name", str(lm_folder), "--data.path", ".", *more])
        except SystemExit as stop:
            code = int(stop.code or 0)
        said = capsys.readouterr()
        lines = said.out.splitlines()
        return code, said.out + said.err, [line for line in lines if line.startswith("Warning ")]

    return run


@pytest.mark.slow
def test_a_sound_data_set_has_no_warning(check: Check):
    code, said, warnings = check()
    assert (code, warnings) == (0, [])
    labels = [row["label"] for row in splits()["train"]]
    counts = f"negative {labels.count('negative')}, positive {labels.count('positive')}"
    assert f"Labels of train: {counts}\n" in said
    assert said.count("[[prompt: 10 vectors]]") == 3
    assert re.search(r"Baselines on \d+ validation rows: majority 0\.\d+, no prompt", said)
    assert "s a step" in said
    assert "No warning." in said
    assert not Path("logs").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("breaks", "warning"),
    [
        (swapped, "Labels 'negative' and 'positive' look swapped in validation"),
        (leaked, "12 of 40 test rows stand in train too (30%)"),
        (without_a_class, "No validation row has the label 'negative'"),
        (few, "only 6 validation rows (to choose the prompt): one row more or less is 0.167"),
        (too_long, "of the train rows are longer than the 246 tokens that tiny_gpt2"),
    ],
)
def test_what_is_broken_is_named(breaks: Callable, warning: str, check: Check):
    code, _, warnings = check(breaks)
    assert code == 1
    assert any(warning in line and "; " in line for line in warnings), warnings
    assert len(warnings) == 1, warnings


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ((24, 25), "24 validation rows (to choose the prompt): one row more or less is 0.042"),
        ((25, 24), "24 test rows (to score it): one row more or less is 0.042"),
        ((24, 8), "24 validation rows (to choose the prompt) and 8 test rows (to score it): one"),
        ((25, 25), None),
    ],
)
def test_few_held_out_rows_are_warned_of(
    rows: tuple[int, int], told: str | None, lm: FrozenLM, tmp_path: Path
):
    known = splits()
    for name, number in zip(("validation", "test"), rows, strict=True):
        known[name] = known[name][:number]
    for name, some in known.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
    task = TextClassification(
        lm,
        "{prompt}{text} It was",
        {"negative": " terrible", "positive": " great"},
        data=str(tmp_path),
    )
    task.report.max_tokens = task.token_limit(10)
    found = data_warnings(task, {name: look_at(task, name) for name in known})
    assert [told in warning for warning in found] == [True] if told else found == []
    # Of 24 shares: what 0.5 has for a standard error, by hand.
    assert not told or rows[1] == 8 or "standard error is up to 0.102;" in found[0]


@pytest.mark.slow
def test_an_answer_of_four_tokens_is_named(check: Check):
    code, _, warnings = check(nothing, "--data.verbalizer", FOUR)
    assert code == 1
    assert len(warnings) == 1
    assert "' abc' of label 'positive' has 4 tokens (' ' + 'a' + 'b' + 'c')" in warnings[0]


@pytest.mark.slow
@pytest.mark.parametrize("tuner", ["pez", "manual", "guided_search", "rlprompt"])
def test_other_tuners_are_timed_too(tuner: str, check: Check):
    code, said, _ = check(nothing, "--config", f"configs/tuner/{tuner}.yaml")
    assert code == 0
    assert "s a step" in said


@pytest.mark.slow
def test_what_cannot_run_is_a_mistake(check: Check):
    code, said, _ = check(nothing, "--model.prompt_length", "300")
    assert code == 2
    assert "leaves no room for a text" in said
    code, said, _ = check(lambda rows: rows["test"][3].pop("text"))
    assert code == 2
    assert "row 4 has no column 'text'" in said
