"""A stopped run goes on bit by bit as one that was never stopped."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback
from torch import Tensor

from lightning_prompts.cli.app import PromptCLI
from lightning_prompts.cli.main import main
from tests.patience import PATIENCE
from tests.resuming import logged

STEPS = 8  # of 3 an epoch, so that 3 and 6 end epochs; validations at 5 and 8
FULL = Path("logs/full/version_0")
RUN = Path("logs/soft-demo/version_0")


class Signal(Callback):
    """Sends this process a signal after a step, again after each later one."""

    def __init__(self, step: int, signum: int) -> None:
        self.step, self.signum = step, signum

    def on_train_batch_end(self, trainer, *args):
        if trainer.global_step == self.step:
            os.kill(os.getpid(), self.signum)


@pytest.fixture(scope="module")
def options(lm_folder: Path, review_folder: Path) -> list[str]:
    """Of runs whose schedule does not depend on their own length."""
    return [
        *("--config", "configs/task/demo.yaml", "--lm.name", str(lm_folder)),
        *("--data.path", str(review_folder), "--data.batch_size", "8"),
        *("--model.lr_scheduler.total_steps", str(STEPS), "--model.lr_scheduler.warmup_steps", "2"),
        *("--trainer.val_check_interval", "5", "--trainer.log_every_n_steps", "1"),
        *("--trainer.enable_progress_bar", "false"),
    ]


@pytest.fixture(scope="module", params=["soft", "pez"])
def fit(request, options: list[str], tmp_path_factory: pytest.TempPathFactory):
    """Runs `fit` in a folder where one run has been left to its end."""

    def run(name: str, *args: str, run: bool = True, steps: int = STEPS) -> PromptCLI:
        own = ("--experiment", name, "--trainer.max_steps", str(steps))
        tuner = ("--config", f"configs/tuner/{request.param}.yaml")
        return main(["fit", *tuner, *options, *own, *args], run=run, show=False)

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp(request.param))
        run("full")
        yield run


def stop(cli: PromptCLI, step: int, signum: int) -> int:
    """Run with a signal after a step; return the exit status."""
    cli.trainer.callbacks.insert(0, Signal(step, signum))
    with pytest.raises(SystemExit) as stopped:
        cli.start()
    return stopped.value.code


def state(run: Path, steps: int = STEPS) -> list[Tensor]:
    """Prompt and AdamW's state at the end of a run."""
    content = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert content["global_step"] == steps
    (moments,) = content["optimizer_states"][0]["state"].values()
    rate = content["optimizer_states"][0]["param_groups"][0]["lr"]
    return [content["state_dict"]["prompt"], *moments.values(), torch.tensor(rate)]


def assert_same(run: Path) -> None:
    """A run equals the one that was never stopped."""
    for own, expected in zip(state(run), state(FULL), strict=True):
        assert torch.equal(own, expected)
    expected = logged(FULL)
    own = {name: values for name, values in logged(run).items() if name in expected}
    # A run that was stopped by its length has one validation more, at its first end; the best may
    # be that one.
    assert {k: {s: v for s, v in own[k].items() if s in expected[k]} for k in expected} == expected


@pytest.mark.parametrize(
    ("step", "signum"),
    [(2, signal.SIGTERM), (3, signal.SIGINT), (5, signal.SIGTERM), (6, signal.SIGTERM)],
    ids=["mid-epoch", "epoch end", "at a validation", "epoch end after a validation"],
)
def test_a_signal(fit, step: int, signum: int):
    status = stop(fit(f"signal-{step}", run=False), step, signum)
    assert status == 128 + signum
    run = Path(f"logs/signal-{step}/version_0")
    content = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert content["global_step"] == step
    main(["fit", "--config", str(run / "config.yaml"), "--ckpt_path", "last"], show=False)
    assert_same(run)
    assert (run / "prompt.json").read_text() == (FULL / "prompt.json").read_text()


@pytest.mark.parametrize("step", [4, 6], ids=["mid-epoch", "epoch end"])
def test_a_smaller_number_of_steps(fit, step: int):
    fit(f"steps-{step}", steps=step)
    fit(f"steps-{step}", "--ckpt_path", "last")
    assert_same(Path(f"logs/steps-{step}/version_0"))


def test_a_stopped_run_shows_its_best(options: list[str], tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    args = ["fit", "--config", "configs/tuner/soft.yaml", *options, "--trainer.max_steps", "100"]
    stop(main(args, run=False), 6, signal.SIGINT)
    out = capsys.readouterr().out
    assert "SoftPrompt (10 vectors)" in out
    assert "Stopped at step 6 of 100; to go on:" in out
    run = "logs/soft-demo/version_0"
    assert f"  lightning-prompts fit --config {run}/config.yaml --ckpt_path last\n" in out
    assert any(Path(run).rglob("tensors.tsv"))  # TensorBoard's projector has it too
    stop(main(args, run=False), 1, signal.SIGINT)
    assert "No prompt was measured" in capsys.readouterr().out


def test_signals_act_as_before_afterwards(fit):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    stop(fit("handlers", run=False), 1, signal.SIGINT)
    main(["validate", "--config", str(FULL / "config.yaml"), "--ckpt_path", "last"], show=False)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_nothing_left_to_train(fit, capsys):
    main(["fit", "--config", str(FULL / "config.yaml"), "--ckpt_path", "last"])
    assert f"Nothing left to train: the checkpoint is at step {STEPS}" in capsys.readouterr().out
    assert (FULL / "prompt.json").is_file()


def start(folder: Path, options: list[str], steps: int) -> subprocess.Popen[str]:
    """A fit in a process of its own, which has just saved its first validation."""
    command = [sys.executable, "-m", "lightning_prompts", "fit", *options]
    process = subprocess.Popen(
        [*command, "--config", "configs/tuner/soft.yaml", "--trainer.max_steps", str(steps)],
        cwd=folder,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + PATIENCE
    while not (folder / RUN / "checkpoints" / "last.ckpt").exists():
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)
    return process


@pytest.mark.slow
@pytest.mark.parametrize("presses", [1, 2])
def test_ctrl_c_in_a_process(presses: int, options: list[str], tmp_path: Path):
    """Once: the step is finished and saved. Twice: at once, with what was saved before."""
    with start(tmp_path, options, steps=1_000_000) as process:
        for _ in range(presses):
            process.send_signal(signal.SIGINT)
            time.sleep(0.001)
        out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    if presses == 1:
        assert "Stopping after this step" in err
        assert "to go on:" in out
    last = torch.load(tmp_path / RUN / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] >= 5


@pytest.mark.slow
def test_sigterm_in_a_process(options: list[str], tmp_path: Path, monkeypatch):
    """Stopped at whatever step it had reached, then resumed in another process: this one."""
    steps = 150
    with start(tmp_path, options, steps) as process:
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 143, err
    monkeypatch.chdir(tmp_path)
    stopped = torch.load(RUN / "checkpoints" / "last.ckpt", weights_only=True)
    assert 5 <= stopped["global_step"] < steps
    main(["fit", "--config", str(RUN / "config.yaml"), "--ckpt_path", "last"], show=False)
    full = ("--config", "configs/tuner/soft.yaml", "--trainer.max_steps", str(steps))
    main(["fit", *options, *full, "--experiment", "full"], show=False)
    for own, expected in zip(state(RUN, steps), state(FULL, steps), strict=True):
        assert torch.equal(own, expected)
    assert logged(RUN) == logged(FULL)
