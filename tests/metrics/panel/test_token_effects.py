"""Effects of tokens and order, against whole rows in float64; recalibration by hand."""

import math
from dataclasses import replace
from statistics import fmean, median

import pytest
import torch

from lightning_prompts.metrics.panel.answered import AnsweredRows, recalibrated
from lightning_prompts.metrics.panel.likelihood import shuffles
from lightning_prompts.metrics.panel.token_effects import Change, TokenEffects, token_effects

from .conftest import Exact

ANSWERS = [" terrible", " great"]


def shares(exact: Exact, prompt: list[int], texts: list[str]) -> list[list[float]]:
    """Log-probabilities of both answers for each text, whole rows."""
    rows = [[*prompt, *exact.ids(f" {text} It was")] for text in texts]
    return [exact.log_shares(row, ANSWERS).tolist() for row in rows]


def accuracy(rows: list[list[float]], threshold: float, labels: list[int]) -> float:
    return fmean(float(int(b - a > threshold) == y) for (a, b), y in zip(rows, labels, strict=True))


def by_hand(exact: Exact, rows: AnsweredRows, prompt: list[int]) -> tuple[float, float, float]:
    """KL from the whole prompt, accuracy, and accuracy above the median of other texts."""
    labels = rows.labels.tolist()
    whole = shares(exact, list(rows.prompt), list(rows.texts))
    found = shares(exact, prompt, list(rows.texts))
    others = shares(exact, prompt, list(rows.unlabelled_texts))
    threshold = median(b - a for a, b in others)
    kls = [
        sum(math.exp(p) * (p - q) for p, q in zip(one, other, strict=True))
        for one, other in zip(whole, found, strict=True)
    ]
    return fmean(kls), accuracy(found, 0, labels), accuracy(found, threshold, labels)


def check(got: Change, expected: tuple[float, float, float], before: TokenEffects) -> None:
    assert got.kl == pytest.approx(expected[0], abs=1e-5)
    assert got.accuracy == pytest.approx(expected[1] - before.accuracy)
    assert got.recalibrated == pytest.approx(expected[2] - before.recalibrated)


def test_each_token_and_the_order(answered: AnsweredRows, exact: Exact):
    ids = list(answered.prompt)
    got = token_effects(answered)
    whole = by_hand(exact, answered, ids)
    assert (got.accuracy, got.recalibrated) == (
        pytest.approx(whole[1]),
        pytest.approx(whole[2]),
    )
    assert [change.token for change in got.deletions] == list(" a film")
    for i, change in enumerate(got.deletions):
        assert list(change.ids) == ids[:i] + ids[i + 1 :]
        check(change, by_hand(exact, answered, list(change.ids)), got)
    assert [list(change.ids) for change in got.shuffles] == shuffles(ids, 4)
    for change in got.shuffles:
        assert change.token is None
        check(change, by_hand(exact, answered, list(change.ids)), got)
    kls = [change.kl for change in got.deletions]
    assert got.effect_of_tokens == max(kls) > 0.01
    assert got.effect_of_order == pytest.approx(fmean(c.kl for c in got.shuffles))
    assert got.filler == sum(kl < 0.01 for kl in kls) / len(kls)
    assert got.rows == 8


def test_intervals_are_of_drawn_rows(answered: AnsweredRows, exact: Exact, monkeypatch):
    monkeypatch.setattr("lightning_prompts.files.drawing.DRAWS", 200)
    got = token_effects(answered)
    whole = shares(exact, list(answered.prompt), list(answered.texts))
    kls = []
    for change in (*got.deletions, *got.shuffles):
        found = shares(exact, list(change.ids), list(answered.texts))
        kls.append(
            [
                sum(math.exp(p) * (p - q) for p, q in zip(one, other, strict=True))
                for one, other in zip(whole, found, strict=True)
            ]
        )
    drawn = torch.randint(8, (200, 8), generator=torch.Generator().manual_seed(0)).tolist()
    values: dict[str, list[float]] = {name: [] for name in got.intervals}
    for rows in drawn:
        means = [fmean(of[row] for row in rows) for of in kls]
        tokens, orders = means[: len(got.deletions)], means[len(got.deletions) :]
        values["effect_of_tokens"].append(max(tokens))
        values["effect_of_order"].append(fmean(orders))
        values["filler"].append(fmean(float(kl < 0.01) for kl in tokens))
    ends = torch.tensor([0.025, 0.975], dtype=torch.float64)
    for name, interval in got.intervals.items():
        expected = torch.tensor(values[name], dtype=torch.float64).quantile(ends).tolist()
        assert list(interval) == pytest.approx(expected, abs=1e-5), name
    low, high = got.intervals["effect_of_order"]
    assert low < got.effect_of_order < high


def test_one_token_is_compared_with_none(answered: AnsweredRows, exact: Exact):
    rows = replace(answered, prompt=answered.lm.encode("z"))
    got = token_effects(rows)
    (change,) = got.deletions
    assert change.ids == ()
    check(change, by_hand(exact, rows, []), got)
    assert got.effect_of_order == 0


def test_no_token_has_no_effect(answered: AnsweredRows):
    with pytest.raises(ValueError, match=r"^The prompt is empty"):
        token_effects(replace(answered, prompt=[]))


def test_small_effects_are_fillers():
    def change(kl: float) -> Change:
        return Change("a", (), kl, 0.0, 0.0)

    kls = (0.0, 0.0099, 0.01, 2.0)
    got = TokenEffects(tuple(map(change, kls)), (change(1.0), change(2.0)), 0.5, 0.5, rows=1)
    assert (got.effect_of_tokens, got.effect_of_order, got.filler) == (2.0, 1.5, 0.5)


def test_recalibration_of_two_classes_is_at_the_median():
    scores = torch.randn(6, 2, generator=torch.manual_seed(0)).double().log_softmax(-1)
    got = recalibrated(scores, scores)
    differences = (got[:, 1] - got[:, 0]).tolist()
    assert median(differences) == pytest.approx(0)
    assert sum(d > 0 for d in differences) == 3


def test_recalibration_of_several_classes_is_that_of_the_baseline():
    generator = torch.manual_seed(0)
    scores, others = torch.randn(2, 5, 3, generator=generator).double().log_softmax(-1)
    got = recalibrated(scores, others)
    for row in range(5):
        for c in range(3):
            mean = sum(others[i, c].item() for i in range(5)) / 5
            assert got[row, c].item() == pytest.approx(scores[row, c].item() - mean)
