"""A user's own tuner, task, reward and metric, in a folder of theirs."""

import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from lightning_prompts.cli.main import main

MINE = '''
"""What a user wrote."""

from typing import Annotated, Any

import torch
from torchmetrics import MeanMetric

from lightning_prompts import ClassificationGap, EvaluationCallback, SoftPrompt, TextClassification
from lightning_prompts import ModelName, Share, Symbol


class Noisy(SoftPrompt):
    """A soft prompt that is trained under noise.

    Args:
        strength: Of the noise.
        helper: A model that says how much.
        **kwargs: Of `SoftPrompt`.
    """

    slug, label = "noisy", "Noisy prompt"

    def __init__(
        self,
        *args: Any,
        strength: Annotated[Share, Symbol("\\u03c3")] = 0.5,
        helper: ModelName | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.strength = strength

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        self.log("train/strength", self.strength)
        return super().training_step(batch, batch_idx)


class Reviews(TextClassification):
    """Reviews from a folder."""

    def __init__(
        self,
        *args: Any,
        template: str = "{prompt} {text} It was",
        verbalizer: dict[str, str] = {"negative": " terrible", "positive": " great"},
        name: str | None = "my_reviews",
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, template=template, verbalizer=verbalizer, name=name, **kwargs)


class Gap(ClassificationGap):
    """The gap, and a share of it for nothing.

    Args:
        bonus: That share.
    """

    def __init__(self, bonus: Annotated[Share, Symbol("b")] = 0.1) -> None:
        super().__init__(right=200.0 * (1 + bonus))
        self.bonus = bonus


class Confidence(EvaluationCallback):
    """Logs how sure the answers are, as a share."""

    def begin(self, trainer: Any, tuner: Any, stage: Any) -> None:
        self._mean = MeanMetric().to(tuner.device)

    def measure(self, tuner: Any, outputs: Any, batch: Any) -> None:
        self._mean.update(outputs["logits"].softmax(-1).amax(-1))

    def values(self, trainer: Any, tuner: Any) -> Any:
        return {"confidence": self._mean.compute()}
'''


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder with the user's module, which Python has not been told of."""
    (tmp_path / "mine.py").write_text(MINE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    sys.modules.pop("mine", None)


@pytest.fixture
def options(lm_folder: Path, review_folder: Path) -> list[str]:
    return [
        *("--data", "mine.Reviews", "--lm.name", str(lm_folder)),
        *("--data.path", str(review_folder), "--data.batch_size", "8"),
        *("--trainer.max_steps", "2", "--trainer.val_check_interval", "2"),
        *("--trainer.callbacks+", "mine.Confidence"),
        *("--trainer.enable_progress_bar", "false", "--trainer.precision", "32-true"),
    ]


def said(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    """What a mistake ends with."""
    with pytest.raises(SystemExit) as stop:
        main(["fit", *args])
    assert stop.value.code == 2
    return capsys.readouterr().err.strip().splitlines()[-1]


@pytest.mark.usefixtures("folder")
def test_help_shows_own_options_with_their_ranges(capsys: pytest.CaptureFixture[str]):
    for flag, name, shown in (
        ("--model.help", "mine.Noisy", "float (from 0 to 1, \u03c3 in reports), default: 0.5"),
        ("--model.reward.help", "mine.Gap", "float (from 0 to 1, b in reports), default: 0.1"),
        ("--data.help", "mine.Reviews", "default: my_reviews"),
    ):
        with pytest.raises(SystemExit) as stop:
            main(["fit", *(["--model", "RLPrompt"] if "reward" in flag else []), flag, name])
        assert stop.value.code == 0
        assert shown in " ".join(capsys.readouterr().out.split())


@pytest.mark.usefixtures("folder")
def test_mistakes_name_own_options(options: list[str], capsys: pytest.CaptureFixture[str]):
    noisy = ["--model", "mine.Noisy", "--model.prompt_length", "3", *options]
    expected = "--model.strength is 2.0; give a number from 0 to 1."
    assert said(capsys, *noisy, "--model.strength", "2") == expected
    near = said(capsys, *noisy, "--model.strenght", "1")
    assert "did you mean --model.strength?" in near
    gap = ["--model", "RLPrompt", "--model.reward", "mine.Gap", *options]
    assert said(capsys, *gap, "--model.reward.bonus", "-1").startswith("--model.reward.bonus is -1")


@pytest.mark.usefixtures("folder")
def test_a_run_of_each_and_their_report(options: list[str]):
    noisy = ["--model", "mine.Noisy", "--model.prompt_length", "3", *options]
    for strength in ("0.25", "0.75"):
        main(["fit", *noisy, "--model.strength", strength], show=False)
    main(
        [
            *("fit", "--model", "RLPrompt", "--model.reward", "mine.Gap"),
            *("--model.policy.mlp_size", "16", "--model.prompts_per_step", "2", *options),
        ],
        show=False,
    )
    written = json.loads(Path("logs/noisy-my_reviews/version_0/prompt.json").read_text())
    assert written["label"] == "Noisy prompt"
    assert written["symbols"]["model.strength"] == "\u03c3"
    assert 0.5 <= written["metrics"]["val/confidence"] <= 1
    searched = json.loads(Path("logs/rlprompt-my_reviews/version_0/prompt.json").read_text())
    assert searched["symbols"]["model.reward.bonus"] == "b"

    sys.modules.pop("mine")
    Path("mine.py").unlink()  # a report needs no code of the user's
    main(["report", "logs", "--output", "report"])
    page = Path("report/report.html").read_text(encoding="utf-8")
    for text in ("Noisy prompt, \u03c3 = 0.25", "Noisy prompt, \u03c3 = 0.75", "my_reviews"):
        assert text in page
    rows = list(csv.DictReader(Path("report/results.csv").read_text("utf-8").splitlines()))
    assert all(0.5 <= float(row["val/confidence"]) <= 1 for row in rows)
    assert {row["tuner"] for row in rows} == {"Noisy", "RLPrompt"}


def study(options: list[str], **chosen: object) -> str:
    """A study's file: the two strengths of one tuner."""
    flags = dict(zip(options[::2], options[1::2], strict=True))
    given = {flag.removeprefix("--"): value for flag, value in flags.items() if "+" not in flag}
    Path("own.yaml").write_text(
        yaml.safe_dump(
            {
                "model": "mine.Noisy",
                "data": given.pop("data"),
                "trainer": {"callbacks": [{"class_path": "mine.Confidence"}]},
            }
        )
    )
    content = {
        "study": {"name": "own", "seeds": [0], "test": False},
        "base": ["own.yaml"],
        "set": {**given, "model.prompt_length": 3, **chosen},
        "variants": {"noisy": {"space": {"model.strength": [0.25, 0.75]}}},
    }
    Path("study.yaml").write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return "study.yaml"


@pytest.mark.usefixtures("folder")
def test_a_study_looks_for_models_where_their_types_say(
    options: list[str], capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit) as stop:
        main(["study", "--config", study(options, **{"model.helper": "./no_such_model"})])
    assert stop.value.code == 2
    assert "--model.helper './no_such_model': no such folder" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.usefixtures("folder")
def test_a_study_of_two_runs_and_its_report(options: list[str]):
    main(["study", "--config", study(options)])
    main(["report", "logs/studies/own", "--output", "report"])
    page = Path("report/report.html").read_text(encoding="utf-8")
    assert "Noisy prompt, \u03c3 = 0.25" in page
    assert "Noisy prompt, \u03c3 = 0.75" in page
