"""The ledger: what was seen of each prompt, which are the best, and what a checkpoint keeps."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_prompts.tuners.search.ledger import Ids, Ledger

A, B, C, D = (1, 2), (3, 4), (5, 6), (7, 8)


def decode(ids: Any) -> str:
    return "-".join(str(i) for i in ids)


def record(ledger: Ledger, *seen: tuple[Ids, float, float]) -> None:
    """Add prompts of one step, each with its reward and its nats."""
    prompts, rewards, nats = zip(*seen, strict=True)
    ledger.add(prompts, rewards, nats, {"accuracy": [r / 100 for r in rewards]})


@pytest.fixture
def ledger() -> Ledger:
    """Two steps, a validation between them; D was validated and never written."""
    ledger = Ledger()
    record(ledger, (A, 10.0, 3.0), (B, 50.0, 9.0), (A, 20.0, 3.0))
    ledger[D].log_perplexity = 4.0
    ledger[D].validated = {"loss": 0.7, "log_perplexity": 4.0}
    ledger.close_window()
    record(ledger, (C, 30.0, 2.0), (A, 60.0, 3.0))
    return ledger


def test_it_counts_and_averages(ledger: Ledger):
    assert list(ledger.entries) == [A, B, D, C]
    assert len(ledger) == 4
    assert C in ledger
    assert (9, 9) not in ledger
    assert [ledger[ids].times for ids in (A, B, C, D)] == [3, 1, 1, 0]
    assert ledger[A].mean_reward == pytest.approx(30.0)
    assert ledger[D].mean_reward == 0.0
    assert (ledger[A].window_times, ledger[A].window_reward) == (1, 60.0)
    assert (ledger[B].window_times, ledger[B].window_reward) == (0, 0.0)
    assert ledger[A].components == {"accuracy": 0.6}  # the latest


def test_equal_rewards_average_to_themselves():
    """What is remembered has to be what was measured, to the last bit."""
    ledger, reward = Ledger(), torch.tensor(41.7301).item()
    for _ in range(1001):
        record(ledger, (A, reward, 1.0))
    assert ledger[A].mean_reward == reward


@pytest.mark.parametrize(
    ("alpha", "expected"),
    # Means 30, 50, 30 and nats 3, 9, 2: of A and C, equal by reward, A was seen first.
    [(0.0, [B, A, C]), (1.0, [C, A, B]), (0.9, [C, A, B])],
)
def test_the_best_by_reward_and_readability(ledger: Ledger, alpha: float, expected: list[Ids]):
    assert ledger.best(10, alpha) == expected
    assert ledger.best(1, alpha) == expected[:1]
    assert ledger.best(0, alpha) == []


def test_both_terms_are_standardised(ledger: Ledger):
    """Rewards a thousand times as large, and nats 10 higher, change no order."""
    other = Ledger()
    for ids in (A, B, C):
        record(other, (ids, 1000 * ledger[ids].mean_reward, ledger[ids].log_perplexity + 10))
    for alpha in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0):
        assert other.best(3, alpha) == ledger.best(3, alpha)
    assert ledger.best(3, 0.2) != ledger.best(3, 0.8)


def test_the_best_since_the_last_validation(ledger: Ledger):
    assert ledger.best(10, 0.0, window=True) == [A, C]
    ledger.close_window()
    assert ledger.best(10, 0.0, window=True) == []
    assert len(ledger.best(10, 0.0)) == 3
    assert Ledger().best(3, 0.0) == []


def test_the_table_has_the_validated_first(ledger: Ledger):
    ledger[B].validated = {"loss": 0.4, "log_perplexity": 9.0}
    rows = ledger.table(1, 0.0, decode)
    assert [row["text"] for row in rows] == ["3-4", "7-8", "1-2"]
    assert rows[0] == {
        "text": "3-4",
        "ids": [3, 4],
        "times": 1,
        "gain": 50.0,
        "accuracy": 0.5,
        "perplexity": pytest.approx(math.exp(9.0)),
        "val_loss": 0.4,
        "val_objective": 0.4,
    }
    assert rows[1] == {
        "text": "7-8",
        "ids": [7, 8],
        "times": 0,
        "perplexity": pytest.approx(math.exp(4.0)),
        "val_loss": 0.7,
        "val_objective": 0.7,
    }
    # With all the weight on readability the other validated one is the better.
    readable = ledger.table(5, 1.0, decode)
    assert [row["text"] for row in readable] == ["7-8", "3-4", "5-6", "1-2"]
    assert [row["val_objective"] for row in readable[:2]] == [4.0, 9.0]
    # A reward only where all of them are of the same examples.
    ledger.rows = "the only batch"
    assert [row.get("reward") for row in ledger.table(1, 0.0, decode)][:2] == [50.0, None]


def test_gibberish_has_a_finite_perplexity():
    ledger = Ledger()
    record(ledger, (A, 1.0, 5000.0))
    assert math.isfinite(ledger.table(1, 0.0, decode)[0]["perplexity"])


@pytest.mark.parametrize("empty", [False, True])
def test_a_checkpoint_brings_everything_back(ledger: Ledger, tmp_path: Path, empty: bool):
    kept = Ledger() if empty else ledger
    torch.save(kept.state_dict(), tmp_path / "a.ckpt")
    other = Ledger()
    record(other, ((9, 9), 1.0, 1.0))  # gone afterwards
    other.load_state_dict(torch.load(tmp_path / "a.ckpt", weights_only=True))
    assert other.entries == kept.entries
    assert list(other.entries) == list(kept.entries)
    assert other.table(9, 0.3, decode) == kept.table(9, 0.3, decode)
    assert all(type(e.times) is int for e in other.entries.values())
