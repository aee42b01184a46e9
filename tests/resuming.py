"""What tests of stopped runs share: stopping one, going on with it, comparing to the last bit."""

import json
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_prompts.cli.app import PromptCLI
from lightning_prompts.cli.main import main


class Stop(Callback):
    """Sends this process SIGTERM after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer, *args):
        if trainer.global_step == self.step:
            os.kill(os.getpid(), signal.SIGTERM)


class StopInValidation(Callback):
    """Sends this process SIGTERM after a batch of the validation at a step."""

    def __init__(self, step: int, batch: int) -> None:
        self.step, self.batch = step, batch

    def on_validation_batch_end(self, trainer, module, outputs, batch, batch_idx, *args):
        if (trainer.global_step, batch_idx) == (self.step, self.batch):
            os.kill(os.getpid(), signal.SIGTERM)


def last(run: Path) -> dict[str, Any]:
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)


def logged(run: Path) -> dict[str, dict[int, float]]:
    """All values that a run's event files hold, by name and step."""
    found: dict[str, dict[int, float]] = {}
    for path in sorted(run.glob("events*"), key=lambda path: path.stat().st_mtime):
        events = EventAccumulator(str(path), size_guidance={"scalars": 0})
        events.Reload()
        for name in events.Tags()["scalars"]:
            for event in events.Scalars(name):
                found.setdefault(name, {})[event.step] = event.value
    return {k: v for k, v in found.items() if k.startswith(("train/", "val/"))}


def measured(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's history, without their time."""
    lines = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    seconds = [line.pop("seconds") for line in lines]
    assert seconds == sorted(seconds)
    return lines


def assert_same(own: Any, expected: Any, place: str = "") -> None:
    """Nested values equal, to the last bit."""
    assert type(own) is type(expected), place
    if isinstance(expected, torch.Tensor):
        # NaN where a prompt was validated and never written
        torch.testing.assert_close(own, expected, rtol=0, atol=0, equal_nan=True, msg=place)
    elif isinstance(expected, dict):
        assert list(own) == list(expected), place
        for key in expected:
            assert_same(own[key], expected[key], f"{place}/{key}")
    elif isinstance(expected, list):
        assert len(own) == len(expected), place
        for i, (a, b) in enumerate(zip(own, expected, strict=True)):
            assert_same(a, b, f"{place}/{i}")
    else:
        assert own == expected, place


def assert_resumes_after_a_signal(
    fit: Callable[..., PromptCLI],
    step: int,
    full: Path,
    keys: Sequence[str],
    stop: Callback | None = None,
) -> None:
    """A run that SIGTERM stopped after `step` ends as the run in `full`, which went through.

    Args:
        fit: Builds a run by its name.
        step: The last one before the signal.
        full: Folder of the uninterrupted run.
        keys: Of the checkpoint, to compare.
        stop: Sends the signal; by default after the training step itself.
    """
    name = f"signal-{step}" if stop is None else f"{type(stop).__name__}-{step}"
    cli = fit(name, run=False)
    cli.trainer.callbacks.insert(0, stop or Stop(step))
    with pytest.raises(SystemExit) as stopped:
        cli.start()
    assert stopped.value.code == 128 + signal.SIGTERM
    run = Path(f"logs/{name}/version_0")
    assert last(run)["global_step"] == step
    main(["fit", "--config", str(run / "config.yaml"), "--ckpt_path", "last"], show=False)

    own, expected = last(run), last(full)
    assert own["global_step"] == expected["global_step"]
    for key in keys:
        assert_same(own[key], expected[key], key)
    assert logged(run) == logged(full)
    assert measured(run) == measured(full)
    for name in ("prompt.json", "prompts.jsonl"):
        assert (run / name).is_file() == (full / name).is_file()
        if (full / name).is_file():
            assert (run / name).read_text() == (full / name).read_text()
