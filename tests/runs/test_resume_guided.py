"""A stopped guided search goes on bit by bit: beam, incumbent, prompts seen, and counters."""

from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_prompts.cli.app import PromptCLI
from lightning_prompts.cli.main import main
from tests.resuming import assert_resumes_after_a_signal, last, logged

STEPS = 6  # validations at 4 and 6
FULL = Path("logs/full/version_0")


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
    assert content["forward_tokens"] > 0
    assert (content["prompts"]["ids"] == -1).any()
    curves = logged(FULL)
    assert list(curves["train/objective"]) == list(range(STEPS))
    assert len(set(curves["train/objective"].values())) == STEPS
    assert list(curves["val/objective"]) == [4, 6]
    assert torch.equal(content["state_dict"]["idle"], torch.tensor(0.0))


@pytest.mark.parametrize("step", [2, 4, 5])
def test_a_signal(fit, step: int):
    assert last(FULL)["global_step"] == STEPS
    assert_resumes_after_a_signal(fit, step, FULL, ("state_dict", "prompts", "search"))
