"""best.ckpt and prompt.json are one prompt, last.ckpt is the last; neither holds the model."""

import json
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_prompts.callbacks.base import callback_of
from lightning_prompts.cli.app import PromptCLI
from lightning_prompts.cli.main import main
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.runs.best_prompt import BestPrompt, restore_prompt
from lightning_prompts.runs.history import read_history
from lightning_prompts.runs.last_prompt import LastPrompt
from lightning_prompts.runs.reading import read_run
from lightning_prompts.runs.results_of_test import Tested
from lightning_prompts.tasks.demo import Demo
from lightning_prompts.tuners import SoftPrompt


class Script(Callback):
    """Logs given values at successive validations, in place of what a prompt reaches."""

    def __init__(self, values: list[float], name: str = "val/scripted") -> None:
        self.values, self.name = values, name

    def on_validation_epoch_end(self, trainer, pl_module):
        pl_module.log(self.name, self.values[trainer.global_step - 1])


@pytest.fixture
def fit(lm_folder: Path, review_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Fits for a step per scripted value, a validation after each."""
    monkeypatch.chdir(tmp_path)

    def run(values: list[float], *args: str) -> PromptCLI:
        cli = main(
            [
                *("fit", "--config", "configs/tuner/soft.yaml", "--data", "Demo"),
                *("--lm.name", str(lm_folder), "--data.path", str(review_folder)),
                *("--trainer.max_steps", str(len(values)), "--trainer.val_check_interval", "1"),
                *("--checkpoint.monitor", "val/scripted", "--trainer.enable_progress_bar=false"),
                *args,
            ],
            run=False,
        )
        cli.trainer.callbacks.insert(0, Script(values))
        cli.shows = False
        cli.start()
        return cli

    return run


def best(run: str | Path = "logs/soft-demo/version_0") -> tuple[dict, dict]:
    """A run's prompt.json and best.ckpt."""
    run = Path(run)
    checkpoint = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    return json.loads((run / "prompt.json").read_text()), checkpoint


@pytest.mark.parametrize(
    ("values", "mode", "step"),
    [
        ([3.0, 1.0, 2.0], "min", 2),
        ([3.0, 1.0, 1.0], "min", 2),  # a tie goes to the earlier
        ([3.0, 1.0, 2.0], "max", 1),
        ([1.0, 1.0, 2.0], "max", 3),
    ],
)
def test_the_best_is_kept_and_described(fit, values: list[float], mode: str, step: int):
    cli = fit(values, "--checkpoint.mode", mode)
    described, saved = best()
    assert described["step"] == saved["global_step"] == step
    assert described["metrics"]["val/scripted"] == values[step - 1]
    assert described["ids"] == saved["lightning_prompts"]["ids"]
    assert torch.equal(cli.model.prompt.detach(), saved["state_dict"]["prompt"])
    folder = Path("logs/soft-demo/version_0")
    assert sorted(p.name for p in (folder / "checkpoints").iterdir()) == [
        *("best.ckpt", "last.ckpt", "previous.ckpt")
    ]
    last = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == 3
    assert callback_of(cli.trainer, BestPrompt).history == [
        [i + 1, v] for i, v in enumerate(values)
    ]


def test_a_resumed_run_remembers_the_best(fit):
    fit([1.0, 3.0])
    cli = fit([1.0, 3.0, 2.0], "--ckpt_path", "last")
    described, saved = best()
    assert described["step"] == saved["global_step"] == 1
    assert callback_of(cli.trainer, BestPrompt).history == [[1, 1.0], [2, 3.0], [3, 2.0]]
    fit([1.0, 3.0, 2.0, 0.5], "--ckpt_path", "last")
    described, saved = best()
    assert described["step"] == saved["global_step"] == 4


def test_the_order_of_the_two_does_not_matter(fit):
    """last.ckpt carries the state of the best, and so is written behind it."""
    cli = fit([1.0, 3.0])
    given = cli.trainer.callbacks
    last = callback_of(cli.trainer, LastPrompt)
    cli.trainer.callbacks = [last, *(each for each in given if each is not last)]
    last.setup(cli.trainer, cli.model, "fit")
    assert cli.trainer.callbacks == [*(each for each in given if each is not last), last]


def test_a_run_without_baselines_is_described_all_the_same(lm_folder, review_folder, tmp_path):
    """From Python, beside nothing but what saves it."""
    lm = FrozenLM(str(lm_folder))
    words = {"negative": " terrible", "positive": " great"}
    task = Demo(lm, "{prompt} {text} It was", words, path=str(review_folder))
    tuner = SoftPrompt(lm, task.template, task.verbalizer, prompt_length=3)
    options = {"accelerator": "cpu", "max_steps": 2, "default_root_dir": tmp_path, "logger": False}
    options |= {"enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(**options, callbacks=[BestPrompt(), Tested()], num_sanity_val_steps=0)
    trainer.fit(tuner, task)
    trainer.test(tuner, task, ckpt_path="best", verbose=False)
    (folder,) = (path.parent for path in tmp_path.rglob("prompt.json"))
    described, tested = (json.loads((folder / f"{n}.json").read_text()) for n in ("prompt", "test"))
    assert "baselines" not in described
    assert described["step"] == tested["step"] == 2
    # With another trainer, which has made no step.
    other = Trainer(**options, callbacks=[Tested()])
    other.test(tuner, task, ckpt_path=trainer.checkpoint_callback.best_model_path, verbose=False)
    assert json.loads((folder / "test.json").read_text())["step"] == 2
    assert read_run(folder).metrics["test/accuracy"] == tested["metrics"]["test/accuracy"]


def test_another_monitor_chooses_anew_when_resumed(fit):
    fit([1.0, 3.0])
    fit([0.0, 0.0, 9.0], "--ckpt_path", "last", "--checkpoint.monitor", "val/loss")
    described, saved = best()
    assert described["step"] == saved["global_step"] == 3
    assert described["metrics"]["val/scripted"] == 9.0


def test_a_moved_run_remembers_the_best(fit):
    fit([1.0, 3.0])
    Path("logs/soft-demo/version_0").rename("moved")
    fit([1.0, 3.0, 2.0], "--ckpt_path", "moved/checkpoints/last.ckpt")
    # `moved` is no name under logs/, but it is where the checkpoint lies.
    described, saved = best("moved")
    assert described["step"] == saved["global_step"] == 1
    assert not Path("logs/soft-demo/version_0").exists()


def test_metrics_of_skipped_validations_are_left_out(fit):
    fit([1.0, 3.0, 2.0], "--faithfulness.every_n_validations", "2")
    assert "val/hard_loss" in best()[0]["metrics"]
    fit([3.0, 1.0, 2.0], "--faithfulness.every_n_validations", "2")
    described, saved = best("logs/soft-demo/version_1")
    assert described["step"] == 2
    assert "val/loss" in described["metrics"]
    assert "val/hard_loss" not in described["metrics"]
    assert "val/hard_loss" not in saved["lightning_prompts"]["metrics"]


@pytest.mark.parametrize("tuner", ["SoftPrompt", "PEZ"])
def test_the_best_is_measured_on_all_rows_at_the_end(fit, tuner: str):
    part = ("--faithfulness.rows", "4", "--data.val_batch_size", "3", "--model", tuner)
    fit([3.0, 1.0, 2.0], *part)
    described, saved = best(run_of("version_0"))
    history = read_history(run_of("version_0"))
    compared = [validation.metrics["val/compared_rows"] for validation in history]
    assert compared == [4.0, 4.0, 10.0]  # of ten rows
    assert described["step"] == saved["global_step"] == 2
    assert described["metrics"]["val/compared_rows"] == 10.0
    partly, whole = history[1].metrics, described["metrics"]
    in_checkpoint = saved["lightning_prompts"]["metrics"]
    assert {name: in_checkpoint[name] for name in whole} == pytest.approx(whole)
    for name in ("accuracy", "loss", "perplexity", "scripted"):  # of all rows in both
        assert partly[f"val/{name}"] == whole[f"val/{name}"]
    assert partly["val/output_differential"] != whole["val/output_differential"]
    # What a run finds that measures all rows at each validation.
    fit([3.0, 1.0, 2.0], *part, "--faithfulness.rows", "null")
    other = best(run_of("version_1"))[0]
    assert whole == pytest.approx(other["metrics"], rel=1e-5, abs=1e-6)


def run_of(version: str) -> Path:
    (found,) = Path("logs").glob(f"*/{version}")
    return found


@pytest.mark.parametrize(
    "watcher",
    [
        ("--checkpoint.monitor", "val/hard_accuracy"),
        ("--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val/loss_differential"),
    ],
)
def test_what_decides_over_a_run_is_of_all_rows(fit, watcher: tuple[str, ...]):
    fit([3.0, 1.0], "--faithfulness.rows", "4", *watcher)
    history = read_history(run_of("version_0"))
    assert [validation.metrics["val/compared_rows"] for validation in history] == [10.0, 10.0]


def test_a_checkpoint_is_the_prompt_alone(fit, lm_folder: Path):
    fit([1.0], "--model.prompt_length", "100")
    for name in ("best", "last"):
        path = Path(f"logs/soft-demo/version_0/checkpoints/{name}.ckpt")
        content = torch.load(path, weights_only=True)
        assert set(content["state_dict"]) == {"prompt"}
        assert content["state_dict"]["prompt"].shape == (100, 16)
        assert set(content) == {
            *("state_dict", "optimizer_states", "lr_schedulers", "loops", "callbacks"),
            *("epoch", "global_step", "pytorch-lightning_version", "lightning_prompts"),
            "forward_tokens",
            "run",
        }
        (state,) = content["optimizer_states"][0]["state"].values()
        assert set(state) == {"step", "exp_avg", "exp_avg_sq"}
        # At GPT-2's width prompt and AdamW's two moments grow from 16 to 768 columns.
        grown = path.stat().st_size + 3 * 4 * 100 * (768 - 16)
        assert grown < 1.5e6


def test_load_prompt_takes_it_back(fit):
    cli = fit([1.0, 2.0])
    trained = cli.model.prompt.detach().clone()
    with torch.no_grad():
        cli.model.prompt.zero_()
    restore_prompt(cli.model, Path("logs/soft-demo/version_0/checkpoints/best.ckpt"))
    assert torch.equal(cli.model.prompt, trained)


def test_only_two_files_whatever_lightning_adds():
    """The section has the two options that mean something here."""
    import inspect

    assert set(inspect.signature(BestPrompt).parameters) == {"monitor", "mode"}
    assert issubclass(BestPrompt, ModelCheckpoint)
