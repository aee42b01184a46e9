"""Ways to read a prompt, where some rows cannot be read in one of them."""

import math
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from lightning_prompts.metrics.panel.answered import AnsweredRows
from lightning_prompts.studies.inspect_ways import most_different, ways

NAN = math.nan
LABELS = torch.tensor([0, 1, 1, 0])
ROWS: Any = SimpleNamespace(
    labels=LABELS,
    batches=[{"rows": torch.tensor([4, 2])}, {"rows": torch.tensor([0, 7])}],
    texts=list("abcd"),
    verbalizer=SimpleNamespace(labels=("no", "yes")),
)


def log(shares: list[list[float]]) -> torch.Tensor:
    return torch.tensor(shares, dtype=torch.float64).log()


@pytest.mark.parametrize("readable", [True, False])
def test_rows_that_cannot_be_read(readable: bool):
    rows = cast(AnsweredRows, ROWS)
    own = log([[0.9, 0.1], [0.3, 0.7], [0.4, 0.6], [0.2, 0.8]])
    text = log([[0.9, 0.1], [NAN, NAN], [0.7, 0.3], [0.2, 0.8]])
    # By the only row that is readable a row is a "yes" above 0.25.
    others = log([[NAN, NAN], [0.75, 0.25] if readable else [NAN, NAN]])
    scored = {"tokens": (own, log([[0.5, 0.5]])), "pasted text": (text, others)}
    first, second = ways(rows, scored)
    assert (first.accuracy, first.recalibrated, first.shares) == (0.75, 0.75, [0.25, 0.75])
    assert (second.accuracy, second.shares, second.differs) == (0.25, [0.5, 0.25], 2)
    assert second.recalibrated == (0.5 if readable else 0.0)
    assert [(row.number, row.text, row.difference) for row in most_different(rows, scored)] == [
        (3, "b", 1.0),
        (1, "c", pytest.approx(0.3)),
    ]
    assert most_different(rows, scored)[0].answers["pasted text"] is None
