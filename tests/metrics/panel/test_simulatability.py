"""What a reader predicts, against whole rows in float64; kappa against counts."""

import random
from dataclasses import replace
from statistics import median

import pytest
import torch

from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.lm.verbalizer import Verbalizer
from lightning_prompts.metrics.panel.answered import AnsweredRows
from lightning_prompts.metrics.panel.likelihood import Unmeasured
from lightning_prompts.metrics.panel.simulatability import kappa, predictions, simulatability

from .conftest import Exact

ANSWERS = [" terrible", " great"]
JOB = " It answers with one of these words: terrible, great. Which word does it answer?\nText:"
HEADS = {
    "shown": 'A language model is given the prompt "{}" and a text.' + JOB,
    "not_shown": "A language model is given a text." + JOB,
}


def kappa_by_counts(one: list[int], other: list[int]) -> float:
    n = len(one)
    agreed = sum(a == b for a, b in zip(one, other, strict=True)) / n
    chance = sum(one.count(c) / n * other.count(c) / n for c in set(one) | set(other))
    return 0.0 if chance == 1 else (agreed - chance) / (1 - chance)


def differences(exact: Exact, head: str, texts: list[str]) -> list[float]:
    rows = [exact.ids(f"{head} {text}\nAnswer:") for text in texts]
    found = [exact.log_shares(row, ANSWERS).tolist() for row in rows]
    return [b - a for a, b in found]


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> FrozenLM:
    """A reader with other weights and room for a description of the job."""
    from tests.tiny import save_model

    folder = tmp_path_factory.mktemp("reader")
    save_model(folder, seed=2, positions=512)
    return FrozenLM(str(folder))


def test_kappa_with_and_without_the_prompt(answered: AnsweredRows, long: FrozenLM):
    exact, answers = Exact(long), answered.answers.tolist()
    text = " a film"
    expected = {}
    for name, head in HEADS.items():
        found = differences(exact, head.format(text), list(answered.texts))
        middle = median(differences(exact, head.format(text), list(answered.unlabelled_texts)))
        expected[name] = kappa_by_counts([int(d > middle) for d in found], answers)
        expected[f"{name}_raw"] = kappa_by_counts([int(d > 0) for d in found], answers)
    got = simulatability(long, long.encode(text), answered)
    for name, value in expected.items():
        assert getattr(got, name) == pytest.approx(value)
    assert got.simulatability == pytest.approx(expected["shown"] - expected["not_shown"])
    assert got.simulatability_kappa == got.shown
    assert got.rows == 8


def test_intervals_are_of_drawn_rows(answered: AnsweredRows, long: FrozenLM, monkeypatch):
    monkeypatch.setattr("lightning_prompts.files.drawing.DRAWS", 200)
    exact, answers = Exact(long), answered.answers.tolist()
    said = {}
    for name, head in HEADS.items():
        found = differences(exact, head.format(" a film"), list(answered.texts))
        others = differences(exact, head.format(" a film"), list(answered.unlabelled_texts))
        said[name] = [int(d > median(others)) for d in found]
    drawn = torch.randint(8, (200, 8), generator=torch.Generator().manual_seed(0)).tolist()
    kappas = [
        {
            name: kappa_by_counts([found[row] for row in rows], [answers[row] for row in rows])
            for name, found in said.items()
        }
        for rows in drawn
    ]
    values = {
        "simulatability": [each["shown"] - each["not_shown"] for each in kappas],
        "simulatability_kappa": [each["shown"] for each in kappas],
    }
    got = simulatability(long, long.encode(" a film"), answered)
    ends = torch.tensor([0.025, 0.975], dtype=torch.float64)
    assert set(got.intervals) == set(values)
    for name, interval in got.intervals.items():
        expected = torch.tensor(values[name], dtype=torch.float64).quantile(ends).tolist()
        assert list(interval) == pytest.approx(expected), name
        assert interval[0] < interval[1]


def test_a_reader_that_knows_the_answers_agrees(answered: AnsweredRows, long: FrozenLM):
    head = long.encode(HEADS["not_shown"])
    verbalizer = Verbalizer({"0": ANSWERS[0], "1": ANSWERS[1]}, long)
    known = predictions(long, verbalizer, head, answered.texts)
    unlabelled = predictions(long, verbalizer, head, answered.unlabelled_texts)
    middle = (unlabelled[:, 1] - unlabelled[:, 0]).median()
    answers = (known[:, 1] - known[:, 0] > middle).long()
    got = simulatability(long, long.encode(" a"), replace(answered, answers=answers))
    assert got.not_shown == 1


def test_long_texts_lose_their_end(long: FrozenLM):
    exact, head = Exact(long), long.encode("Text:")
    verbalizer = Verbalizer({"0": ANSWERS[0], "1": ANSWERS[1]}, long)
    text = "abcdefghij" * 80
    room = 512 - len(head) - len("\nAnswer:")
    row = exact.ids(f"Text: {text}")[: 512 - len("\nAnswer:")] + exact.ids("\nAnswer:")
    assert len(row) == len(head) + room + len("\nAnswer:")
    got = predictions(long, verbalizer, head, [text, "short", text])
    assert got[0].tolist() == pytest.approx(exact.log_shares(row, ANSWERS).tolist(), abs=1e-4)
    assert torch.equal(got[0], got[2])


def test_no_room_for_a_text(answered: AnsweredRows, short: FrozenLM):
    with pytest.raises(Unmeasured, match=r"leaves short.* no room for a text$"):
        simulatability(short, short.encode(" a"), answered)
    with pytest.raises(Unmeasured, match=r"no token$"):
        simulatability(short, [], answered)


def test_kappa():
    chance = random.Random(0)
    for _ in range(50):
        one, other = (chance.choices(range(3), k=9) for _ in range(2))
        assert kappa(torch.tensor(one), torch.tensor(other)) == pytest.approx(
            kappa_by_counts(one, other)
        )
    same = torch.zeros(4, dtype=torch.long)
    assert kappa(same, same) == 0  # nothing to predict
    assert kappa(same, same + 1) == 0
    assert kappa(torch.tensor([0, 1]), torch.tensor([0, 1])) == 1
    assert kappa(torch.tensor([0, 1]), torch.tensor([1, 0])) == -1
