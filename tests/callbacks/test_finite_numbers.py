"""What is no number ends a run in a sentence, before it is saved."""

from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback

from lightning_prompts.callbacks.finite_numbers import FiniteNumbers
from lightning_prompts.cli.app import PromptCLI
from lightning_prompts.cli.main import main
from lightning_prompts.files.errors import PromptError
from lightning_prompts.files.option_names import speaking_flags

RUN = Path("logs/run/version_0")


class BadGradient(Callback):
    """Makes the gradient of a step NaN, and remembers the step's rows."""

    def __init__(self, step: int) -> None:
        self.step, self.rows = step, []
        self.steps = 0

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        self.steps += 1
        if trainer.global_step + 1 == self.step:
            self.rows += batch["rows"].tolist()

    def on_after_backward(self, trainer, module):
        if trainer.global_step + 1 == self.step:
            for parameter in module.parameters():
                if parameter.grad is not None:
                    parameter.grad[-1] = torch.nan


class BadModel(Callback):
    """Spoils the language model before a step, as a faulty device might."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer, module, *args):
        if trainer.global_step + 1 == self.step:
            module.lm.model.transformer.ln_f.weight.data.fill_(torch.nan)


class Late(FiniteNumbers):
    """Asks where a GPU would be asked."""

    def asks_at_once(self, trainer) -> bool:
        return False


@pytest.fixture
def fit(lm_folder: Path, review_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)

    def run(*args: str, tuner: str = "soft") -> PromptCLI:
        return main(
            [
                *("fit", "--config", f"configs/tuner/{tuner}.yaml"),
                *("--config", "configs/task/demo.yaml", "--experiment", "run"),
                *("--lm.name", str(lm_folder), "--data.path", str(review_folder)),
                *("--data.batch_size", "4", "--trainer.max_steps", "8"),
                *("--trainer.val_check_interval", "2", "--trainer.enable_progress_bar", "false"),
                *args,
            ],
            run=False,
        )

    return run


def said(cli: PromptCLI) -> str:
    """What is said of a run that ends with a mistake."""
    with pytest.raises(PromptError, match=r"lightning-prompts fit --config|no checkpoint") as error:
        cli.start()
    return str(error.value)


def saved(name: str = "last") -> dict:
    return torch.load(RUN / "checkpoints" / f"{name}.ckpt", weights_only=True)


@speaking_flags()
@pytest.mark.parametrize("late", [False, True], ids=["at once", "late"])
def test_a_gradient(fit, late: bool):
    cli, bad = fit("--trainer.log_every_n_steps", "2", "--trainer.val_check_interval", "4"), None
    bad = BadGradient(5)
    cli.trainer.callbacks.insert(0, bad)
    if late:
        places = [isinstance(each, FiniteNumbers) for each in cli.trainer.callbacks]
        cli.trainer.callbacks[places.index(True)] = Late()
    message = said(cli)
    rows = ", ".join(map(str, sorted(bad.rows)))
    assert message == (
        f"Step 5 gave numbers that are not finite: the gradient, on the training rows {rows} (from "
        "0); lower --model.optimizer.lr, look at these rows, or compute in --trainer.precision "
        "32-true; the "
        f"last good checkpoint is {RUN}/checkpoints/last.ckpt (step 4); to go on from it: "
        f"lightning-prompts fit --config {RUN}/config.yaml --ckpt_path last"
    )
    assert bad.steps == (6 if late else 5)
    assert saved()["global_step"] == 4
    assert torch.equal(saved()["state_dict"]["prompt"], saved("best")["state_dict"]["prompt"])
    if not late:  # the step was not taken
        assert cli.model.prompt.isfinite().all()
    main(["fit", "--config", str(RUN / "config.yaml"), "--ckpt_path", "last"], show=False)
    assert saved()["global_step"] == 8


def test_a_run_that_logs_nothing_is_not_asked_at_each_step(fit):
    cli = fit("--trainer.log_every_n_steps", "0", "--trainer.val_check_interval", "4")
    bad = BadGradient(2)
    places = [isinstance(each, FiniteNumbers) for each in cli.trainer.callbacks]
    cli.trainer.callbacks[places.index(True)] = Late()
    cli.trainer.callbacks.insert(0, bad)
    message = said(cli)
    assert f"on the training rows {', '.join(map(str, sorted(bad.rows)))} (from 0)" in message
    assert bad.steps == 4  # asked before the validation


@pytest.mark.parametrize("every", ["2", "50"])
def test_rows_of_all_batches_of_a_step(fit, every: str):
    args = ("--trainer.accumulate_grad_batches", "2", "--trainer.log_every_n_steps", every)
    cli, bad = fit(*args), BadGradient(3)
    cli.trainer.callbacks.insert(0, bad)
    assert len(bad.rows) == 0
    message = said(cli)
    assert f"on the training rows {', '.join(map(str, sorted(bad.rows)))} (from 0)" in message
    assert len(bad.rows) == 8


@pytest.mark.parametrize(
    ("tuner", "args", "what"),
    [
        ("soft", (), "the loss and the gradient, on the"),
        (
            "soft",
            ("--model.perplexity_weight", "0.5"),
            "the task's loss, the log-perplexity, the loss and the gradient, on the",
        ),
        ("pez", (), "the loss and the gradient, on the"),
        (
            "rlprompt",
            ("--model.policy.mlp_size", "16", "--model.prompts_per_step", "4"),
            "the reward, the log-perplexity, the loss and the gradient, on the",
        ),
        ("guided_search", ("--model.prompt_length", "3", "--model.candidates", "4"), "the loss"),
    ],
)
def test_a_loss(fit, tuner: str, args: tuple[str, ...], what: str):
    cli = fit(*args, "--data.template", "{text}{prompt}", tuner=tuner)
    cli.trainer.callbacks.insert(0, BadModel(4))
    message = said(cli)
    assert message.startswith(f"Step 4 gave numbers that are not finite: {what}")
    assert "last.ckpt (step 2)" in message
    assert saved()["global_step"] == 2


def test_a_step_that_is_too_long(fit):
    cli = fit("--model.optimizer.lr", "1e36", "--model.lr_scheduler.warmup_steps", "0")
    message = said(cli)
    assert message.startswith("Step 2 gave numbers that are not finite: the loss and the gradient,")
    assert message.endswith("; no checkpoint was saved before.")
    assert not RUN.joinpath("checkpoints").exists()


class BadWeights(Callback):
    """Lets a step end in weights that are no numbers."""

    def on_train_batch_end(self, trainer, module, *args):
        if trainer.global_step == 4:
            module.prompt.data[0, 0] = torch.inf


def test_weights_are_not_saved(fit):
    cli = fit()
    cli.trainer.callbacks.insert(0, BadWeights())
    assert said(cli).startswith("Step 4 gave numbers that are not finite: the trained weights;")
    assert saved()["global_step"] == 2


@pytest.mark.parametrize("precision", ["16-mixed", "16-true"])
def test_float16_on_a_cpu(fit, capsys, precision: str):
    with pytest.raises(SystemExit) as stopped:
        fit("--trainer.precision", precision, "--trainer.accelerator", "cpu")
    assert stopped.value.code == 2
    assert f"--trainer.precision {precision} is for GPUs" in capsys.readouterr().err
