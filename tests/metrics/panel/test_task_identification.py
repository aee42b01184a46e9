"""Ranks and margins of tasks, against each description read behind whole rows in float64."""

import math
from dataclasses import asdict
from statistics import fmean

import pytest

from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.metrics.panel import task_identification as task_identification_module
from lightning_prompts.metrics.panel.frames import DESCRIPTIONS, FRAMES, KINDS
from lightning_prompts.metrics.panel.likelihood import Unmeasured, shuffles
from lightning_prompts.metrics.panel.task_identification import task_identification, task_scores

from .conftest import Exact

ANSWERS = [" terrible", " great"]


def scores(exact: Exact, ids: list[int]) -> list[list[float]]:
    """A frame, a task: the mean log-likelihood less that behind the neutral text."""
    bos, found = exact.tokenizer.bos_token_id, []
    for before, after, neutral in FRAMES:
        row = []
        for kind in KINDS:
            described = exact.ids(DESCRIPTIONS[kind])
            with_text, without = (
                fmean(exact.log_p([bos, *exact.ids(before), *text, *exact.ids(after)], described))
                for text in (ids, exact.ids(neutral))
            )
            row.append(with_text - without)
        found.append(row)
    return found


def margin(rows: list[list[float]], true: int) -> float:
    return fmean(row[true] - max(s for i, s in enumerate(row) if i != true) for row in rows)


def test_ranks_and_margins(lm: FrozenLM, exact: Exact, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        "lightning_prompts.metrics.panel.task_identification.TASK_SHUFFLES", 2
    )  # a row a token in float64 takes its time
    monkeypatch.setattr("lightning_prompts.metrics.panel.task_identification.ROWS_AT_ONCE", 3)
    ids = exact.ids(" a film")
    own = scores(exact, ids)
    assert task_scores(lm, [ids])[:, 0].tolist() == [pytest.approx(row, abs=1e-4) for row in own]

    shuffled = [margin(scores(exact, other), 0) for other in shuffles(ids, 2)]
    answers = margin(scores(exact, exact.ids("terrible great")), 0)
    ranks = [1 + sum(s > row[0] for s in row[1:]) for row in own]
    got = task_identification(lm, ids, "sentiment", ANSWERS)
    assert got.task_rank == pytest.approx(fmean(ranks))
    assert got.task_reciprocal_rank == pytest.approx(fmean(1 / rank for rank in ranks))
    assert got.task_margin == pytest.approx(margin(own, 0), abs=1e-4)
    assert got.task_margin_over_shuffled == pytest.approx(
        margin(own, 0) - fmean(shuffled), abs=2e-4
    )
    assert got.task_margin_over_answers == pytest.approx(margin(own, 0) - answers, abs=2e-4)


def test_without_shuffles_three_rows_are_read(lm: FrozenLM, monkeypatch: pytest.MonkeyPatch):
    ids, seen = lm.encode("A dull film."), []
    whole = asdict(task_identification(lm, ids, "topic", ANSWERS))
    read = task_identification_module._read

    def counted(lm, before, rows, reader):
        seen.extend(rows)
        return read(lm, before, rows, reader)

    monkeypatch.setattr(task_identification_module, "_read", counted)
    brief = asdict(task_identification(lm, ids, "topic", ANSWERS, shuffled=False))
    assert len(seen) == len(FRAMES)  # answer words and neutral texts are remembered
    assert math.isnan(brief.pop("task_margin_over_shuffled"))
    del whole["task_margin_over_shuffled"]
    assert brief == pytest.approx(whole, abs=1e-5)
    seen.clear()
    task_identification(lm, ids, "topic", [" other"], shuffled=False)
    assert len(seen) == 2 * len(FRAMES)  # other words


def test_true_tasks_differ_in_what_is_true_alone(lm: FrozenLM):
    found = task_scores(lm, [lm.encode("Dull!")])[:, 0]
    for true, kind in enumerate(KINDS[:3]):
        got = task_identification(lm, lm.encode("Dull!"), kind, ANSWERS)
        expected = [1 + int((row > row[true]).sum()) for row in found]
        assert got.task_rank == pytest.approx(fmean(expected))
        assert 1 <= got.task_rank <= 8


@pytest.mark.parametrize("text", ["e", "eee"])
def test_where_there_is_no_order_shuffles_say_the_same(lm: FrozenLM, text: str):
    got = task_identification(lm, lm.encode(text), "spam", ANSWERS)
    assert got.task_margin_over_shuffled == 0


def test_a_text_that_says_nothing_has_a_score_of_nothing(lm: FrozenLM, exact: Exact):
    neutral = exact.ids(FRAMES[0].neutral)
    assert task_scores(lm, [neutral])[0, 0].tolist() == pytest.approx([0] * 8, abs=1e-5)


def test_what_cannot_be_read(lm: FrozenLM, short: FrozenLM):
    with pytest.raises(Unmeasured, match=r"no token$"):
        task_identification(lm, [], "topic", ANSWERS)
    with pytest.raises(Unmeasured, match=r"needs \d+ positions, and short.* has 64$"):
        task_identification(short, [5], "topic", ANSWERS)


def test_descriptions_and_frames_are_told_apart():
    assert set(DESCRIPTIONS) == set(KINDS)
    assert len(set(DESCRIPTIONS.values())) == len(KINDS) == 8
    assert len(set(FRAMES)) == 3
    assert all(text.startswith(" ") and text.endswith(".") for text in DESCRIPTIONS.values())
