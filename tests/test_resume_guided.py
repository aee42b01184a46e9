"""A stopped guided search goes on bit by bit: beam, incumbent, prompts seen, and counters."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback

from lightning_prompts.cli import PromptCLI, main
from tests.test_resume_rlprompt import assert_same, last, logged

STEPS = 6  # validations at 4 and 6
FULL = Path("logs/full/version_0")


class Stop(Callback):
    """Sends this process SIGTERM after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer, *args):
        if trainer.global_step == self.step:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture(scope="module")
def fit(lm_folder: Path, review_folder: Path, tmp_path_factory: pytest.TempPathFactory):
    """Runs `fit` in a folder where one run has been left to its end."""
    options = [
        *("--config", "configs/tuner/guided_search.yaml", "--config", "configs/task/demo.yaml"),
        *("--lm.name", str(lm_folder), "--data.path", str(review_folder)),
        *("--data.template", "{text}{prompt}", "--data.batch_size", "8"),
        *("--model.prompt_length", "5", "--model.candidates", "16", "--model.race", "[2,4]"),
        *("--trainer.val_check_interval", "4", "--trainer.enable_progress_bar", "false"),
    ]

    def run(name: str, *args: str, run: bool = True) -> PromptCLI:
        own = ("--experiment", name, "--trainer.max_steps", str(STEPS))
        return main(["fit", *options, *own, *args], run=run, show=False)

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("guided"))
        run("full")
        yield run


def test_the_run_is_worth_resuming(fit):
    """The beam moves and lengths differ, or little would be tested."""
    content: dict[str, Any] = last(FULL)
    assert len(content["search"]["beam"]) == 4
    assert content["search"]["forward_tokens"] > 0
    assert (content["prompts"]["ids"] == -1).any()
    curves = logged(FULL)
    assert list(curves["train/objective"]) == list(range(STEPS))
    assert len(set(curves["train/objective"].values())) == STEPS
    assert list(curves["val/objective"]) == [4, 6]
    assert torch.equal(content["state_dict"]["idle"], torch.tensor(0.0))


@pytest.mark.parametrize("step", [2, 4, 5])
def test_a_signal(fit, step: int):
    cli = fit(f"signal-{step}", run=False)
    cli.trainer.callbacks.insert(0, Stop(step))
    with pytest.raises(SystemExit) as stopped:
        cli.start()
    assert stopped.value.code == 128 + signal.SIGTERM
    run = Path(f"logs/signal-{step}/version_0")
    assert last(run)["global_step"] == step
    main(["fit", "--config", str(run / "config.yaml"), "--ckpt_path", "last"], show=False)

    own, expected = last(run), last(FULL)
    assert own["global_step"] == STEPS
    for key in ("state_dict", "prompts", "search"):
        assert_same(own[key], expected[key], key)
    assert logged(run) == logged(FULL)
    for name in ("prompt.json", "prompts.jsonl"):
        assert (run / name).read_text() == (FULL / name).read_text()
