"""Areas against all pairs by hand, the bootstrap against a loop, the rule, and ranks."""

import random
from statistics import fmean

import pytest
import torch

from lightning_prompts.files.drawing import DRAWS
from lightning_prompts.report.separation import (
    BAR,
    Separation,
    failed,
    ranks,
    separation,
    spearman,
    spearman_interval,
)
from lightning_prompts.report.validity_readings import GROUPS, NEEDED, OTHER, SHUFFLED

dice = random.Random(0)
WRITTEN = [dice.randint(3, 12) / 2 for _ in range(9)]
# Three of each written text, in no order, with ties.
CLUSTERS = dice.sample([i for i in range(9) for _ in range(3)], 27)
OTHERS = [dice.randint(0, 10) / 2 for _ in range(27)]


def area(written: list[float], others: list[float]) -> float:
    return fmean(1.0 if a > b else 0.5 if a == b else 0.0 for a in written for b in others)


def test_the_area_is_the_share_of_pairs():
    found = separation(WRITTEN, OTHERS, CLUSTERS)
    assert found.auc == pytest.approx(area(WRITTEN, OTHERS))
    assert (found.n, found.others) == (9, 27)
    assert separation(WRITTEN, OTHERS)[:1] == found[:1]
    assert separation([1.0, 1.0], [1.0]).auc == 0.5


@pytest.mark.parametrize("clustered", [True, False])
def test_the_bootstrap_draws_texts_with_what_was_made_of_them(clustered: bool, monkeypatch):
    monkeypatch.setattr("lightning_prompts.files.drawing.DRAWS", 200)
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(9, (200, 9), generator=generator).tolist()
    of_others = torch.randint(27, (200, 27), generator=generator).tolist()
    areas = []
    for texts, others in zip(drawn, of_others, strict=True):
        made = [OTHERS[j] for i in texts for j in range(27) if CLUSTERS[j] == i]
        compared = made if clustered else [OTHERS[j] for j in others]
        areas.append(area([WRITTEN[i] for i in texts], compared))
    ends = torch.tensor(areas).double().quantile(torch.tensor([0.025, 0.975]).double()).tolist()
    found = separation(WRITTEN, OTHERS, CLUSTERS if clustered else None)
    assert [found.low, found.high] == pytest.approx(ends)
    assert found.low < found.auc < found.high


def test_the_draws_are_the_same_again():
    assert DRAWS == 2000
    assert separation(WRITTEN, OTHERS, CLUSTERS) == separation(WRITTEN, OTHERS, CLUSTERS)


def test_groups_that_do_not_overlap_have_no_interval():
    assert separation([3.0, 4.0], [1.0, 2.0], [0, 1]) == (1.0, 1.0, 1.0, 2, 2)
    assert separation([1.0], [2.0]) == (0.0, 0.0, 0.0, 1, 1)


def test_nothing_to_compare():
    with pytest.raises(ValueError, match="one text at least"):
        separation([], [1.0])


def test_the_rule():
    assert BAR == 0.75
    assert NEEDED == ("shuffled", "first ids", "all ids", "other task")
    good, bad = Separation(0.9, 0.7501, 1, 9, 9), Separation(0.99, 0.75, 1, 9, 9)
    assert failed(dict.fromkeys(GROUPS, good), NEEDED) == []
    assert failed({**dict.fromkeys(GROUPS, bad), SHUFFLED: good}, NEEDED) == list(NEEDED[1:])
    assert failed({**dict.fromkeys(GROUPS, good), OTHER: bad}, NEEDED) == [OTHER]
    assert failed(dict.fromkeys(GROUPS[:3], good), NEEDED) == []  # does not ask for the task
    beside = dict.fromkeys(GROUPS[4:], bad)
    assert failed({**dict.fromkeys(NEEDED, good), **beside}, NEEDED) == []


def test_rank_correlation():
    first, second = [1.0, 2.0, 2.0, 9.0, -4.0], [3.0, 1.0, 4.0, 4.0, 4.0]
    assert ranks(first).tolist() == [2, 3.5, 3.5, 5, 1]
    both = torch.stack([ranks(first), ranks(second)])
    assert spearman(first, second) == pytest.approx(float(torch.corrcoef(both)[0, 1]))
    assert spearman(first, [x**3 for x in first]) == pytest.approx(1)
    assert spearman(first, [-x for x in first]) == pytest.approx(-1)
    assert spearman(first, [2.0] * 5) is None


def test_the_interval_of_a_rank_correlation_ranks_each_draw_anew(monkeypatch):
    monkeypatch.setattr("lightning_prompts.files.drawing.DRAWS", 300)
    first, second = [1.0, 2.0, 2.0, 9.0, -4.0, 7.0], [3.0, 1.0, 4.0, 5.0, -4.0, 4.5]
    generator = torch.Generator().manual_seed(0)
    found = [
        spearman([first[i] for i in draw], [second[i] for i in draw])
        for draw in torch.randint(6, (300, 6), generator=generator).tolist()
    ]
    known = torch.tensor([value for value in found if value is not None], dtype=torch.float64)
    ends = known.quantile(torch.tensor([0.025, 0.975]).double()).tolist()
    assert len(known) > 290
    assert spearman_interval(first, second) == pytest.approx(ends)
    assert spearman_interval(first, [2.0] * 6) is None
