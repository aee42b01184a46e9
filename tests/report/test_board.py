"""Images of a run while it goes on: at each validation, of all validations so far."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_prompts import BestPrompt, LastPrompt, SoftPrompt, TextClassification, measures
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.report.board import PromptFigures
from lightning_prompts.report.figures import looks
from lightning_prompts.report.figures.prompts import one_prompt
from lightning_prompts.report.figures.run import pixels, trade_off
from lightning_prompts.runs.record import Validation
from tests.callbacks.conftest import quick_trainer
from tests.records import make_record

TAGS = ["prompt/tokens", "prompt/trade_off"]
Fit = Callable[..., PromptFigures]


@pytest.fixture
def fit(lm: FrozenLM, review_folder: Path, tmp_path: Path) -> Fit:
    """Run to a step with a validation at each, in the folder `run`."""

    def run(steps: int, checkpoint: Path | None = None, **kwargs: object) -> PromptFigures:
        words = {"negative": " terrible", "positive": " great"}
        task = TextClassification(lm, "{prompt} {text} It was", words, path=str(review_folder))
        logger = TensorBoardLogger(tmp_path, "", "run", default_hp_metric=False)
        figures = PromptFigures()
        trainer = quick_trainer(
            callbacks=[*measures(), figures, BestPrompt(), LastPrompt()],
            enable_checkpointing=True,
            **{"max_steps": steps, "val_check_interval": 1, "logger": logger}
            | {"check_val_every_n_epoch": None}
            | kwargs,
        )
        trainer.fit(SoftPrompt.for_task(task, prompt_length=3), task, ckpt_path=checkpoint)
        return figures

    return run


def images(run: Path) -> dict[str, dict[int, Image.Image]]:
    """Image by tag and step, of all event files."""
    found: dict[str, dict[int, Image.Image]] = {}
    for path in sorted(run.glob("events*")):
        events = EventAccumulator(str(path), size_guidance={"images": 0}).Reload()
        for tag in events.Tags()["images"]:
            for event in events.Images(tag):
                image = Image.open(io.BytesIO(event.encoded_image_string))
                found.setdefault(tag, {})[event.step] = image
    return found


def test_each_validation_has_both_images_also_where_a_run_goes_on(fit: Fit, tmp_path: Path):
    run = tmp_path / "run"
    fit(2)
    figures = fit(3, run / "checkpoints" / "last.ckpt")
    found = images(run)
    assert sorted(found) == TAGS
    for by_step in found.values():
        assert sorted(by_step) == [1, 2, 3]
        assert all(len(each.convert("L").getcolors() or ()) > 20 for each in by_step.values())
    history = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    names = ("val/accuracy", "val/hard_accuracy", "val/perplexity", "val/objective")
    own = [(v.step, *(v.metrics[n] for n in names)) for v in figures._validations]
    assert own == [(h["step"], *(h["metrics"][n] for n in names)) for h in history]


def test_without_tensorboard_nothing_is_drawn(fit: Fit, tmp_path: Path):
    figures = fit(1, logger=CSVLogger(tmp_path, "", "run"))
    assert not figures._validations
    assert not list(tmp_path.rglob("events*"))


def validation(step: int, accuracy: float, perplexity: float, tokens: float) -> Validation:
    metrics = {"accuracy": accuracy, "hard_accuracy": tokens, "perplexity": perplexity}
    return Validation(step, 0.0, None, {f"val/{k}": v for k, v in metrics.items()})


def test_the_path_has_every_validation_and_the_best_a_ring():
    path = [validation(1, 0.5, 300.0, 0.4), validation(2, 0.75, 90.0, 0.5)]
    unplaced = Validation(3, 0.0, None, {"val/accuracy": 0.6}), validation(4, 1, float("inf"), 1)
    baselines = {"majority": {"accuracy": 0.55}, "no prompt": {"accuracy": 0.6}}
    with looks.style():
        figure = trade_off([*path, *unplaced], 2, True, baselines)
        assert figure is not None
        (axes,) = figure.axes
        lines = [(list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines]
        points, crosses = (each.get_offsets().tolist() for each in axes.collections)
        height, width, channels = pixels(figure, 100).shape
    assert lines[0] == ([300.0, 90.0], [0.5, 0.75])
    assert points == [[300.0, 0.5], [90.0, 0.75]]
    assert crosses == [[300.0, 0.4], [90.0, 0.5]]
    (ring,) = [line for line in axes.lines if line.get_label() == "best so far, step 2"]
    assert (ring.get_xdata()[0], ring.get_ydata()[0]) == (90.0, 0.75)
    level = [line[1][0] for line in lines if line[0] == [0, 1]]  # of the axis, in shares
    assert level == [0.55, 0.6]
    assert axes.get_title(loc="left") == "Step 2: accuracy 0.750, perplexity 90"
    assert (width, height, channels) == (560, 390, 3)


def test_tokens_in_use_have_no_crosses_and_nothing_is_drawn_of_nothing():
    with looks.style():
        figure = trade_off([validation(1, 0.5, 300.0, 0.5)], -1, False, {})
        assert figure is not None
        assert len(figure.axes[0].collections) == 1
        assert trade_off([], -1, False, {}) is None
        assert trade_off([Validation(1, 0.0, None, {"val/accuracy": 0.5})], 1, True, {}) is None


def test_one_prompt_shows_each_token_with_its_numbers():
    record = make_record(tokens=[" a", "b\n"], token_nats=[1.25, 2.5], token_distances=[0.1, 0.25])
    record.step = 1200
    with looks.style():
        figure = one_prompt(record)
    drawn = [text.get_text() for text in figure.axes[0].texts]
    assert drawn[0] == "Step 1,200"
    assert [drawn[i : i + 3] for i in (2, 5)] == [["·a", "1.2", "0.10"], [r"b\n", "2.5", "0.25"]]
