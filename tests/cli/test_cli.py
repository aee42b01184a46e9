"""The command line from fit to predict, in-process, on the tiny model."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
import yaml

import lightning_prompts.tasks
import lightning_prompts.tuners
from lightning_prompts.cli.app import PromptCLI
from lightning_prompts.cli.main import main
from lightning_prompts.files.amounts import NONE
from lightning_prompts.runs import folder as run_folder


@pytest.fixture
def options(lm_folder: Path, review_folder: Path) -> list[str]:
    """Of a short fit of the tiny model on a few reviews; those given after them win."""
    return [
        *("--config", "configs/task/demo.yaml", "--lm.name", str(lm_folder)),
        *("--data.path", str(review_folder), "--data.batch_size", "8"),
        *("--trainer.max_steps", "4", "--trainer.val_check_interval", "2"),
        *("--trainer.enable_progress_bar", "false", "--trainer.precision", "32-true"),
    ]


@pytest.fixture
def fit(options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Runs a command in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*args: str, tuner: str = "soft", command: str = "fit", run: bool = True) -> PromptCLI:
        return main([command, "--config", f"configs/tuner/{tuner}.yaml", *options, *args], run=run)

    return run


def read(run: str | Path) -> dict:
    """A run's prompt.json."""
    return json.loads((Path(run) / "prompt.json").read_text())


@pytest.mark.parametrize("tuner", ["soft", "pez", "manual"])
def test_validate_gives_the_metrics_of_fit(fit, tuner: str):
    fit(tuner=tuner)
    run, written = f"logs/{tuner}-demo/version_0", read(f"logs/{tuner}-demo/version_0")
    fit("--seed_everything", "7", tuner=tuner)  # newer, and another prompt
    again = main(["validate", "--config", f"{run}/config.yaml", "--ckpt_path", "best"])
    measured = {name: float(value) for name, value in again.trainer.callback_metrics.items()}
    assert measured == pytest.approx(written["metrics"], abs=1e-5)
    assert set(written["metrics"]) >= {"val/objective", "val/round_trip_accuracy", "val/perplexity"}
    assert Path(again.trainer.log_dir).resolve() == Path(run).resolve()
    assert read(run) == written


def test_fit_leaves_its_best_prompt(fit, capsys):
    cli = fit("--model.optimizer.lr", "0.3")
    written = read("logs/soft-demo/version_0")
    ids = cli.model.hard_prompt().tolist()
    assert written["ids"] == ids
    assert written["text"] == cli.model.lm.decode(ids) == "".join(written["tokens"])
    assert written["in_use"] == "vectors"
    assert written["template"] == "{prompt} {text} It was"
    assert written["verbalizer"] == {"negative": " terrible", "positive": " great"}
    assert written["lm"]["name"] == cli.model.lm.name
    assert written["versions"]["torch"] == torch.__version__
    assert set(written["baselines"]) == {"majority", "no prompt", "no prompt, calibrated"}
    saved = torch.load("logs/soft-demo/version_0/checkpoints/best.ckpt", weights_only=True)
    assert saved["global_step"] == written["step"]
    assert torch.equal(saved["state_dict"]["prompt"], cli.model.prompt.detach())
    said = capsys.readouterr()
    assert "SoftPrompt (10 vectors)" in said.out
    assert f"{written['metrics']['val/accuracy']:.3f}" in said.out
    assert repr(written["text"]) in said.out
    what, answers = said.err.splitlines()
    assert what == f"SoftPrompt on demo with {cli.model.lm.label} (cpu, 32-true)"
    assert answers == "answers: 'negative': ' terrible'; 'positive': ' great'"


def test_what_was_compared_on_fewer_rows_is_not_shown_beside_the_others(fit, capsys):
    fit("--faithfulness.max_batches", "1", "--data.val_batch_size", "4")
    said = " ".join(capsys.readouterr().out.split())
    assert f"its nearest tokens {NONE} {NONE} {NONE}" in said
    assert "tokenized anew" not in said
    assert "measured on 4 of the 10 rows alone (--faithfulness.rows and max_batches decide)" in said
    assert "val/hard_accuracy" in read("logs/soft-demo/version_0")["metrics"]


def test_commands_meet_in_one_run(fit, review_folder: Path, capsys):
    fit()
    run = Path("logs/soft-demo/version_0")
    for command in ("test", "predict"):
        capsys.readouterr()
        main([command, "--config", str(run / "config.yaml"), "--ckpt_path", "last"])
        said = capsys.readouterr()
        assert f"from {run}/checkpoints/last.ckpt (step 4)" in said.err
    assert f"Predictions: {run}/predictions.jsonl" in said.out
    assert [path.name for path in Path("logs/soft-demo").iterdir()] == ["version_0"]
    lines = (run / "predictions.jsonl").read_text().splitlines()
    predictions = [json.loads(line) for line in lines]
    rows = (review_folder / "test.jsonl").read_text().splitlines()
    assert [p["row"] for p in predictions] == list(range(len(rows)))
    for prediction in predictions:
        shares = prediction["probabilities"]
        assert sum(shares.values()) == pytest.approx(1.0)
        assert shares[prediction["label"]] == max(shares.values())


def test_evaluation_is_logged_at_the_prompts_step(fit):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    fit()
    run = Path("logs/soft-demo/version_0")
    main(["test", "--config", str(run / "config.yaml"), "--ckpt_path", "last"])
    newest = max(run.glob("events*"), key=lambda path: path.stat().st_mtime)
    events = EventAccumulator(str(newest))
    events.Reload()
    assert [event.step for event in events.Scalars("test/accuracy")] == [4]


def test_best_of_an_experiment_without_its_configuration(fit, capsys):
    fit("--experiment", "mine")
    fit("--experiment", "mine", "--seed_everything", "7")
    fit("--experiment", "other")
    capsys.readouterr()
    fit("--experiment", "mine", "--ckpt_path", "best", command="validate")
    assert "from logs/mine/version_1/checkpoints/best.ckpt" in capsys.readouterr().err


@pytest.mark.parametrize("path", ["my.reviews.csv", "my.reviews.jsonl.gz", "owner/reviews"])
def test_a_run_is_named_after_the_data(fit, path: str):
    words = "{a: ' bad', b: ' good'}"
    own = ("--data", "TextClassification", "--data.name=null", "--data.verbalizer", words)
    cli = fit(*own, "--data.path", path, run=False)
    assert cli.trainer.logger.name == f"soft-{cli.datamodule.slug}"


def test_a_learned_prompt_is_asked_for(fit, capsys):
    fit(tuner="manual", command="validate")  # a written one is its own
    assert "ManualPrompt" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        fit(command="validate")
    assert stop.value.code == 2
    assert "validate needs a learned prompt: give --ckpt_path" in capsys.readouterr().err


def test_a_run_that_cannot_be_written_is_measured_from_a_copy(fit, monkeypatch, capsys):
    fit()
    run = Path("logs/soft-demo/version_0")
    shutil.copy(run / "checkpoints/best.ckpt", "copy.ckpt")
    monkeypatch.setattr(
        run_folder,
        "_cause",
        lambda there: "its permissions forbid it" if there.samefile(run) else "",
    )
    args = ("validate", "--config", f"{run}/config.yaml", "--ckpt_path")
    with pytest.raises(SystemExit):
        main([*args, "best"])
    said = " ".join(capsys.readouterr().err.split())
    assert said.endswith(
        "to go on elsewhere, copy the checkpoint and give the copy with --ckpt_path."
    )
    main([*args, "copy.ckpt", "--trainer.logger.save_dir", "elsewhere"], show=False)
    assert list(Path("elsewhere").rglob("events.*"))


@pytest.mark.parametrize(
    ("option", "named"),
    [
        (("--data.template", "{text}{prompt}"), ("{prompt} {text} It was", "{text}{prompt}")),
        (("--data.verbalizer", "{negative: ' bad', positive: ' good'}"), ("terrible", "' bad'")),
        (("--model", "PEZ"), ("SoftPrompt", "PEZ")),
        (("--model.prompt_length", "4"), ("10", "4")),
    ],
)
def test_another_settings_checkpoint_is_refused(fit, option, named, capsys):
    fit()
    config = "logs/soft-demo/version_0/config.yaml"
    with pytest.raises(SystemExit) as stop:
        main(["validate", "--config", config, "--ckpt_path", "best", *option])
    assert stop.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert all(value in last for value in named)


def test_a_saved_configuration_is_a_new_start(fit):
    """It names neither run, checkpoint nor what follows from --seed_everything."""
    fit("--model.seed", "3")
    config = "logs/soft-demo/version_0/config.yaml"
    main(["fit", "--config", config, "--ckpt_path", "last", "--trainer.max_steps", "6"])
    saved = yaml.safe_load(Path(config).read_text())
    assert saved["trainer"]["max_steps"] == 6  # a resumed run replaces its own
    assert saved["trainer"]["precision"] == "32-true"
    assert "ckpt_path" not in saved
    assert "seed" not in saved["data"]["init_args"]
    assert saved["model"]["init_args"]["seed"] == 3
    assert "template" not in saved["model"]["init_args"]
    assert Path("logs/soft-demo").exists()
    assert not Path("logs/soft-demo/version_1").exists()
    cli = main(["fit", "--config", config, "--seed_everything", "5"], run=False)
    assert (cli.model.seed, cli.datamodule.seed) == (3, 5)
    assert cli.config.fit.ckpt_path is None
    assert cli.trainer.logger.version == 1


@pytest.mark.parametrize("logger", ["false", "lightning.pytorch.loggers.CSVLogger"])
def test_other_loggers_have_run_folders(fit, logger: str):
    more = ("--trainer.logger.save_dir", "logs") if logger != "false" else ()
    for _ in range(2):
        fit("--trainer.logger", logger, *more)
    for run in ("version_0", "version_1"):
        assert {path.name for path in Path("logs/soft-demo", run).iterdir()} >= {
            *("checkpoints", "config.yaml", "prompt.json")
        }
    config = "logs/soft-demo/version_0/config.yaml"
    before = [path.read_bytes() for path in Path("logs").rglob("metrics.csv")]
    main(["validate", "--config", config, "--ckpt_path", "best"])
    assert not Path("logs/soft-demo/version_2").exists()
    after = [path.read_bytes() for path in Path("logs").rglob("metrics.csv")]
    assert set(before) <= set(after)  # that logger empties a folder that it is pointed at again


def test_own_callbacks_keep_the_sections(fit):
    given = ("--trainer.callbacks", "lightning.pytorch.callbacks.Timer", "--scrutability.scorer=x")
    cli = fit(*given, run=False)
    names = {type(callback).__name__ for callback in cli.trainer.callbacks}
    assert names >= {"Timer", "Scrutability", "Faithfulness", "PromptText", "Baselines"}
    assert names >= {"BestPrompt", "LastPrompt", "Predictions"}
    kinds = [type(callback).__name__ for callback in cli.trainer.checkpoint_callbacks]
    assert kinds == ["BestPrompt", "LastPrompt"]  # last.ckpt knows what the best is


def test_a_long_interval_still_validates_at_the_end(fit):
    fit("--trainer.max_steps", "3", "--trainer.val_check_interval", "1000")
    assert read("logs/soft-demo/version_0")["step"] == 3


def test_a_run_without_validation_keeps_its_end(fit, capsys):
    fit("--trainer.limit_val_batches", "0")
    run = Path("logs/soft-demo/version_0")
    content = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert content["global_step"] == 4
    assert "No prompt was measured" in capsys.readouterr().out


def test_the_table_counts_the_rows_that_were_scored(fit, capsys):
    fit("--trainer.limit_val_batches", "2", "--data.val_batch_size", "4")
    assert "demo, validation, the longest 8 of 10 rows" in " ".join(capsys.readouterr().out.split())
    fit()
    assert "demo, validation, 10 rows" in capsys.readouterr().out


def test_progress_counts_the_steps_of_the_run(fit, capsys):
    fit("--trainer.enable_progress_bar", "true", "--trainer.max_steps", "5")
    err = capsys.readouterr().err
    assert "Training: 100%" in err
    assert "5/5" in err
    assert "Validating" in err
    fit("--trainer.fast_dev_run", "true")
    assert "nothing was saved" in capsys.readouterr().err


def test_a_printed_configuration_can_be_used(fit, capsys):
    with pytest.raises(SystemExit) as stop:
        fit("--print_config")
    assert not stop.value.code
    Path("mine.yaml").write_text(capsys.readouterr().out)
    cli = main(["fit", "--config", "mine.yaml", "--experiment", "mine"], run=False)
    assert cli.trainer.logger.log_dir == "logs/mine/version_0"


def test_a_tuner_and_a_task_are_one_file_each(options, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for package, name, source in (
        (
            lightning_prompts.tuners,
            "backwards",
            "from lightning_prompts.tuners.soft import SoftPrompt\n"
            "class Backwards(SoftPrompt):\n"
            "    slug = 'backwards'\n"
            "    def prompt_embeddings(self):\n"
            "        return self.prompt.flip(0)\n",
        ),
        (
            lightning_prompts.tasks,
            "mumbled",
            "from lightning_prompts.tasks.demo import Demo\nclass Mumbled(Demo):\n    pass\n",
        ),
    ):
        folder = tmp_path / package.__name__
        folder.mkdir()
        (folder / f"{name}.py").write_text(source)
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(folder)])
        monkeypatch.delitem(sys.modules, f"{package.__name__}.{name}", raising=False)
    Path("own.yaml").write_text("model: {class_path: Backwards, init_args: {prompt_length: 3}}")
    own = ("--config", "own.yaml", "--data", "Mumbled", "--data.name", "mumbled")
    main(["fit", *options, *own])
    assert read("logs/backwards-mumbled/version_0")["tuner"] == "Backwards"
