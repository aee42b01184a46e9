"""With gradient accumulation nothing is saved within a step, whose gradient is in no checkpoint."""

import os
import signal
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback

from lightning_prompts.cli.app import PromptCLI
from lightning_prompts.cli.main import main
from tests.resuming import assert_same, last, logged

# Three batches an epoch, so that steps are of 2, 1, 2, 1 batches. Batches 4 and 8 are followed by a
# validation: the first within the third step, the other at the end of one (as is the last step).
STEPS = 7
FULL = Path("logs/full/version_0")
KEYS = ("state_dict", "optimizer_states", "lr_schedulers")


class StopAtBatch(Callback):
    """Sends this process a signal after the n-th batch, from 1."""

    def __init__(self, number: int, signum: int) -> None:
        self.left, self.signum = number, signum

    def on_train_batch_end(self, trainer, *args):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), self.signum)


class Saves(Callback):
    """Notes for every save of `last` how many batches of the step had been read."""

    def __init__(self) -> None:
        self.within: list[bool] = []

    def on_save_checkpoint(self, trainer, module, checkpoint):
        self.within.append(trainer.fit_loop._should_accumulate())


@pytest.fixture(scope="module")
def fit(lm_folder: Path, review_folder: Path, tmp_path_factory: pytest.TempPathFactory):
    options = [
        *("--config", "configs/tuner/soft.yaml", "--config", "configs/task/demo.yaml"),
        *("--lm.name", str(lm_folder), "--data.path", str(review_folder), "--data.batch_size", "8"),
        *("--trainer.accumulate_grad_batches", "2", "--trainer.max_steps", str(STEPS)),
        *("--trainer.val_check_interval", "4", "--trainer.log_every_n_steps", "1"),
        *("--trainer.enable_progress_bar", "false"),
    ]

    def run(name: str, *args: str, run: bool = True) -> PromptCLI:
        return main(["fit", *options, "--experiment", name, *args], run=run, show=False)

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("accumulation"))
        run("full")
        yield run


@pytest.mark.parametrize("batch", [1, 3, 4, 5, 7])
def test_a_signal_within_or_after_a_step(fit, batch: int):
    name = f"batch-{batch}"
    cli = fit(name, run=False)
    cli.trainer.callbacks.insert(0, StopAtBatch(batch, signal.SIGTERM))
    with pytest.raises(SystemExit) as stopped:
        cli.start()
    assert stopped.value.code == 128 + signal.SIGTERM
    run = Path(f"logs/{name}/version_0")
    # Batches 1 and 2 are the first step, 3 the second, 4 and 5 the third, 7 and 8 the fifth.
    assert last(run)["global_step"] == {1: 1, 3: 2, 4: 3, 5: 3, 7: 5}[batch]
    main(["fit", "--config", str(run / "config.yaml"), "--ckpt_path", "last"], show=False)
    for key in KEYS:
        assert_same(last(run)[key], last(FULL)[key], key)
    assert logged(run) == logged(FULL)


def test_last_is_saved_between_steps_alone(fit):
    cli = fit("saves", run=False)
    saves = Saves()
    cli.trainer.callbacks.append(saves)
    cli.start()
    # best.ckpt alone is written in the validation within a step; `last` then at the step's end.
    assert saves.within.count(True) == 1
    assert saves.within.count(False) >= 4
    assert logged(Path("logs/saves/version_0")) == logged(FULL)


def test_a_checkpoint_of_within_a_step_is_no_start(fit, capsys):
    fit("best")
    run = Path("logs/best/version_0")
    best = run / "checkpoints" / "best.ckpt"
    content = torch.load(best, weights_only=True)
    (state,) = (s for k, s in content["callbacks"].items() if k.startswith("LastPrompt"))
    state["within_step"] = True
    torch.save(content, best)
    capsys.readouterr()
    config = str(run / "config.yaml")
    with pytest.raises(SystemExit) as stopped:
        main(["fit", "--config", config, "--ckpt_path", "best"], show=False)
    assert stopped.value.code == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "within a step of several batches" in said
    main(["validate", "--config", config, "--ckpt_path", "best"], show=False)
