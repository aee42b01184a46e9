"""A fit that ends before its limits says who ended it, and goes no further when it is resumed."""

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EarlyStopping, Timer

from lightning_prompts.cli.app import PromptCLI
from lightning_prompts.cli.main import main
from tests.resuming import Stop, last

RUN = Path("logs/soft-demo/version_0")
CONFIG = str(RUN / "config.yaml")


class Asks(Callback):
    """Asks the trainer to stop after a step."""

    def on_train_batch_end(self, trainer, *args):
        trainer.should_stop = trainer.global_step == 3


class Late(Callback):
    """Lets a timer believe that a hundred seconds have passed after a step."""

    def on_train_batch_start(self, trainer, *args):
        if trainer.global_step == 2:
            (timer,) = (each for each in trainer.callbacks if isinstance(each, Timer))
            timer._offset = 100


@pytest.fixture
def fit(lm_folder: Path, review_folder: Path, tmp_path: Path, monkeypatch, capsys):
    """Begins a run of 3 steps an epoch in an empty folder, or goes on with it; gives what it said.

    Without a language model's name it goes on.
    """
    monkeypatch.chdir(tmp_path)
    options = [
        *("--config", "configs/tuner/soft.yaml", "--config", "configs/task/demo.yaml"),
        *("--lm.name", str(lm_folder), "--data.path", str(review_folder)),
        *("--data.batch_size", "8", "--trainer.max_steps", "40"),
        *("--trainer.val_check_interval", "2", "--trainer.enable_progress_bar", "false"),
    ]

    said: list[str] = []

    def run(*args: str, own: Callback | None = None, resume: bool = False) -> str:
        begin = ["--config", CONFIG, "--ckpt_path", "last"] if resume else options
        cli = main(["fit", *begin, *args], run=False)
        assert isinstance(cli, PromptCLI)
        if own is not None:
            cli.trainer.callbacks.insert(0, own)
        cli.start()
        said.append(capsys.readouterr().out)
        return " ".join(said[-1].split())

    run.said = said  # type: ignore[attr-defined]
    return run


def impatient(path: Path, **options: Any) -> str:
    """Writes a configuration with an `EarlyStopping` that nothing is good enough for."""
    stop = {"monitor": "val/loss", "patience": 1, "min_delta": 10.0, **options}
    name = f"{EarlyStopping.__module__}.{EarlyStopping.__name__}"
    callbacks = [{"class_path": name, "init_args": stop}]
    path.write_text(yaml.safe_dump({"trainer": {"callbacks": callbacks}}))
    return str(path)


def waited() -> int:
    """Checks without an improvement that last.ckpt knows of."""
    (state,) = (s for k, s in last(RUN)["callbacks"].items() if k.startswith("EarlyStopping"))
    return int(state["wait_count"])


def test_early_stopping_ends_a_run_for_good(fit):
    said = fit("--config", impatient(Path("stop.yaml")))
    cause = "EarlyStopping saw val/loss get no better than"
    assert f"Ended early, at step 4 of 40: {cause}" in said
    assert "by more than 10 in 1 check (patience 1); to go on, raise EarlyStopping's" in said
    assert (last(RUN)["global_step"], waited()) == (4, 1)
    for _ in range(2):
        said = fit(resume=True)
        assert f"Nothing was trained, still at step 4 of 40: {cause}" in said
        assert (last(RUN)["global_step"], waited()) == (4, 1)
    # Lightning alone would take the patience of the checkpoint.
    content = yaml.safe_load(Path(CONFIG).read_text())
    content["trainer"]["callbacks"][0]["init_args"]["patience"] = 3
    Path(CONFIG).write_text(yaml.safe_dump(content))
    said = fit(resume=True)
    assert f"Ended early, at step 8 of 40: {cause}" in said
    assert "in 3 checks (patience 3)" in said
    assert last(RUN)["global_step"] == 8


@pytest.mark.slow
def test_a_threshold_is_named_with_values_that_show_it(fit):
    given = impatient(Path("stop.yaml"), stopping_threshold=100.0, patience=9)
    said = fit("--config", given)
    value = json.loads((RUN / "prompt.json").read_text())["metrics"]["val/loss"]
    assert f"found val/loss, {value:.3g}, below its stopping_threshold 100;" in said
    assert "at step 2 of 40" in said
    assert "still at step 2 of 40: EarlyStopping found" in fit(resume=True)


@pytest.mark.slow
def test_a_callback_that_asks_is_named(fit):
    said = fit(own=Asks())
    assert "Ended early, at step 3 of 40: Asks asked the trainer to stop (should_stop);" in said
    fit("--trainer.max_steps", "5", resume=True)  # it is gone
    assert last(RUN)["global_step"] == 5


def test_epochs_are_a_limit(fit):
    said = fit("--trainer.max_epochs", "1")
    assert "Ended at step 3 of 40, after the 1 epoch of --trainer.max_epochs; to go on" in said
    assert "raise --trainer.max_steps" not in said
    fix = "the checkpoint is at step 3 and --trainer.max_epochs is 1; raise it to go on."
    assert f"Nothing left to train: {fix}" in fit(resume=True)
    assert last(RUN)["global_step"] == 3
    said = fit("--trainer.max_epochs", "2", "--trainer.max_steps", "-1", resume=True)
    assert "Ended" not in said
    assert last(RUN)["global_step"] == 6


@pytest.mark.slow
@pytest.mark.parametrize(("interval", "step"), [(2, 1), (2, 3), (5, 3), (5, 6)])
def test_a_stopped_run_of_epochs_makes_all_its_steps(fit, step: int, interval: int, capsys):
    """Lightning alone makes 4, 5, 7 or 9 of the 6."""
    epochs = ("--trainer.max_steps", "-1", "--trainer.max_epochs", "2")
    with pytest.raises(SystemExit):
        fit(*epochs, "--trainer.val_check_interval", str(interval), own=Stop(step))
    assert f"Stopped at step {step} of 6; to go on:" in " ".join(capsys.readouterr().out.split())
    for said in (None, "Nothing left to train: the checkpoint is at step 6"):
        assert (said or "") in fit(resume=True)
        assert last(RUN)["global_step"] == 6


@pytest.mark.slow
def test_a_run_without_an_end_has_no_length(fit, capsys):
    with pytest.raises(SystemExit):
        fit("--trainer.max_steps", "-1", "--trainer.max_epochs", "-1", own=Stop(2))
    assert "Stopped at step 2; to go on:" in " ".join(capsys.readouterr().out.split())


@pytest.mark.slow
def test_time_that_is_over_stays_over(fit):
    said = fit("--trainer.max_time", "00:00:01:30", own=Late())
    assert "Ended early, at step 3 of 40: its time, 0:01:30, was over; to go on, raise" in said
    assert "still at step 3 of 40: its time, 0:01:30, was over" in fit(resume=True)
    assert last(RUN)["global_step"] == 3
    fit("--trainer.max_time", "00:01:00:00", "--trainer.max_steps", "5", resume=True)
    assert last(RUN)["global_step"] == 5


@pytest.mark.slow
def test_early_stopping_at_the_end_of_an_epoch(fit):
    """The checkpoint comes before the check; Lightning resumes with the check, without a value."""
    every = ("--trainer.val_check_interval", "1.0", "--trainer.check_val_every_n_epoch", "1")
    said = fit("--config", impatient(Path("stop.yaml"), patience=2), *every)
    assert "Ended early, at step 9 of 40: EarlyStopping" in said
    for _ in range(2):
        assert "Nothing was trained, still at step 9 of 40" in fit(resume=True)
        assert (last(RUN)["global_step"], waited()) == (9, 1)


@pytest.mark.slow
def test_a_stop_at_an_epochs_end_loses_no_check(fit):
    class Signal(Callback):
        def on_validation_end(self, trainer, module):
            if trainer.global_step == 3:
                os.kill(os.getpid(), signal.SIGTERM)

    every = ("--trainer.val_check_interval", "1.0", "--trainer.check_val_every_n_epoch", "1")
    with pytest.raises(SystemExit):
        fit("--config", impatient(Path("stop.yaml"), patience=2), *every, own=Signal())
    assert last(RUN)["global_step"] in (3, 4)
    assert "Ended early, at step 9 of 40: EarlyStopping" in fit(resume=True)


@pytest.mark.slow
def test_the_command_that_goes_on_can_be_pasted(fit, tmp_path: Path):
    """A folder with a space and a quote in its name."""
    folder = "my runs/it's"
    fit("--trainer.logger.save_dir", folder, own=Asks())
    (line,) = (line for line in fit.said[-1].splitlines() if line.startswith("  lightning-prompts"))
    words = shlex.split(line)
    assert words[:2] == ["lightning-prompts", "fit"]
    assert f"{folder}/soft-demo/version_0/config.yaml" in words
    done = subprocess.run(
        [sys.executable, "-m", "lightning_prompts", *words[1:], "--trainer.max_steps", "4"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert last(Path(folder, "soft-demo/version_0"))["global_step"] == 4
