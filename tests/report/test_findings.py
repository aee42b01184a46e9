"""The sentences of a report, each from numbers that a test chooses."""

from collections.abc import Callable, Sequence

import pytest

from lightning_prompts.report.comparison import compare
from lightning_prompts.report.findings import findings
from lightning_prompts.runs.record import RunRecord

Run = Callable[..., RunRecord]


def said_of(records: Sequence[RunRecord]) -> list[str]:
    (comparison,), _ = compare(records)
    (problem,) = comparison.problems
    return findings(comparison, problem)


def test_the_best_the_front_and_the_gap(runs: list[RunRecord]):
    said = said_of(runs)
    # Means of three seeds at 0.90, 0.92 and 0.94; half an interval is 4.303 * 0.02 / sqrt(3).
    best = "Highest test accuracy: SoftPrompt, 0.920 [0.870, 0.970] (95 % over 3 seeds)"
    assert said[0] == f"{best}, at perplexity 1,000."
    assert (
        "Faithfulness: the vectors of SoftPrompt reach 0.920, the tokens nearest to them 0.500."
        in said
    )


@pytest.mark.parametrize(
    ("baselines", "named"),
    [
        ({"majority": 0.61, "no prompt": 0.5, "no prompt, calibrated": 0.53}, "majority"),
        ({"majority": 0.5, "no prompt": 0.61, "no prompt, calibrated": 0.53}, "no prompt"),
        (
            {"majority": 0.5, "no prompt": 0.5, "no prompt, calibrated": 0.61},
            "no prompt, calibrated",
        ),
        # A written text is a prompt.
        ({"majority": 0.61, "Good or bad?": 0.99}, "majority"),
    ],
)
def test_prompts_are_held_against_the_best_answer_without_one(
    run: Run, baselines: dict[str, float], named: str
):
    given = {name: {"accuracy": value} for name, value in baselines.items()}
    records = [
        run(tuner, accuracy=accuracy, test_baselines=given)
        # Of 100 rows the interval of 0.7 begins below 0.61, that of 0.75 above it (Wilson).
        for tuner, accuracy in (("SoftPrompt", 0.75), ("PEZ", 0.7), ("GuidedSearch", 0.4))
    ]
    said = said_of(records)[-1]
    bar = f"Not clearly above the best baseline without a prompt ({named}: 0.610)"
    assert said == f"{bar}: GuidedSearch; PEZ."


def test_nothing_is_held_against_what_was_not_measured(run: Run):
    said = said_of([run("PEZ", accuracy=0.4, test_baselines={})])
    assert not any("Not clearly above" in sentence for sentence in said)
