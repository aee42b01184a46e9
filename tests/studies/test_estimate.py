"""What a study is said to take: its arithmetic, and what is measured, in texts, not seconds."""

from collections import OrderedDict
from types import SimpleNamespace

import pytest

from lightning_prompts.lm.passes import text_cache
from lightning_prompts.studies import estimate
from lightning_prompts.studies.estimate import Cost, Price, Size, costs
from lightning_prompts.studies.shared import SharedLM

# The prompt last, so that texts are kept.
LAST = {"data.template": "{text}{prompt}", "data.batch_size": 2, "data.val_batch_size": 2}


def texts_read(cost: Cost) -> int:
    """Rows that miss a cache which drops the row that was used longest ago, run as a run is."""
    kept: OrderedDict[tuple[str, int], None] = OrderedDict()
    missed = 0

    def read(split: str, size: Size) -> None:
        nonlocal missed
        for row in range(size.rows):
            missed += (split, row) not in kept
            kept[split, row] = None
            kept.move_to_end((split, row))
            while len(kept) > cost.room:
                kept.popitem(last=False)

    passes = cost.steps // cost.train.batches // cost.validations
    for _ in range(cost.validations):
        for _ in range(passes):
            read("train", cost.train)
        read("validation", cost.validation)
    read("test", cost.test)
    return missed


@pytest.mark.parametrize(
    ("room", "exact"),
    [(0, True), (7, True), (15, True), (16, False), (23, False), (24, True), (100, True)],
)
def test_what_has_to_be_read_is_counted_as_a_cache_would(room: int, exact: bool):
    # 4 passes over 16 rows before each of 3 validations of 8, batches of 2; a text takes a second.
    cost = Cost(
        start=10.0,
        step=Price(2.0, 0.0),
        batch=Price(2.0, 0.0),
        steps=96,
        validations=3,
        train=Size(16, 8),
        validation=Size(8, 4),
        test=Size(6, 3),
        room=room,
    )
    missed = texts_read(cost)
    assert cost.seconds - cost.start == cost.training + cost.evaluation
    if exact:
        assert cost.seconds - cost.start == missed
    else:  # what is kept of some rows only is not counted on
        assert missed <= cost.seconds - cost.start <= 1.1 * missed


def test_without_kept_texts_every_batch_has_its_price():
    cost = Cost(
        1.0, Price(0.5, 0.5), Price(2.0, 2.0), 100, 5, Size(64, 8), Size(32, 2), Size(40, 3)
    )
    assert (cost.training, cost.batches, cost.evaluation) == (50.0, 13, 26.0)
    assert cost.seconds == 77.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Time stands still but for texts that are read, which take a second each."""
    now, encode = SimpleNamespace(seconds=0.0), text_cache.encode_blocks

    def count(lm, texts, **options):
        now.seconds += len(texts)
        return encode(lm, texts, **options)

    monkeypatch.setattr(text_cache, "encode_blocks", count)
    monkeypatch.setattr(estimate, "time", SimpleNamespace(monotonic=lambda: now.seconds))
    return now


def test_reading_and_keeping_texts_are_priced_apart(content, configure, clock):
    config = configure(set={**content["set"], **LAST})
    found = costs(config, SharedLM())
    for variant in ("soft", "pez"):  # the second no cheaper for what the first has read
        assert found[variant].step == Price(2.0, 0.0)
        assert found[variant].batch == Price(2.0, 0.0)
        assert found[variant].room > found[variant].train.rows > 0
        assert (found[variant].steps, found[variant].validations) == (4, 2)


def test_nothing_is_kept_without_room(content, configure, clock):
    config = configure(set={**content["set"], **LAST, "lm.text_cache": 0})
    for cost in costs(config, SharedLM()).values():
        assert cost.room == 0
        assert cost.step.read == cost.step.kept


def test_a_batch_is_not_a_step_where_gradients_accumulate(content, configure):
    settings = {**content["set"], "trainer.accumulate_grad_batches": 2}
    for cost in costs(configure(set=settings), SharedLM()).values():
        assert (cost.steps, cost.validations) == (8, 4)
