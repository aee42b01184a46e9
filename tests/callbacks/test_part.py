"""The part of the rows that costly measures take before the last validation."""

from collections import Counter

import pytest
import torch

from lightning_prompts.callbacks.faithfulness import Faithfulness
from lightning_prompts.callbacks.part import Part
from lightning_prompts.lm.batch import Batch, Example, collate, joined_batch
from lightning_prompts.tuners import SoftPrompt

from .conftest import MakeTask, learned, validated


def batch_of(labels: list[int], first: int) -> Batch:
    rows = range(first, first + len(labels))
    examples = [Example(f"t{i}", "", [1] * (1 + i % 5), [2] * (1 + i % 3), False) for i in rows]
    return collate(examples, labels, list(rows))


@pytest.mark.parametrize(("share", "size"), [(0.25, 8), (0.147, 16), (0.9, 5), (0.03, 7)])
def test_an_even_share_of_each_class_and_of_all_places(share: float, size: int):
    generator = torch.Generator().manual_seed(0)
    labels = (torch.rand(400, generator=generator) < 0.2).long().tolist()
    part, taken = Part(share), []
    for start in range(0, 400, size):
        batch = batch_of(labels[start : start + size], start)
        hidden = batch["rows"][:, None].float()
        if (found := part.add(hidden, batch)) is not None:
            taken.append(found)
            assert len(found[0]) >= len(batch["rows"])
    if (found := part.rest()) is not None:
        taken.append(found)
    assert part.rest() is None
    rows = [row for _, batch in taken for row in batch["rows"].tolist()]
    assert rows == sorted(set(rows))
    states = torch.cat([hidden for hidden, _ in taken])
    assert states[:, 0].tolist() == rows  # each with what was found of it
    of_class, of_part = Counter(labels), Counter(labels[row] for row in rows)
    for label, count in of_class.items():
        assert abs(of_part[label] - share * count) <= 1
    for start in range(0, 400, 100):  # lengths are sorted in an evaluation
        inside = sum(start <= row < start + 100 for row in rows)
        assert abs(inside - 100 * share) <= 3


def test_a_joined_batch_is_the_batch_of_all_rows():
    parts = [batch_of([0, 1], 0), batch_of([1], 2), batch_of([0, 0, 1], 3)]
    joined, whole = joined_batch(parts), batch_of([0, 1, 1, 0, 0, 1], 0)
    assert joined.keys() == whole.keys()
    for name, value in whole.items():
        assert (
            torch.equal(joined[name], value)
            if isinstance(value, torch.Tensor)
            else (joined[name] == value)
        )


def test_an_evaluation_outside_of_fit_takes_all_rows(make_task: MakeTask):
    task = make_task()
    got = validated(learned(SoftPrompt, task), task, Faithfulness(rows=2))
    assert got["val/compared_rows"] == 10
