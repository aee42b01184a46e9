"""Whatever sentence comes out of the numbers, it holds for the numbers that it prints."""

import math
import random
import re
from collections import Counter
from collections.abc import Iterator

import pytest

from lightning_prompts.cli.advice import advice, convergence, progress
from lightning_prompts.cli.evaluation import Evaluation
from lightning_prompts.cli.table import scored, title
from lightning_prompts.files.amounts import above, apart, count
from lightning_prompts.studies.demo import lesson
from tests.records import make_record

NUMBER = r"(\d+\.\d+)"


def values(sentence: str) -> list[float]:
    return [float(number) for number in re.findall(r"\d+\.\d+", sentence)]


def margin(first: float, second: float, rows: int | None) -> float:
    """One standard error of the less certain of two printed shares, worked out anew."""
    return max(math.sqrt(p * (1 - p) / rows) if rows else 0.0 for p in (first, second))


def near(draw: random.Random, rows: int | None, about: float) -> float:
    """A share of so many rows: the same, a hair away, a few rows away, or any."""
    step, error = 1 / (rows or 1000), 0.5 / math.sqrt(rows or 1000)
    offs = [0.0, 1e-9, 4e-4, step, 0.5 * error, 1.2 * error, draw.gauss(0, 0.1)]
    off = draw.choice([1, -1]) * draw.choice(offs)
    return min(1.0, max(0.0, draw.choice([about + off, draw.random(), 0.0, 1.0, about])))


def evaluations(draw: random.Random, number: int) -> Iterator[Evaluation]:
    """Of vectors and of tokens, with all that may be missing."""
    for _ in range(number):
        rows = draw.choice([None, 1, 8, 40, 872, 100_000])
        accuracy = near(draw, rows, draw.choice([0.6, 0.9, 1.0, draw.random()]))
        names = ("hard_accuracy", "round_trip_accuracy")
        metrics = {name: near(draw, rows, accuracy) for name in names if draw.random() < 0.8}
        bars = {name: {"accuracy": near(draw, rows, accuracy - 0.1)} for name in ("no prompt",)}
        for name in ("majority", "no prompt, calibrated"):
            below = draw.choice([0, 0.6 / math.sqrt(rows or 1000), 0.1, 0.3])
            bar = draw.choice([near(draw, rows, accuracy - below), max(0.0, accuracy - below)])
            if draw.random() < 0.8:
                bars[name] = {"accuracy": bar}
        in_use = draw.choice(["vectors", "tokens"])
        prompt = make_record(in_use=in_use, text=" a")
        saved = draw.random() < 0.5
        yield Evaluation(
            prompt, {"accuracy": accuracy, **metrics}, bars, "val", rows=rows, saved=saved
        )


def check_advice(found: Evaluation) -> str:
    """Hold a sentence against the numbers that stand in it; return its kind."""
    said, rows = advice(found), found.rows

    def is_above(first: float, second: float) -> bool:
        return first - second > margin(first, second, rows)

    metrics = {name: float(f"{value:.3f}") for name, value in found.metrics.items()}
    bars = [
        float(f"{found.baselines[name]['accuracy']:.3f}")
        for name in ("majority", "no prompt, calibrated")
        if name in found.baselines
    ]
    own, text = metrics["accuracy"], metrics.get("round_trip_accuracy")
    hard, given = metrics.get("hard_accuracy"), values(said)
    if said.startswith(("It does not beat", "Its text, tokenized anew, does not beat")):
        value, bar = given
        assert not is_above(value, bar), said
        assert value == (own if said.startswith("It does") else text), said
        assert bar in bars, said
        return said.partition(" by ")[0]
    assert all(is_above(own, bar) for bar in bars), said
    if said.startswith("Copy this text"):
        assert given[0] == text, said
        assert not is_above(own, given[0]), said
        assert all(is_above(given[0], bar) for bar in bars), said
        return "copy"
    if said.startswith("Its nearest tokens do not act like it"):
        assert given == [hard, own], said
        assert is_above(given[1], given[0]), said
        return "tokens"
    if "was not measured" in said:
        assert text is None, said
        assert given[0] == own, said
        return "unmeasured"
    assert given[:2] == [text, own], said
    assert is_above(given[1], given[0]), said
    if "though its nearest tokens do" in said:
        assert given[2] == hard, said
        assert not is_above(own, hard), said
        return "tokens, not text"
    assert ("ids in prompt.json" in said) == (found.saved and "keep the vectors" not in said), said
    return said.partition("(")[0]


def test_the_advice_holds_for_what_it_prints():
    kinds = Counter(check_advice(e) for e in evaluations(random.Random(0), 3000))
    # Every sentence there is came out, each many times.
    assert len(kinds) == 10, kinds
    assert min(kinds.values()) > 3, kinds


@pytest.mark.parametrize("in_use", ["vectors", "tokens"])
def test_equal_numbers_are_no_difference(in_use: str):
    """The text's accuracy was tested, and the tokens' was printed: 0.600 against 0.600."""
    prompt = make_record(in_use=in_use, text=" a")
    metrics = {"accuracy": 0.6, "hard_accuracy": 0.6, "round_trip_accuracy": 0.45}
    said = advice(Evaluation(prompt, metrics, {}, "val", rows=40))
    assert "0.600 against 0.600" not in said
    assert "(0.450 tokenized anew against 0.600)" in said
    # Nor where they differ in what is not printed, and the error of 1.0 is 0.
    metrics = {"accuracy": 1.0, "hard_accuracy": 0.9996, "round_trip_accuracy": 0.9996}
    assert advice(Evaluation(prompt, metrics, {}, "val", rows=10**6)).startswith("Copy this text")


def test_the_advice_on_rewrites_holds_for_what_it_prints():
    draw = random.Random(0)
    kinds = Counter()
    for _ in range(400):
        joint = draw.uniform(30, 31)
        metrics, bars = {"joint": joint}, {"no prompt": {"joint": joint + draw.gauss(0, 0.1)}}
        prompt = make_record(in_use="tokens", tuner="RLPrompt")
        made = Evaluation(prompt, metrics, bars, "test", columns={"joint": "joint"})
        said = advice(made)
        own, empty = values(said)
        assert said.startswith("It rewrites better") == (own > empty), said
        kinds[said[:12]] += 1
    assert len(kinds) == 2
    for stage in ("val", "test"):  # no judge is asked where none is named
        alone = made._replace(metrics={}, stage=stage, judged=False)
        assert "set --model.reward.judge" in advice(alone)


def test_the_lesson_of_the_demo_holds_for_what_it_prints():
    draw = random.Random(0)
    kinds = Counter()
    for _ in range(1000):
        rows = draw.choice([1, 40, 872])
        vectors = near(draw, rows, 0.8)
        soft = {"accuracy": vectors, "hard_accuracy": near(draw, rows, vectors)}
        if draw.random() < 0.1:
            del soft["hard_accuracy"]
        bars = {"no prompt, calibrated": {"accuracy": near(draw, rows, vectors - 0.2)}}
        bars = bars if draw.random() < 0.9 else {}
        found = {
            name: Evaluation(make_record(), metrics, bars, "val", rows=rows)
            for name, metrics in {
                "manual": {"accuracy": 0.5},
                "soft": soft,
                "pez": {"accuracy": 0.4},
            }.items()
        }
        said = lesson(found)
        reached = {"the written text": 0.5, "the vectors": vectors, "PEZ's tokens": 0.4}
        if not bars:
            assert len(said) == 1
            assert values(said[0]) == [float(f"{each:.3f}") for each in reached.values()]
            kinds["no bar"] += 1
            continue
        bar, *_ = values(said[0])
        better = set()
        for name, accuracy in reached.items():
            own = float(f"{accuracy:.3f}")
            if own - bar > margin(own, bar, rows):
                better.add(name)
            assert (f"{name} ({own:.3f})" in said[0]) == (name in better), said
            assert (f"{name} ({own:.3f})" in " ".join(said[1:])) == (name not in better), said
        last = said[-1] if "hard_accuracy" in soft else ""
        if last:
            (tokens,), own = values(last), float(f"{vectors:.3f}")
            if "shows once" in last:
                assert "the vectors" not in better
            else:
                apart = own - tokens > margin(own, tokens, rows)
                assert ("do not act like them" in last) == apart, said
        else:
            assert "nearest tokens" not in " ".join(said)
        kinds[re.sub(r"[\d.]+", "N", last)] += 1
    assert len(kinds) == 5


def test_what_is_said_of_convergence_holds():
    draw = random.Random(0)
    kinds = Counter()
    for _ in range(1000):
        values_ = [draw.choice([0.7, 0.69, 0.695, 0.6, draw.random()]) for _ in range(3)]
        history = [[(i + 1) * 1_234_567.0, v] for i, v in enumerate(values_[: draw.randint(0, 3)])]
        mode = draw.choice(["min", "max"])
        said = progress(history, mode, draw.choice([None, "--trainer.max_epochs"]))
        sign = 1 if mode == "min" else -1
        costs = [sign * value for _, value in history]
        steps = [int(number) for number in re.findall(r"step (\d+)", said)]
        if said.startswith("Not converged"):
            assert costs[-1] < min(costs[:-1])
            assert costs[-2] - costs[-1] > 0.01 * abs(costs[-2])
            assert steps == [history[-1][0]]
        elif said.startswith("The last validation was the best, by 1 % or less"):
            assert costs[-1] < min(costs[:-1])
            assert costs[-2] - costs[-1] <= 0.01 * abs(costs[-2])
        elif said.startswith("No longer improving"):
            assert min(costs) in costs[:-1]
            assert steps == [history[costs.index(min(costs))][0]]
        else:
            assert len(history) < 2
        kinds[re.sub(r"\d+", "N", said)] += 1
    assert len(kinds) == 6


def test_the_option_to_raise_is_the_one_that_ended_the_run():
    falling = [[1, 0.7], [2, 0.5]]
    assert str(convergence(falling, limit="--trainer.max_epochs")).endswith("--trainer.max_epochs.")
    assert "raise" not in str(convergence(falling, limit=None))


@pytest.mark.parametrize(
    ("rows", "of_rows", "said"),
    [
        (1, 1, "1 row"),
        (1, None, "1 row"),
        (1200, 1200, "1,200 rows"),
        (1, 40, "the longest of 40 rows"),
        (8, 40, "the longest 8 of 40 rows"),
    ],
)
def test_counts_have_their_nouns(rows: int, of_rows: int | None, said: str):
    assert scored(rows, of_rows) == said
    made = Evaluation(make_record(), {}, {}, "val", rows=rows, of_rows=of_rows, cut=1)
    assert title(made, "sst2", "tiny") == f"sst2, validation, {said} (1 cut to fit), tiny"


def test_values_that_differ_are_printed_so():
    draw = random.Random(0)
    for _ in range(1000):
        first = draw.choice([draw.random(), draw.gauss(0, 1e6)])
        second = draw.choice([first, first * (1 + 10 ** -draw.uniform(1, 15)), draw.random()])
        shown = apart(first, second)
        assert (shown[0] == shown[1]) == (first == second)
        # What is printed stands in the same order.
        assert (float(shown[0]) < float(shown[1])) == (first < second)
    assert count(0, "step") == "0 steps"
    assert count(1, "match", "matches") == "1 match"
    assert not above(0.6, 0.6, None)
    assert above(0.6, 0.599, None)
