"""A signal before or within a validation of many batches ends it soon, and nothing is lost."""

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback

from lightning_prompts.cli.app import PromptCLI
from lightning_prompts.cli.main import main
from tests.resuming import StopInValidation, assert_resumes_after_a_signal, last

STEPS = 8  # of 3 an epoch; validations of 5 batches at 6, which ends an epoch, and at 8, the end
FULL = Path("logs/full/version_0")
KEYS = {
    "soft": ("state_dict", "optimizer_states", "lr_schedulers"),
    "rlprompt": ("state_dict", "optimizer_states", "prompts"),
    "guided_search": ("state_dict", "prompts", "search"),
}


class Count(Callback):
    """Counts the batches of validations by their step."""

    def __init__(self) -> None:
        self.batches: dict[int, int] = {}

    def on_validation_batch_end(self, trainer, *args):
        step = trainer.global_step
        self.batches[step] = self.batches.get(step, 0) + 1


class StopInForward(Callback):
    """Sends SIGTERM at the first pass through the model in the validation at a step."""

    def __init__(self, step: int) -> None:
        self.step, self.sent = step, False

    def setup(self, trainer, module, stage):
        def send(*args):
            if trainer.validating and trainer.global_step == self.step and not self.sent:
                self.sent = True
                os.kill(os.getpid(), signal.SIGTERM)

        module.lm.model.transformer.register_forward_hook(send)


@pytest.fixture(scope="module", params=list(KEYS))
def fit(request, lm_folder: Path, review_folder: Path, tmp_path_factory: pytest.TempPathFactory):
    """Runs `fit` in a folder where one run has been left to its end."""
    options = [
        *("--config", f"configs/tuner/{request.param}.yaml", "--config", "configs/task/demo.yaml"),
        *("--lm.name", str(lm_folder), "--data.path", str(review_folder)),
        *("--data.template", "{text}{prompt}", "--data.batch_size", "8"),
        *("--data.val_batch_size", "2", "--trainer.max_steps", str(STEPS)),
        *("--trainer.val_check_interval", "6", "--trainer.log_every_n_steps", "1"),
        *("--trainer.enable_progress_bar", "false"),
    ]
    if request.param == "guided_search":
        options += ["--model.prompt_length", "3", "--model.candidates", "8", "--model.race", "[2]"]
    if request.param == "rlprompt":
        options += ["--model.policy.top_k", "3", "--model.policy.mlp_size", "16"]
        options += ["--model.prompts_per_step", "4", "--model.alpha", "0.2"]

    def run(name: str, *args: str, run: bool = True) -> PromptCLI:
        return main(["fit", *options, "--experiment", name, *args], run=run, show=False)

    run.keys = KEYS[request.param]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp(request.param))
        run("full")
        yield run


@pytest.mark.parametrize("step", [6, 8], ids=["at an epoch's end", "at the last step"])
def test_a_signal_before_a_validation(fit, step: int):
    assert_resumes_after_a_signal(fit, step, FULL, fit.keys)


@pytest.mark.parametrize("step", [6, 8], ids=["at an epoch's end", "at the last step"])
def test_a_signal_within_a_validation(fit, step: int):
    assert_resumes_after_a_signal(fit, step, FULL, fit.keys, StopInValidation(step, batch=1))


def test_a_signal_while_prompts_are_chosen(fit):
    """RLPrompt and guided search read the validation rows before the validation's first batch."""
    assert_resumes_after_a_signal(fit, 6, FULL, fit.keys, StopInForward(6))
    count, cli = Count(), fit("choice", run=False)
    cli.trainer.callbacks[:0] = [count, StopInForward(6)]
    with pytest.raises(SystemExit):
        cli.start()
    assert count.batches.get(6, 0) == (0 if "prompts" in fit.keys else 1)


def test_a_stop_does_not_wait_for_the_validation(fit):
    count, cli = Count(), fit("count", run=False)
    cli.trainer.callbacks[:0] = [count, StopInValidation(6, batch=1)]
    with pytest.raises(SystemExit):
        cli.start()
    assert count.batches == {6: 2}
    assert last(Path("logs/count/version_0"))["global_step"] == 6


def test_the_one_before_is_offered_and_gone_on_with(fit, capsys):
    """A damaged last.ckpt is named; the one before it leads to the same end."""
    fit("damaged")
    run = Path("logs/damaged/version_0")
    expected, path = last(run), run / "checkpoints" / "last.ckpt"
    described = json.loads((run / "prompt.json").read_text())
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    resume = ["fit", "--config", str(run / "config.yaml"), "--ckpt_path"]
    with pytest.raises(SystemExit) as stopped:
        main([*resume, "last"])
    assert stopped.value.code == 2
    said = " ".join(capsys.readouterr().err.split())
    assert (
        "last.ckpt: not a checkpoint that lightning-prompts saved, or damaged; go on from" in said
    )
    assert "previous.ckpt (step 8) with --ckpt_path previous." in said
    main([*resume, "previous"], show=False)
    own = last(run)
    for name, value in expected["state_dict"].items():
        assert torch.equal(own["state_dict"][name], value)
    assert json.loads((run / "prompt.json").read_text()) == described
