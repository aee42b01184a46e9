"""Vectors that stay near a text: within a distance of its rows, or nearest to its tokens."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EMAWeightAveraging
from torch import Tensor

from lightning_prompts import FromText, FromVerbalizer, PromptInit, load_prompt
from lightning_prompts.cli.main import main
from lightning_prompts.files.errors import PromptError
from lightning_prompts.files.option_types import symbols
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.lm.nearest import Distance
from lightning_prompts.tuners import BoundedPrompt, ManualPrompt, SoftPrompt
from lightning_prompts.tuners.bounded import share_to_border
from tests.tuners.test_langevin import Iterates, StopAt, resume
from tests.tuners.test_no_waiting import NoWaiting
from tests.tuners.test_tuners import ADAMW, ROWS, build, fit

TEXT = " good, It was"
LARGE = {"optimizer": lambda parameters: torch.optim.SGD(parameters, lr=20.0)}
METRICS: tuple[Distance, ...] = ("cosine", "euclidean")


def make(lm: FrozenLM, text: str = TEXT, **kwargs: Any) -> BoundedPrompt:
    tuner = build("bounded", lm, **{"init": FromText(text)} | kwargs)
    assert isinstance(tuner, BoundedPrompt)
    return tuner


def rows_of(lm: FrozenLM, text: str = TEXT) -> Tensor:
    return lm.embed(torch.tensor(lm.encode(text))).double()


def put(tuner: SoftPrompt, values: Tensor) -> None:
    with torch.no_grad():
        tuner.prompt.copy_(values)


def used(prompt: Tensor, rows: Tensor) -> Tensor:
    """[P] In lengths of the rows."""
    return (prompt.double() - rows).norm(dim=1) / rows.norm(dim=1)


def lead(prompt: Tensor, lm: FrozenLM, ids: Tensor, metric: Distance) -> Tensor:
    """[P] By how much the next token but special ones is farther than `ids`, in float64."""
    table, prompt = lm.embedding_table.double(), prompt.double()
    if metric == "cosine":
        far = 1 - F.normalize(prompt, dim=1) @ F.normalize(table, dim=1).T
    else:
        far = (prompt[:, None] - table).norm(dim=2)
    far[:, lm.special_ids] = torch.inf
    own = far.gather(1, ids[:, None])[:, 0]
    return far.scatter(1, ids[:, None], torch.inf).min(1).values - own


def farthest(rows: Tensor, away: Tensor, lm: FrozenLM, ids: Tensor, metric: Distance) -> Tensor:
    """[P] Share of the way within the tokens' cells, by bisection over the whole table."""
    low, high = torch.zeros(len(rows)).double(), torch.ones(len(rows)).double()
    for _ in range(50):
        middle = (low + high) / 2
        inside = lead(rows + middle[:, None] * away, lm, ids, metric) > 0
        low, high = torch.where(inside, middle, low), torch.where(inside, high, middle)
    return low


@pytest.mark.parametrize("epsilon", [0.0, 1e-9, 1e-3, 0.3, 5.0])
def test_it_goes_back_to_the_nearest_point_of_the_ball(lm: FrozenLM, epsilon: float):
    tuner, rows = make(lm, epsilon=epsilon), rows_of(lm)
    generator = torch.Generator().manual_seed(0)
    for scale in (1e-3, 1.0, 1e4):
        start = rows + scale * epsilon * torch.randn(rows.shape, generator=generator)
        put(tuner, start + (1.0 if epsilon < 1e-6 else 0.0))
        before = tuner.prompt.detach().clone()
        tuner.project()
        away = before.double() - rows
        factor = epsilon * rows.norm(dim=1) / away.norm(dim=1)
        expected = rows + factor.clamp(max=1)[:, None] * away
        torch.testing.assert_close(tuner.prompt.double(), expected, rtol=1e-6, atol=1e-6)
        assert (used(tuner.prompt, rows) <= epsilon).all()
        assert torch.equal(tuner.prompt[factor >= 1], before[factor >= 1])
        after = tuner.prompt.detach().clone()
        tuner.project()
        assert torch.equal(tuner.prompt, after)


@pytest.mark.parametrize("epsilon", [0.02, 0.3])
@pytest.mark.parametrize("batches", [1, 2])
def test_nothing_leaves_the_ball(lm: FrozenLM, tmp_path: Path, epsilon: float, batches: int):
    tuner, watch, rows = make(lm, epsilon=epsilon, **LARGE), Iterates(), rows_of(lm)
    options = {"accumulate_grad_batches": batches, "max_epochs": -1, "callbacks": [watch]}
    metrics = fit(tuner, tmp_path, 30, **options).callback_metrics
    assert len(watch.seen) == 30 * batches
    assert all((used(prompt, rows) <= epsilon).all() for prompt in watch.seen)
    assert not torch.equal(watch.seen[-1], watch.seen[0])
    assert metrics["val/epsilon_used"] == pytest.approx(epsilon, rel=1e-4)


def test_an_average_is_within_too(lm: FrozenLM, tmp_path: Path):
    tuner, rows = make(lm, epsilon=0.3, **LARGE), rows_of(lm)
    fit(tuner, tmp_path, 8, callbacks=[EMAWeightAveraging(decay=0.5)])
    assert tuner.averaged_by == "EMAWeightAveraging"
    assert 0.01 < used(tuner.prompt, rows).max() <= 0.3 * (1 + 1e-6)


def test_at_zero_it_is_the_text(lm: FrozenLM, tmp_path: Path):
    tuner, written = make(lm, epsilon=0.0, optimizer=ADAMW), build("manual", lm)
    found = fit(tuner, tmp_path, 3)
    assert torch.equal(tuner.prompt, lm.embed(torch.tensor(lm.encode(TEXT))))
    assert found.global_step == 1
    assert isinstance(written, ManualPrompt)
    written.token_ids = torch.tensor(lm.encode(TEXT))
    expected = fit(written, tmp_path, 3).callback_metrics
    for name in ("val/loss", "val/accuracy", "val/objective"):
        assert torch.equal(found.callback_metrics[name], expected[name])
    assert found.callback_metrics["val/epsilon_used"] == 0


def test_without_a_bound_it_is_a_soft_prompt(lm: FrozenLM, tmp_path: Path):
    parts = {"init": FromText(TEXT), "optimizer": ADAMW}
    bounded, soft = make(lm, epsilon=None, **parts), build("soft", lm, prompt_length=None, **parts)
    measured = [fit(tuner, tmp_path, 5).callback_metrics for tuner in (bounded, soft)]
    assert isinstance(soft, SoftPrompt)
    assert torch.equal(bounded.prompt, soft.prompt)
    assert torch.equal(measured[0]["val/loss"], measured[1]["val/loss"])
    expected = used(soft.prompt, rows_of(lm)).max().item()
    assert measured[0]["val/epsilon_used"].item() == pytest.approx(expected)


@pytest.mark.parametrize("metric", METRICS)
def test_the_border_is_that_of_bisection(lm: FrozenLM, metric: Distance):
    tuner = make(lm, epsilon=None, keep_nearest=True, projection=metric)
    rows, ids = rows_of(lm), tuner.text_ids
    for seed in range(10):
        noise = torch.randn(rows.shape, generator=torch.Generator().manual_seed(seed))
        put(tuner, rows + 2 * noise)
        away = tuner.prompt.detach().double() - rows
        tuner.project()
        share = (tuner.prompt.double() - rows).norm(dim=1) / away.norm(dim=1)
        expected = farthest(rows, away, lm, ids, metric)
        assert (expected < 0.999).any()
        torch.testing.assert_close(share, expected, rtol=1e-3, atol=1e-6)
        assert (lead(tuner.prompt.detach(), lm, ids, metric) > 0).all()
        assert torch.equal(tuner.hard_prompt(), ids)


@pytest.mark.parametrize("metric", METRICS)
def test_on_the_border_both_are_as_near(metric: Distance):
    rows, other, away = torch.randn(3, 200, 8, generator=torch.Generator().manual_seed(0)).double()
    share = share_to_border(rows, away, other, metric)
    crossed = share.isfinite()
    points = (rows + share[:, None] * away)[crossed]
    rows, other = rows[crossed], other[crossed]
    if metric == "cosine":
        nearness = [F.cosine_similarity(points, to) for to in (rows, other)]
    else:
        nearness = [(points - to).norm(dim=1) for to in (rows, other)]
    torch.testing.assert_close(*nearness)
    assert 0 < crossed.sum() < 200


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("epsilon", [None, 1.5])
def test_nearest_tokens_stay_the_text(
    lm: FrozenLM, tmp_path: Path, metric: Distance, epsilon: float | None
):
    free, kept = (
        make(lm, epsilon=epsilon, projection=metric, keep_nearest=keep, **LARGE)
        for keep in (False, True)
    )
    start, rows, watch = kept.prompt.detach().clone(), rows_of(lm), Iterates()
    fit(free, tmp_path, 12)
    fit(kept, tmp_path, 12, callbacks=[watch])
    assert not torch.equal(free.hard_prompt(), free.text_ids)  # else nothing was kept
    for prompt in watch.seen:
        assert (lead(prompt, lm, kept.text_ids, metric) > 0).all()
        assert epsilon is None or (used(prompt, rows) <= epsilon).all()
    assert (kept.prompt - start).norm(dim=1).max() > 0.1
    assert lm.decode(kept.hard_prompt().tolist()) == TEXT


def test_what_is_within_is_left_alone(lm: FrozenLM):
    tuner = make(lm, epsilon=0.1, keep_nearest=True)
    noise = torch.randn(tuner.prompt.shape, generator=torch.Generator().manual_seed(0))
    put(tuner, tuner.prompt + 1e-3 * noise)
    before = tuner.prompt.detach().clone()
    tuner.project()
    assert torch.equal(tuner.prompt, before)


def test_the_bound_waits_for_no_device(lm: FrozenLM, monkeypatch: pytest.MonkeyPatch):
    tuner = make(lm)
    with NoWaiting(monkeypatch):
        tuner.project()


def test_a_prompt_that_is_no_number_does_not_go_on_for_ever(lm: FrozenLM):
    tuner = make(lm, keep_nearest=True)
    put(tuner, torch.full_like(tuner.prompt, torch.nan))
    tuner.project()
    assert tuner.prompt.isnan().all()


class Halves(PromptInit):
    """Between two tokens."""

    def rows(self, lm: FrozenLM, *args: Any) -> Tensor:
        return (lm.embedding_table[5:9] + lm.embedding_table[10:14]) / 2


def test_what_it_cannot_keep_is_refused(lm: FrozenLM):
    with pytest.raises(PromptError, match=r"vectors that are no tokens; take FromText"):
        make(lm, init=Halves())
    ids = torch.tensor([lm.bos_id])
    with pytest.raises(PromptError, match=r"keep_nearest: '<\|endoftext\|>' is not the nearest"):
        make(lm, text=lm.decode(ids.tolist()), keep_nearest=True)
    for epsilon in (-0.1, float("nan"), float("inf")):
        with pytest.raises(PromptError, match=r"epsilon is .* at least 0, or None for no bound"):
            make(lm, epsilon=epsilon)
    assert make(lm, init=FromVerbalizer()).text_ids.tolist() == lm.encode(" bad good")
    assert symbols(make(lm), "model.") == {
        **{"model.epsilon": "ε", "model.perplexity_weight": "w", "model.prompt_length": "P"}
    }


@pytest.mark.parametrize("keep", [False, True])
def test_a_resumed_run_goes_on_to_the_last_bit(lm: FrozenLM, tmp_path: Path, keep: bool):
    options: dict[str, Any] = {"epsilon": 0.5, "keep_nearest": keep, **LARGE}
    whole, watch = make(lm, **options), Iterates()
    fit(whole, tmp_path, 6, callbacks=[watch])
    stop: list[Callback] = [StopAt(3)]
    fit(make(lm, **options), tmp_path, 6, callbacks=stop).save_checkpoint(tmp_path / "a.ckpt")
    again, rest = make(lm, **options), Iterates()
    resume(again, tmp_path, tmp_path / "a.ckpt", [rest])
    assert len(rest.seen) == 5
    for own, expected in zip(rest.seen, watch.seen[3:], strict=False):
        assert torch.equal(own, expected)


def test_the_command_line(
    lm_folder: Path, review_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    options = [
        *("--config", "configs/tuner/bounded.yaml", "--config", "configs/task/demo.yaml"),
        *("--lm.name", str(lm_folder), "--data.path", str(review_folder)),
        *("--trainer.enable_progress_bar", "false", "--trainer.precision", "32-true"),
        *("--trainer.max_steps", "4", "--trainer.val_check_interval", "2"),
        *("--model.init.text", TEXT, "--model.epsilon", "0.1", "--model.optimizer.lr", "0.5"),
        *("--model.keep_nearest", "true"),
    ]
    main(["fit", *options])
    run = Path("logs/bounded-demo/version_0")
    written = json.loads((run / "prompt.json").read_text())
    assert (written["tuner"], written["label"]) == ("BoundedPrompt", "Bounded prompt")
    assert (written["text"], written["in_use"]) == (TEXT, "vectors")
    assert 0.05 < written["metrics"]["val/epsilon_used"] <= 0.1 * (1 + 1e-6)
    again = main(["validate", "--config", str(run / "config.yaml"), "--ckpt_path", "best"])
    found = again.trainer.callback_metrics
    assert float(found["val/epsilon_used"]) == written["metrics"]["val/epsilon_used"]
    prompt = load_prompt(run)
    assert torch.equal(prompt.embeddings, again.model.prompt.detach())
    assert len(prompt.classify([text for text, _ in ROWS])) == len(ROWS)
    python = BoundedPrompt.for_task(again.datamodule, epsilon=0.3)
    assert (python.epsilon, python.keep_nearest) == (0.3, False)
    assert python.lm.decode(python.text_ids.tolist()).endswith("Review:")
