"""The panel's values side by side: which are shown, with which intervals."""

from types import SimpleNamespace

from lightning_prompts.files.amounts import NONE
from lightning_prompts.metrics.panel.measures import LOGGED, OF_MORE
from lightning_prompts.report.comparison import compare
from lightning_prompts.report.panel import MEANINGS, OF_PANEL, correlations, shown, tables
from lightning_prompts.report.text import MINUS
from lightning_prompts.studies.measure import lines


def with_panel(run, text: str, accuracy: float, **values: float):
    metrics = {f"test/{name}": value for name, value in values.items()}
    settings = {"model.text": text}
    return run("ManualPrompt", 0.0, 0, accuracy, text=text, metrics=metrics, settings=settings)


def test_one_prompt_has_intervals_over_rows(run):
    of_rows = {"simulatability": 0.1, "simulatability_low": -0.02, "simulatability_high": 0.2}
    records = [
        with_panel(run, " It was", 0.9, grammar=0.75, filler=0.5, **of_rows),
        with_panel(run, " Bad", 0.7, grammar=0.25),
    ]
    (comparison,), _ = compare(records)
    (problem,) = comparison.problems
    likely, does = tables(comparison, problem)
    assert [row[1:] for row in likely.rows] == [["1,000", "0.75"], ["1,000", "0.25"]]
    assert likely.heads == ["setting", "perplexity", "grammar"]
    assert does.heads == ["setting", "filler", "simulatability"]
    found = [row[1:] for row in does.rows]
    assert found == [["0.5", "0.1 [-0.02, 0.2]"], [NONE, NONE]]
    assert MEANINGS["filler"] in does.note


def test_several_seeds_have_intervals_over_seeds(run):
    records = [
        run(
            "PEZ",
            seed=seed,
            metrics={"val/grammar": value, "val/filler": 0.5, "test/filler": value},
        )
        for seed, value in enumerate((0.4, 0.5, 0.6))
    ]
    (comparison,), _ = compare(records)
    likely, does = tables(comparison, comparison.problems[0])
    # The t interval of a standard error of 0.1 / sqrt(3), with two degrees of freedom.
    assert likely.rows[0][2] == does.rows[0][1] == "0.5 [0.252, 0.748]"


def test_without_a_panel_there_is_no_table(run):
    (comparison,), _ = compare([run()])
    assert list(tables(comparison, comparison.problems[0])) == []


def test_every_logged_value_has_a_meaning():
    assert {name for names in LOGGED.values() for name in names} | set(OF_MORE) <= set(OF_PANEL)


def test_a_measured_prompt_says_its_values():
    metrics = {"perplexity": 12.0, "grammar": 0.5, "filler": 0.25}
    metrics |= {"filler_low": 0.0, "filler_high": 0.5}
    evaluation = SimpleNamespace(metrics=metrics, vectors=False)
    assert list(lines(evaluation))[-1] == "Panel: grammar 0.5, filler 0.25 [0, 0.5]."
    evaluation.metrics = {"perplexity": 12.0}
    assert not any(line.startswith("Panel") for line in lines(evaluation))
    assert shown(metrics, "simulatability") == NONE


def test_which_measures_order_prompts_alike(run):
    values = [(0.9, 10.0, 0.75), (0.8, 20.0, 1.0), (0.7, 30.0, 0.5), (0.6, 40.0, 0.25)]
    records = [
        with_panel(run, f" Text {i}", accuracy, perplexity=perplexity, grammar=grammar, filler=0.5)
        for i, (accuracy, perplexity, grammar) in enumerate([*values, (0.5, 50.0, 0.0)])
    ]
    (comparison,), _ = compare(records)
    (problem,) = comparison.problems
    found = correlations(comparison, problem)
    assert found is not None
    assert found.heads == ["measure", "with perplexity", "with accuracy"]
    # Four ranks of five in order, the first two swapped: 1 - 6 * (1 + 1) / (5 * 24).
    by_name = {row[0]: row[1:] for row in found.rows}
    assert by_name["perplexity"] == [NONE, f"{MINUS}1.00 [{MINUS}1.00, {MINUS}1.00] (5)"]
    assert by_name["grammar"][0].startswith(f"{MINUS}0.90 [{MINUS}1.00, ")
    assert by_name["grammar"][1].startswith("0.90 [")
    assert "filler" not in by_name  # all equal
    (few,), _ = compare(records[1:])
    assert correlations(few, few.problems[0]) is None
