"""A text's meaning in the objective, and floors under the panel's values: by hand, and mistakes."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer

from lightning_prompts.files.errors import PromptError
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.metrics.panel.measures import (
    CHEAP,
    LOGGED,
    OF_MORE,
    TaskFacts,
    scrutability_panel,
)
from lightning_prompts.tasks import TextClassification
from lightning_prompts.tuners import GuidedSearch
from lightning_prompts.tuners.prompt_init import FromText
from lightning_prompts.tuners.search import floors as floors_module
from lightning_prompts.tuners.search.floors import Floors
from lightning_prompts.tuners.search.near import NearText
from tests.searching import LAST, SPLITS, WORDS, trainer_in

W = 0.2


def run(lm: FrozenLM, folder: Path, steps: int = 3, **options: Any) -> tuple[Trainer, GuidedSearch]:
    task = TextClassification(lm, LAST, WORDS, data=SPLITS, batch_size=4, val_batch_size=2)
    options = {
        **{"prompt_length": None, "min_length": 3, "max_length": 6, "init": FromText(" film")},
        **{"candidates": 8, "beam": 2, "race": [2], "contenders": 2, "perplexity_weight": W},
        **options,
    }
    tuner = GuidedSearch(lm, task.template, task.verbalizer, **options)
    trainer = trainer_in(folder, steps)
    trainer.fit(tuner, datamodule=task)
    return trainer, tuner


def left(trainer: Trainer, tuner: GuidedSearch, folder: Path) -> dict[str, Any]:
    """All that a search leaves."""
    trainer.save_checkpoint(path := folder / "a.ckpt")
    saved = torch.load(path, weights_only=True)
    kept = {key: saved[key] for key in ("search", "forward_tokens")}
    kept["validated"] = saved["prompts"]["validated"]
    kept["numbers"] = saved["prompts"]["numbers"].tolist()
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    return {**kept, "keys": sorted(saved), "logged": logged, "listed": tuner.listed_prompts()}


def test_without_the_options_not_one_bit_changes(lm: FrozenLM, tmp_path: Path):
    """Left out, null, or such that they weigh and exclude nothing: the same search."""
    expected = left(*run(lm, tmp_path), tmp_path)
    nulls = {"match": None, "keep_near": None, "keep_near_weight": 3.0, "floors": None}
    assert left(*run(lm, tmp_path, **nulls), tmp_path) == expected
    near = left(*run(lm, tmp_path, keep_near=" film", keep_near_weight=0.0), tmp_path)
    del near["logged"]["val/keep_near"]
    assert near == expected
    assert left(*run(lm, tmp_path, floors={"grammar": 0.0}), tmp_path) == expected
    assert not [name for name in expected["logged"] if "match" in name or "near" in name]


# ---- near a text


def cosine(lm: FrozenLM, one: list[int], other: list[int]) -> float:
    table = lm.embedding_table.double()
    middle = table.mean(0)
    a, b = (sum(table[i] for i in ids) / len(ids) - middle for ids in (one, other))
    return float(a @ b / (a.norm() * b.norm()))


def test_the_cosine(lm: FrozenLM):
    near = NearText(" a film", 2.0, lm)
    text = lm.encode(" a film")
    for ids in (text, lm.encode("plot"), [5, 5, 9]):
        assert near.cosine(ids) == pytest.approx(cosine(lm, ids, text), abs=1e-6)
        assert near(ids) == pytest.approx(2 * (1 - cosine(lm, ids, text)), abs=1e-6)
    assert near.cosine(text) == pytest.approx(1)
    assert near.cosine(text[::-1]) == pytest.approx(1)  # it knows no order
    with pytest.raises(PromptError, match="keep_near is an empty text"):
        NearText("", 1.0, lm)


def test_the_objective_has_the_term_everywhere(lm: FrozenLM, tmp_path: Path):
    weight, text = 3.0, lm.encode(" a film")
    trainer, tuner = run(lm, tmp_path, keep_near=" a film", keep_near_weight=weight)
    validated = {ids: e for ids, e in tuner.ledger.entries.items() if e.validated}
    expected = {
        ids: (1 - W) * e.validated["loss"]
        + W * e.validated["log_perplexity"]
        + weight * (1 - cosine(lm, list(ids), text))
        for ids, e in validated.items()
    }
    assert len(expected) > 2
    best = tuple(tuner.token_ids.tolist())
    assert best == min(expected, key=expected.__getitem__)
    logged = trainer.callback_metrics
    assert float(logged["val/objective"]) == pytest.approx(expected[best], rel=1e-5)
    assert float(logged["val/keep_near"]) == pytest.approx(cosine(lm, list(best), text), rel=1e-5)
    (values,) = trainer.validate(tuner, datamodule=trainer.datamodule, verbose=False)
    assert values["val/objective"] == pytest.approx(expected[best], rel=1e-5)
    step = {name: float(logged[f"train/{name}"]) for name in ("loss", "log_perplexity")}
    penalty = float(logged["train/objective"]) - (1 - W) * step["loss"] - W * step["log_perplexity"]
    assert any(
        penalty == pytest.approx(weight * (1 - cosine(lm, list(ids), text)), rel=1e-4)
        for ids in tuner.ledger.entries
    )
    # With a weight that outweighs all else it goes nearer than without.
    _, nearest = run(lm, tmp_path, steps=4, keep_near=" good", keep_near_weight=1000.0)
    _, free = run(lm, tmp_path, steps=6)
    good = lm.encode(" good")
    own, other = (cosine(lm, each.token_ids.tolist(), good) for each in (nearest, free))
    assert own > other


# ---- floors


def test_what_is_below_is_not_kept(lm: FrozenLM, tmp_path: Path, monkeypatch):
    start, calls = lm.encode(" film"), []
    panel = floors_module.panel

    def watched(lm, ids, *args, **options):
        calls.append(tuple(ids))
        return panel(lm, ids, *args, **options)

    monkeypatch.setattr(floors_module, "panel", watched)
    _, free = run(lm, tmp_path, steps=4)
    value = {
        ids: scrutability_panel(lm, list(ids), ["grammar"])["grammar"]
        for ids in [tuple(start), *free.ledger.entries]
    }
    floor = value[tuple(start)]
    assert any(value[tuple(ids)] < floor for ids in free.beam)  # so that there is something to do
    _, tuner = run(lm, tmp_path, steps=4, floors={"grammar": floor})
    assert len(calls) == len(set(calls)) > 5  # each prompt is read once
    kept = [*tuner.beam, tuple(tuner.token_ids.tolist()), *tuner.ledger.entries]
    for ids in kept:
        assert scrutability_panel(lm, list(ids), ["grammar"])["grammar"] >= floor
    dropped = set(calls) - set(kept)
    assert dropped
    for ids in dropped:
        assert scrutability_panel(lm, list(ids), ["grammar"])["grammar"] < floor


def test_if_all_are_below_the_beam_stays(lm: FrozenLM, tmp_path: Path, monkeypatch):
    start = tuple(lm.encode(" film"))
    monkeypatch.setattr(Floors, "lacking", lambda self, ids: "" if tuple(ids) == start else "all")
    _, tuner = run(lm, tmp_path, floors={"grammar": 0.5})
    assert tuner.beam == [start]
    assert tuple(tuner.token_ids.tolist()) == start


def test_every_value_that_is_offered_can_be_had(lm: FrozenLM):
    facts = TaskFacts("sentiment", [" bad", " good"], ["A film", "film"])
    Floors(dict.fromkeys(OF_MORE, -1e6), lm).begin(facts, lm.encode(" film"))
    # Without the one that asks for shuffles none is read.
    floors = Floors({"task_margin": -1e6}, lm)
    floors.begin(facts, lm.encode(" film"))
    assert not floors.lacking(lm.encode("plot"))
    assert floors._facts.shuffled is False
    assert set(OF_MORE.values()) <= set(CHEAP)


@pytest.mark.parametrize("name", [*LOGGED, *LOGGED["simulatability"], *LOGGED["token_effects"]])
def test_what_needs_rows_is_refused(lm: FrozenLM, name: str):
    with pytest.raises(PromptError, match=rf"floors names {name}, which passes over the task's"):
        Floors({name: 0.0}, lm)


@pytest.mark.parametrize("name", ["perplexity", "repetition", "copied_run", "task_rank"])
def test_other_names_are_refused(lm: FrozenLM, name: str):
    with pytest.raises(PromptError, match=rf"floors names '{name}'.* give some of natural_perc"):
        Floors({name: 0.0}, lm)


def test_other_mistakes(lm: FrozenLM, tmp_path: Path):
    with pytest.raises(PromptError, match="grammar is nan; give a finite number"):
        Floors({"grammar": math.nan}, lm)
    with pytest.raises(PromptError, match=r"the start, ' film', does not hold .*grammar .* of 2\)"):
        run(lm, tmp_path, floors={"grammar": 2.0})
    with pytest.raises(PromptError, match=r"say so by .*task_kind\); start from"):
        run(lm, tmp_path, floors={"task_margin": 0.0})
