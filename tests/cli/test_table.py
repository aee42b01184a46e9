"""The closing table and its sentences say what the numbers say, at any width."""

import pytest
from rich.console import Console

from lightning_prompts.cli import table
from lightning_prompts.cli.advice import advice, convergence, few_rows
from lightning_prompts.cli.evaluation import Evaluation
from lightning_prompts.files.amounts import NONE
from lightning_prompts.files.console import fail
from tests.records import make_record

BASELINES = {
    "majority": {"accuracy": 0.5, "macro_f1": 0.333},
    "no prompt": {"accuracy": 0.515, "macro_f1": 0.4, "loss": 0.8},
    "no prompt, calibrated": {"accuracy": 0.688, "macro_f1": 0.68, "loss": 0.62},
}


def evaluation(in_use: str, text: str = " good", iterate: bool = False, **metrics: float):
    """An evaluation on 872 rows."""
    prompt = make_record(in_use=in_use, text=text)
    return Evaluation(prompt, metrics, BASELINES, "val", rows=872, cut=3, iterate=iterate)


@pytest.mark.parametrize(
    ("in_use", "metrics", "sentence"),
    [
        (
            "vectors",
            {"accuracy": 0.876, "hard_accuracy": 0.509, "round_trip_accuracy": 0.51},
            "Its nearest tokens do not act like it (0.509 against 0.876): keep the vectors",
        ),
        (
            "vectors",
            {"accuracy": 0.876, "hard_accuracy": 0.88, "round_trip_accuracy": 0.87},
            "Copy this text: it reaches 0.870 tokenized anew; no prompt, calibrated, 0.688.",
        ),
        (
            "tokens",
            {"accuracy": 0.812, "round_trip_accuracy": 0.812},
            "Copy this text: it reaches 0.812 tokenized anew; no prompt, calibrated, 0.688.",
        ),
        (
            "tokens",
            {"accuracy": 0.812, "round_trip_accuracy": 0.6},
            "Its text is not its tokens (0.600 tokenized anew against 0.812): use the ids",
        ),
        ("tokens", {"accuracy": 0.812}, "Its tokens reach 0.812; no prompt, calibrated, 0.688;"),
        # 0.70 is within one standard error (0.016) of 0.688.
        ("tokens", {"accuracy": 0.70, "round_trip_accuracy": 0.70}, "does not beat the calibrated"),
        ("vectors", {"accuracy": 0.653, "hard_accuracy": 0.653}, "does not beat the calibrated"),
    ],
)
def test_advice_follows_from_the_numbers(in_use: str, metrics: dict[str, float], sentence: str):
    assert sentence in advice(evaluation(in_use, **metrics))


def test_few_rows_are_named_with_what_they_tell():
    """Six of six rows: Wilson's interval by hand is n / (n + z^2) to 1."""
    found = evaluation("tokens", accuracy=1.0)
    assert few_rows(found._replace(rows=25)) is None
    said = few_rows(found._replace(rows=6))
    low = 6 / (6 + 1.959964**2)
    assert said is not None
    assert f"Of 6 rows alone 1.000 says little: its 95 % interval is {low:.3f} to 1.000." in said
    assert "chose the prompt" not in (few_rows(found._replace(rows=6, stage="test")) or "")
    learned = found._replace(rows=6, prompt=make_record(step=8))
    written = found._replace(rows=6, prompt=make_record(step=0))
    told = ["They also chose the prompt" in (few_rows(each) or "") for each in (learned, written)]
    assert told == [True, False]
    assert few_rows(Evaluation(found.prompt, {"bleu": 1.0}, {}, "val", rows=6)) is None


def test_how_the_text_reads_is_told_where_it_was_measured():
    assert table.how_it_reads({"natural_percentile": 48.8, "grammar": 31 / 32}) == (
        "As a text it is likelier than 49 % of natural texts of its length (natural_percentile), "
        "and than 97 % of shuffles of its own tokens (grammar)."
    )
    only = table.how_it_reads({"grammar": 0.5, "natural_percentile": None})
    assert only == "As a text it is likelier than 50 % of shuffles of its own tokens (grammar)."
    assert table.how_it_reads({"accuracy": 0.5}) == ""


def test_the_most_frequent_label_is_a_bar_too():
    """BoolQ: most answers are yes, so a calibrated empty prompt is the lower of the two."""
    rare = {
        **BASELINES,
        "majority": {"accuracy": 0.645},
        "no prompt, calibrated": {"accuracy": 0.53},
    }
    got = evaluation("tokens", accuracy=0.595, round_trip_accuracy=0.595)._replace(baselines=rare)
    assert "does not beat the most frequent label" in advice(got)
    assert "(0.595 against 0.645)" in advice(got)


def test_convergence():
    assert convergence([[100, 0.7], [200, 0.6], [300, 0.5]]) == (
        "Not converged: still improving at step 300; raise --trainer.max_steps."
    )
    assert convergence([[100, 0.7], [200, 0.6], [300, 0.597]]) is None  # by half a percent
    assert convergence([[100, 0.5], [200, 0.7], [300, 0.6]]) is None  # the best was earlier
    assert convergence([[100, 0.6], [200, 0.7]], mode="max") is not None
    assert convergence([[100, 0.7], [200, 0.6]], mode="max") is None
    assert "not known" in str(convergence([[1, 0.7]]))


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("terminal", [True, False])
def test_the_table_fits(width: int, terminal: bool, monkeypatch, capsys, tmp_path):
    console = Console(width=width, force_terminal=terminal, color_system=None, highlight=False)
    monkeypatch.setattr(table, "console", console)
    text = "[red] a\x1b[31m\nb `c` " + "x" * 100
    (tmp_path / "prompt.json").touch()
    found = evaluation(
        "tokens",
        text=text,
        iterate=True,
        accuracy=0.653,
        macro_f1=0.64,
        loss=0.6,
        perplexity=23456.0,
        round_trip_accuracy=0.65,
        soft_accuracy=0.87,
        soft_loss=0.31,
    )
    table.show(found, "sst2", "SmolLM2-135M-Instruct", tmp_path, ["Note."])
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert all(len(line) <= width for line in lines if not line.startswith("Files:"))
    assert "sst2, validation, 872 rows (3 cut to fit), SmolLM2-135M-Instruct" in out
    rows = {line[:30].strip(): line[30:].split() for line in lines if line.startswith("  ")}
    assert rows["majority"] == ["0.500", "0.333", NONE, NONE]
    assert rows["no prompt, calibrated"] == ["0.688", "0.680", "0.620", NONE]
    assert rows["SoftPrompt (2 tokens)"] == ["0.653", "0.640", "0.600", "2.3e4"]
    assert rows["its continuous iterate"] == ["0.870", NONE, "0.310", NONE]
    assert "agree by construction" in out
    # Quoted as Python does it: no markup, control character or line break of the prompt acts.
    assert repr(text) in "".join(lines)
    assert "\x1b" not in out
    assert f"Files: {tmp_path} (prompt.json)" in lines


def test_a_mistake_is_one_line(capsys):
    fail("a " * 200 + "\nb [bold]")
    assert capsys.readouterr().err == "a " * 200 + "b [bold]\n"


def test_a_title_is_no_markup(capsys: pytest.CaptureFixture[str]):
    Console(width=80).print(table.table([], "tickets[/v2] [bold]"))
    assert "tickets[/v2] [bold]" in capsys.readouterr().out
