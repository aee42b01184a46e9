"""Kappas and KL on draws of rows, one draw at a time; which difference is of which prompts."""

from statistics import fmean, median

import pytest
import torch
from torch import Tensor

from lightning_prompts.files import drawing
from lightning_prompts.report.alike import (
    Alike,
    Drawn,
    differences,
    resampled,
    sentences,
    tables,
)

DRAWS = 30


def shares(rows: int, classes: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, classes, generator=generator).double().log_softmax(-1)


def kappa(one: list[int], other: list[int]) -> float:
    n = len(one)
    agreed = sum(a == b for a, b in zip(one, other, strict=True)) / n
    chance = sum(one.count(c) / n * other.count(c) / n for c in {*one, *other})
    return 0.0 if chance > 1 - 1e-9 else (agreed - chance) / (1 - chance)


def answers(scores: Tensor, unlabelled: Tensor | None) -> list[int]:
    rows = scores.tolist()
    if unlabelled is None:
        lean = [0.0] * len(rows[0])
    elif len(rows[0]) == 2:
        lean = [0.0, median(b - a for a, b in unlabelled.tolist())]
    else:
        lean = [fmean(column) for column in zip(*unlabelled.tolist(), strict=True)]
    found = [[x - m for x, m in zip(row, lean, strict=True)] for row in rows]
    return [row.index(max(row)) for row in found]


def at(values: list[float], part: float) -> float:
    """A percentile, between neighbours in proportion."""
    ordered, place = sorted(values), part * (len(values) - 1)
    low = ordered[int(place)]
    return low + (place - int(place)) * (ordered[min(int(place) + 1, len(values) - 1)] - low)


@pytest.mark.parametrize("classes", [2, 3])
def test_a_draw_of_rows_at_a_time(classes: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(drawing, "DRAWS", DRAWS)
    n = 7
    ours, unlabelled = shares(n, classes, 0), shares(9, classes, 1)
    theirs = (ours + shares(n, classes, 2)).log_softmax(-1)
    found, intervals = resampled((ours, unlabelled), (theirs, unlabelled.flip(1)))
    sides = {
        "kappa": (answers(ours, None), answers(theirs, None)),
        "kappa_recalibrated": (answers(ours, unlabelled), answers(theirs, unlabelled.flip(1))),
    }
    drawn = torch.randint(n, (DRAWS, n), generator=torch.Generator().manual_seed(0)).tolist()
    for name, (one, other) in sides.items():
        by_hand = [kappa([one[i] for i in rows], [other[i] for i in rows]) for rows in drawn]
        assert found[name].tolist() == pytest.approx(by_hand, abs=1e-12)
        assert intervals[name] == pytest.approx((at(by_hand, 0.025), at(by_hand, 0.975)))
        assert len({*by_hand}) > 3
    row = [
        sum(p * (a - b) for p, a, b in zip(w.exp().tolist(), w.tolist(), f.tolist(), strict=True))
        for w, f in zip(ours, theirs, strict=True)
    ]
    by_hand = [fmean(row[i] for i in rows) for rows in drawn]
    assert found["kl"].tolist() == pytest.approx(by_hand, abs=1e-12)
    assert intervals["kl"] == pytest.approx((at(by_hand, 0.025), at(by_hand, 0.975)))


def test_a_run_less_nearest_tokens_and_less_the_best_of_each_measure():
    def drawn(text: str, kappa: float, kl: float, kind: str, name: str = "") -> Drawn:
        known = {"kappa": (0.0, 1.0), "kappa_recalibrated": (0.0, 1.0), "kl": (0.1, 0.2)}
        prompt = Alike(text, kappa, kappa, kl, 0.5, 0.5, kind, name, known)
        spread = torch.linspace(-0.1, 0.1, 41, dtype=torch.float64) * (1 + len(text))
        values = {"kappa": kappa, "kappa_recalibrated": kappa, "kl": kl}
        return Drawn(prompt, {measure: value + spread for measure, value in values.items()})

    found = [
        drawn("ab", 0.6, 0.30, "run", "logs/twin"),
        drawn("c", 0.5, 0.40, "written"),
        drawn("d", 0.2, 0.10, "written"),
        drawn("e", 0.1, 0.50, "nearest tokens"),
    ]
    differ = differences(found)
    pairs = {(d.second, d.measure): d for d in differ}
    assert [*pairs] == [
        *(("e", measure) for measure in ("kappa", "kappa_recalibrated", "kl")),
        ("c", "kappa"),
        ("c", "kappa_recalibrated"),
        ("d", "kl"),  # by KL another one is the best
    ]
    assert pairs["e", "kappa"].value == pytest.approx(0.5)
    assert pairs["d", "kl"].value == pytest.approx(0.2)
    # Both spread together: what is left is that of one more character.
    ends = (pairs["d", "kl"].low, pairs["d", "kl"].high)
    assert ends == pytest.approx((0.2 - 0.095, 0.2 + 0.095))
    assert differences(found[1:]) == []

    said = list(sentences([each.prompt for each in found], differ))
    assert "that acts most alike is 'c'" in said[0]
    assert any("logs/twin is nearer to the prompt than the prompt's nearest" in s for s in said)
    assert any("logs/twin is no nearer to the prompt than the written 'd'" in s for s in said)
    titles = [table.title for table in tables([each.prompt for each in found], differ, 28)]
    assert titles[-1] == "Differences on the same rows"
    for table in tables([each.prompt for each in found], differ, 28):
        assert all(len(row) == len(table.heads) for row in table.rows)
