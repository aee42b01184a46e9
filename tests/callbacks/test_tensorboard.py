"""What TensorBoard opens on: charts of several curves with the baselines as level lines."""

import re
from pathlib import Path

import pytest
from lightning.pytorch import Callback
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2

from lightning_prompts.callbacks import Baselines, Faithfulness, PromptText, Scrutability
from lightning_prompts.callbacks.tensorboard import charts
from lightning_prompts.tuners import PEZ, SoftPrompt

from .conftest import MakeTask, learned, quick_trainer

THREE = {"max_steps": 3, "val_check_interval": 1, "check_val_every_n_epoch": None}
CURVES = ["", "hard_", "round_trip_"]
BARS = ["majority", "no_prompt", "no_prompt_calibrated", "written_prompt"]


def measuring() -> list[Callback]:
    return [Scrutability(), Faithfulness(), PromptText(), Baselines(text=" It is")]


def fit(task, folder: Path, kind: type[SoftPrompt] = SoftPrompt, **kwargs) -> EventAccumulator:
    """Fit with both loggers and read TensorBoard's files."""
    board = TensorBoardLogger(folder, name="board", version=0, default_hp_metric=False)
    loggers = [board, CSVLogger(folder, name="table", version=0)]
    options = {"logger": loggers, "num_sanity_val_steps": 1, "log_every_n_steps": 1} | THREE
    trainer = quick_trainer(callbacks=measuring(), **options | kwargs)
    trainer.fit(learned(kind, task), datamodule=task)
    loggers[1].save()
    return EventAccumulator(board.log_dir, size_guidance={"tensors": 0, "scalars": 0}).Reload()


def shown(events: EventAccumulator) -> dict[str, dict[str, set[str]]]:
    """The tags that each chart of the layout matches, as the plugin matches them."""
    (event,) = events.Tensors("custom_scalars__config__")
    layout = layout_pb2.Layout.FromString(event.tensor_proto.string_val[0])
    tags = events.Tags()["scalars"]
    return {
        category.title: {
            chart.title: {t for t in tags for r in chart.multiline.tag if re.match(r, t)}
            for chart in category.chart
        }
        for category in layout.category
    }


def test_curves_and_baselines_share_a_chart(make_task: MakeTask, tmp_path: Path) -> None:
    events = fit(make_task(), tmp_path)
    bars = {f"vs_baseline/val_{name}_accuracy" for name in BARS}
    assert shown(events) == {
        "Performance": {
            "accuracy and the baselines": bars | {f"val/{kind}accuracy" for kind in CURVES},
            "loss, nats": {"train/loss", "val/loss", "val/hard_loss"},
        },
        "Scrutability": {"perplexity of the tokens": {"val/perplexity"}},
        "Faithfulness": {
            "distance differential": {
                "val/distance_differential_cosine",
                "val/distance_differential_euclidean",
            },
            "output differential, logits²": {"val/output_differential"},
            "loss and accuracy differential": {
                "val/loss_differential",
                "val/accuracy_differential",
            },
        },
    }
    for name in bars:
        line = events.Scalars(name)
        assert (
            [event.step for event in line]
            == [1, 2, 3]
            == [event.step for event in events.Scalars("val/accuracy")]
        )
        assert len({event.value for event in line}) == 1


def test_the_vectors_behind_tokens_are_shown_too(make_task: MakeTask, tmp_path: Path) -> None:
    performance = shown(fit(make_task(), tmp_path, PEZ))["Performance"]
    assert "val/soft_accuracy" in performance["accuracy and the baselines"]
    assert "val/soft_loss" in performance["loss, nats"]


def test_single_points_come_behind_the_curves(make_task: MakeTask, tmp_path: Path) -> None:
    """TensorBoard shows tags by name, group by group; other loggers keep theirs."""
    events = fit(make_task(), tmp_path)
    groups = sorted({tag.partition("/")[0] for tag in events.Tags()["scalars"]})
    assert groups == ["epoch", "train", "val", "val_best", "vs_baseline"]
    header, *rows = (tmp_path / "table/version_0/metrics.csv").read_text().splitlines()
    names = header.split(",")
    assert not [name for name in names if name.startswith(("vs_", "val_"))]
    column = names.index("baseline/val_no_prompt_accuracy")
    (value,) = filter(None, (row.split(",")[column] for row in rows))
    assert float(value) == pytest.approx(
        events.Scalars("vs_baseline/val_no_prompt_accuracy")[0].value
    )


def test_a_test_draws_its_own(make_task: MakeTask, tmp_path: Path) -> None:
    task = make_task()
    logger = TensorBoardLogger(tmp_path, default_hp_metric=False)
    trainer = quick_trainer(callbacks=measuring(), logger=logger)
    trainer.test(learned(SoftPrompt, task), datamodule=task, verbose=False)
    tags = EventAccumulator(logger.log_dir).Reload().Tags()
    assert "vs_baseline/test_majority_accuracy" in tags["scalars"]
    assert "custom_scalars__config__" not in tags["tensors"]


def test_texts_have_content_and_style() -> None:
    _, (tags,) = charts(classifies=False)["Performance"]["content, style, reward"]
    assert all(re.match(tags, f"val/{name}") for name in ("content", "style", "reward"))
    assert not re.match(tags, "val/content_of_more")
