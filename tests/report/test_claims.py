"""Whatever a report says of random runs holds for the numbers that it prints."""

import random
import re
from collections import Counter
from collections.abc import Callable, Sequence

from lightning_prompts.report.comparison import Comparison, compare
from lightning_prompts.report.figures.faithfulness import gap
from lightning_prompts.report.figures.looks import left_out
from lightning_prompts.report.findings import findings, warnings
from lightning_prompts.report.load import Material
from lightning_prompts.report.page import prompts
from lightning_prompts.report.paired import pairs
from lightning_prompts.report.tables import differences, failures, results, signed
from lightning_prompts.runs.record import RunRecord

Run = Callable[..., RunRecord]
SHARE = re.compile(r"\d\.\d{3}")
FREE = ("majority", "no prompt", "no prompt, calibrated")


def drawn_runs(draw: random.Random, run: Run) -> list[RunRecord]:
    """Settings of several tuners with one to four seeds, many of them alike to three digits."""
    found = []
    for tuner in draw.sample(["SoftPrompt", "PEZ", "ManualPrompt", "GuidedSearch"], 3):
        for weight in (0.0, 0.5)[: draw.randint(1, 2)]:
            about = draw.choice([0.7, 0.7004, 0.8, draw.random()])
            for seed in range(draw.randint(1, 4)):
                accuracy = min(1.0, about + draw.choice([0.0, 0.0, 4e-4, 0.02 * seed]))
                made = run(tuner, weight, seed, accuracy)
                made.metrics["test/perplexity"] = draw.choice([100.0, 200.0, 10 ** draw.random()])
                if draw.random() < 0.2:
                    made.metrics.pop("test/hard_accuracy")
                bar = min(1.0, about + draw.choice([-0.2, -1e-4, 0.0, 0.1]))
                made.test_baselines = {"majority": {"accuracy": bar}, "a text": {"accuracy": 0.99}}
                found.append(made)
    return found


def check(said: str, comparison: Comparison) -> str:
    """Hold one sentence of the findings against numbers worked out from the records."""
    means: dict[str, float] = {}
    for setting in comparison.settings:
        own = [r.metrics["test/accuracy"] for r in setting.records]
        means[setting.label] = sum(own) / len(own)
    if said.startswith("Highest"):
        label = next(name for name in sorted(means, key=len)[::-1] if said[23:].startswith(name))
        top = SHARE.findall(said)[0]
        assert f"{max(means.values()):.3f}" == top == f"{means[label]:.3f}", said
        _, found, equal = said.rstrip(".").partition("; as high: ")
        alike = {name for name, mean in means.items() if f"{mean:.3f}" == top} - {label}
        assert set(equal.split("; ") if found else ()) == alike, said
        return "highest" + found
    if said.startswith("Faithfulness"):
        setting = next(s for s in comparison.settings if f"vectors of {s.label} reach" in said)
        both = [
            (r.metrics["test/accuracy"], r.metrics["test/hard_accuracy"])
            for r in setting.records
            if "test/hard_accuracy" in r.metrics
        ]
        shown = [f"{sum(values) / len(both):.3f}" for values in zip(*both, strict=True)]
        assert SHARE.findall(said) == shown, said
        return "faithfulness"
    if said.startswith("Beaten by no other mean"):
        perplexity = {s.label: s.perplexity("test").mean for s in comparison.settings}
        on_front = {name for name in means if f"{name} (" in said}
        for name in on_front:
            beaten = [
                other
                for other in means
                if perplexity[other] < perplexity[name] and means[other] > means[name]
            ]
            assert not beaten, said
        return "front"
    assert said.startswith("Not clearly above the best baseline without a prompt (majority: "), said
    bar = max(
        r.test_baselines["majority"]["accuracy"] for s in comparison.settings for r in s.records
    )
    listed = said.partition("): ")[2].rstrip(".").split("; ")
    assert SHARE.findall(said)[0] == f"{bar:.3f}", said
    below = {name for name, mean in means.items() if mean <= bar}
    assert below <= set(listed) <= set(means), said
    return "not above"


def test_findings_hold_for_what_they_print(run: Run):
    draw, kinds = random.Random(0), Counter()
    for _ in range(150):
        (comparison,), _ = compare(drawn_runs(draw, run))
        (problem,) = comparison.problems
        kinds.update(check(said, comparison) for said in findings(comparison, problem))
    expected = {"highest", "highest; as high: ", "faithfulness", "front", "not above"}
    assert kinds.keys() == expected
    assert min(kinds.values()) > 5


def limits_of(records: Sequence[RunRecord], **outcomes: int) -> str:
    comparisons, repeated = compare(records)
    return " ".join(warnings(Material(records=list(records)), comparisons, repeated))


def test_one_is_not_many(run: Run):
    runs = [run("PEZ", seed=seed) for seed in (0, 1, 2)]
    bare = run("PEZ", seed=3)
    bare.metrics = {}
    again = run("PEZ", seed=2, name="runs/later")
    said = limits_of([*runs, bare, again])
    assert "1 run without a test score left out: " in said
    assert "1 run left out, with the settings and the seed of another one: " in said
    assert "1 runs" not in said
    assert left_out(1) == " One setting is left out, the lowest of its tuner."


def test_what_chose_nothing_scores_fairly(run: Run):
    """A prompt that was validated once was not chosen by these rows."""

    def validated(count: int) -> RunRecord:
        made = run("ManualPrompt")
        made.metrics = {k: v for k, v in made.metrics.items() if k.startswith("val/")}
        made.history = made.history[:count]
        return made

    chose = "the validation rows that chose each prompt also score it"
    assert chose not in limits_of([validated(1)])
    said = limits_of([validated(2)])
    assert chose in said
    # Nothing follows the command, which can be copied to its end.
    assert "lightning-prompts test --config RUN/config.yaml --ckpt_path best " in f"{said} "


def test_rows_are_those_of_all_runs(run: Run):
    """The first seed's alone were named: different numbers, 100."""
    runs = [run("PEZ", seed=0), run("PEZ", seed=1)]
    runs[1].rows = {"validation": 50, "test": 40}
    assert "different numbers of rows, 40 or 100 test rows." in limits_of(runs)
    one = run("PEZ", rows={"validation": 1, "test": 1})
    assert compare([one])[0][0].rows == "1 test row"


def test_seeds_that_are_few_are_counted(run: Run):
    two = [run(tuner, seed=seed) for tuner in ("PEZ", "SoftPrompt") for seed in (0, 1)]
    assert "all settings have fewer than 3 seeds" in limits_of(two)
    assert "some settings have fewer than 3 seeds" in limits_of([*two, run("PEZ", seed=2)])
    assert "one seed a setting" in limits_of([two[0], two[2]])


def test_a_difference_of_nothing_has_no_sign(run: Run):
    assert [signed(v, 1) for v in (-1e-4, 1e-4, 0.0, -0.1)] == ["0.000"] * 3 + [
        "\N{MINUS SIGN}0.100"
    ]
    made = run("SoftPrompt", accuracy=0.5)
    made.metrics["test/hard_accuracy"] = 0.5 - 1e-4
    ((comparison,), _) = compare([made])
    assert gap(comparison.settings[0], comparison) == "0.000"


def test_notes_speak_of_what_is_there(run: Run):
    def of(records: Sequence[RunRecord]) -> Comparison:
        return compare(records)[0][0]

    tokens = of([run("PEZ", rows={}), run("GuidedSearch", rows={})])
    assert "In brackets" not in results(tokens, tokens.problems[0]).note
    assert "cosine distance" not in "".join(prompts(tokens))
    vectors = of([run("SoftPrompt")])
    assert "In brackets" in results(vectors, vectors.problems[0]).note
    assert "cosine distance" in "".join(prompts(vectors))
    many = of([run("PEZ", seed=seed, accuracy=0.7 + 0.1 * (seed % 2)) for seed in range(5)] * 1)
    both = of(
        [r for s in many.settings for r in s.records]
        + [run("SoftPrompt", seed=s) for s in range(5)]
    )
    ((row,), _) = (differences(pairs(both, both.problems[0]), both).rows, None)
    assert row[6].count(" : ") == 3
    assert row[6].endswith(" and 2 more seeds")
    assert failures([]).note == ""


def test_equal_texts_of_other_vectors_keep_their_numbers(run: Run):
    """Two seeds near the same tokens reach different accuracies."""
    seeds = [run("SoftPrompt", seed=seed, accuracy=0.7 + 0.1 * seed) for seed in (0, 1)]
    shown = "".join(prompts(compare(seeds)[0][0]))
    assert "test accuracy 0.700" in shown
    assert "test accuracy 0.800" in shown
