"""Every stock callback, logger, profiler, plugin and flag works as documented, or is refused."""

import inspect
import json
import re
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch import Trainer, callbacks, loggers, plugins, profilers

from lightning_prompts.cli.app import PromptCLI
from lightning_prompts.cli.main import main
from lightning_prompts.cli.trainer_parts import ALONE, REFUSED, refuse_parts
from lightning_prompts.files.errors import PromptError

PAGE = Path(__file__).resolve().parents[2] / "docs" / "trainer.md"


@pytest.fixture
def options(lm_folder: Path, review_folder: Path) -> list[str]:
    """Of a short run on a few reviews; those given after them win."""
    return [
        *("--config", "configs/task/demo.yaml", "--lm.name", str(lm_folder)),
        *("--data.path", str(review_folder), "--data.batch_size", "8"),
        *("--data.val_batch_size", "4", "--trainer.max_steps", "4"),
        *("--trainer.val_check_interval", "2", "--trainer.precision", "32-true"),
        *("--trainer.enable_progress_bar", "false"),
    ]


@pytest.fixture
def run(options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Runs a command in an empty folder, with callbacks given by name and options."""
    monkeypatch.chdir(tmp_path)

    def command(
        *args: str, name: str = "fit", tuner: str = "soft", parts: dict | None = None
    ) -> PromptCLI:
        if parts is not None:
            listed = [{"class_path": key, "init_args": value} for key, value in parts.items()]
            Path("parts.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": listed}}))
            args = ("--config", "parts.yaml", *args)
        config = f"configs/tuner/{tuner}.yaml"
        return main([name, "--config", config, *options, *args], show=name != "fit")

    return command


def told(capsys: pytest.CaptureFixture[str]) -> str:
    """The last line of the error output."""
    return capsys.readouterr().err.strip().splitlines()[-1]


def rows(heading: str) -> dict[str, str]:
    """The table under a heading of the page: name to what is said of it."""
    section = PAGE.read_text().partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", section, re.MULTILINE))


@pytest.mark.parametrize(
    ("heading", "names"),
    [
        ("Callbacks", callbacks.__all__),
        ("Loggers", loggers.__all__),
        ("Profilers", profilers.__all__),
        ("Plugins", plugins.__all__),
        ("Options", [n for n in inspect.signature(Trainer.__init__).parameters if n != "self"]),
    ],
)
def test_the_page_knows_every_part(heading: str, names: list[str]):
    assert sorted(rows(heading)) == sorted(names)


def test_the_page_says_what_is_refused():
    said = {**rows("Callbacks"), **rows("Loggers"), **rows("Plugins")}
    refused = {name for name, text in said.items() if text.startswith("refused")}
    assert {*REFUSED, *ALONE} <= refused


@pytest.mark.parametrize(
    ("option", "value"),
    [("barebones", True), ("enable_checkpointing", False), ("model_registry", "a/b")],
)
def test_an_option_that_does_not_go_with_a_run_is_refused_by_name(option: str, value: object):
    with pytest.raises(PromptError, match=rf"^--trainer\.{option} [\w/]+: \w"):
        refuse_parts({option: value})
    refuse_parts({"barebones": False, "enable_checkpointing": True, "model_registry": None})


@pytest.mark.parametrize("name", [*REFUSED, *ALONE])
def test_a_part_that_does_not_go_with_a_run_is_refused_by_name(name: str):
    field, module = next(
        (field, module.__name__)
        for field, module in (("callbacks", callbacks), ("logger", loggers), ("plugins", plugins))
        if hasattr(module, name)
    )
    part = {"class_path": f"{module}.{name}", "init_args": {}}
    for value in (part, [part]):
        with pytest.raises(PromptError, match=rf"^--trainer\.{field} {name}: [^.]+\."):
            refuse_parts({field: value})
    refuse_parts({field: {"class_path": "lightning.pytorch.callbacks.Timer"}})


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("--trainer.callbacks", "BatchSizeFinder"), "callbacks BatchSizeFinder: what it finds"),
        (("--trainer.logger", "LitLogger"), "--trainer.logger LitLogger: Lightning's trainer"),
        (("--trainer.profiler", "xla"), "--trainer.profiler XLAProfiler: it needs a package"),
        (("--trainer.barebones", "true"), "--trainer.barebones true: it leaves out"),
    ],
)
def test_parts_are_refused_before_anything_is_built(run, given, words: str, capsys):
    with pytest.raises(SystemExit) as stop:
        run(*given)
    assert stop.value.code == 2
    assert words in told(capsys)
    assert not list(Path().iterdir())


@pytest.mark.parametrize(
    "name", ["WandbLogger", pytest.param("MLFlowLogger", marks=pytest.mark.slow)]
)
def test_a_logger_without_its_package_says_which(run, name: str, capsys):
    if find_spec(name.removesuffix("Logger").lower()):
        pytest.skip("its package is installed")
    with pytest.raises(SystemExit) as stop:
        run("--trainer.logger", name)
    assert stop.value.code == 2
    package = name.removesuffix("Logger").lower()
    said = told(capsys)
    assert said.startswith(f"--trainer: {name}: it needs a package that is not installed; ")
    assert f"pip install '{package}>=" in said


@pytest.mark.parametrize(
    "name",
    ["predict", *(pytest.param(name, marks=pytest.mark.slow) for name in ("validate", "test"))],
)
def test_a_rehearsal_writes_nothing(run, name: str, capsys):
    run("--trainer.fast_dev_run", "true", name=name, tuner="manual")
    assert not list(Path().iterdir())
    assert "fast_dev_run: every part ran, nothing was saved." in capsys.readouterr().err


@pytest.mark.slow
def test_a_rehearsal_leaves_the_files_of_a_run_alone(run):
    run("--trainer.max_steps", "2")
    config = "logs/soft-demo/version_0/config.yaml"
    for name in ("test", "predict"):
        main([name, "--config", config, "--ckpt_path", "best"], show=False)
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    for name in ("validate", "test", "predict"):
        rehearse = ("--ckpt_path", "best", "--trainer.fast_dev_run", "1")
        main([name, "--config", config, *rehearse], show=False)
    main(["fit", "--config", config, "--trainer.fast_dev_run", "1"], show=False)
    assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("given", "words"),
    [
        pytest.param(
            *(("--trainer.max_time", "00:00:00:00"), "No step was taken: its time"),
            marks=pytest.mark.slow,
        ),
        (("--trainer.limit_train_batches", "0"), "--trainer.limit_train_batches is 0"),
    ],
)
def test_no_step_is_no_success(run, given, words: str, capsys):
    with pytest.raises(SystemExit) as stop:
        run(*given)
    assert stop.value.code == 2
    assert words in told(capsys)


@pytest.mark.parametrize(
    ("name", "init"),
    [
        ("EarlyStopping", {"monitor": "val/acuracy"}),
        pytest.param(
            *("EarlyStopping", {"monitor": "val/acuracy", "check_on_train_epoch_end": True}),
            marks=pytest.mark.slow,
        ),
        pytest.param("ModelCheckpoint", {"monitor": "val/acuracy"}, marks=pytest.mark.slow),
    ],
)
def test_a_name_that_is_not_logged_gets_the_nearest_one(run, name: str, init: dict, capsys):
    with pytest.raises(SystemExit) as stop:
        run(parts={name: init})
    assert stop.value.code == 2
    said = told(capsys)
    start = f"--trainer.callbacks {name}: monitor val/acuracy is not logged (did you mean "
    assert said.startswith(f"{start}val/accuracy?); there are val/accuracy, ")
    assert "val/objective" in said


@pytest.mark.parametrize(
    "init", [{"every_n_train_steps": 1}, {"train_time_interval": "00:00:00:01"}]
)
def test_a_checkpoint_is_not_ranked_by_an_earlier_validation(run, init: dict, capsys):
    with pytest.raises(SystemExit) as stop:
        run(parts={"ModelCheckpoint": {"monitor": "val/loss", **init}})
    assert stop.value.code == 2
    said = told(capsys)
    assert said.startswith("--trainer.callbacks ModelCheckpoint: by steps or by time it would rank")


@pytest.mark.slow
def test_stock_callbacks_act_together_in_a_run(run):
    """Each in one run: what it is documented to do, and a configuration that can be read again."""
    cli = run(
        *("--trainer.log_every_n_steps", "1", "--trainer.logger", "CSVLogger"),
        parts={
            "Timer": {"duration": "00:01:00:00"},
            "LearningRateMonitor": {},
            "EarlyStopping": {"monitor": "val/accuracy", "mode": "max", "patience": 9},
            "GradientAccumulationScheduler": {"scheduling": {0: 1, 1: 2}},
            "ModelCheckpoint": {"every_n_train_steps": 1, "save_top_k": -1, "filename": "{step}"},
        },
    )
    folder = Path("logs/soft-demo/version_0")
    # Step 4 needs two batches, so that the second epoch has but one whole step.
    assert cli.trainer.accumulate_grad_batches == 2
    names = {path.name for path in (folder / "checkpoints").iterdir()}
    assert names == {f"step={n}.ckpt" for n in range(1, 5)} | {
        "best.ckpt",
        "last.ckpt",
        "previous.ckpt",
    }
    steps = {n: torch.load(folder / f"checkpoints/step={n}.ckpt") for n in range(1, 5)}
    assert {n: content["global_step"] for n, content in steps.items()} == {n: n for n in steps}
    logged = (folder / "metrics.csv").read_text().splitlines()[0].split(",")
    assert {"lr-AdamW", "val/accuracy"} <= set(logged)
    # Where it goes on, Timer's interval and all files are known again.
    config = str(folder / "config.yaml")
    main(["fit", "--config", config, "--ckpt_path", "last", "--trainer.max_steps", "5"], show=False)
    assert (folder / "checkpoints" / "step=5.ckpt").is_file()


@pytest.mark.slow
def test_a_run_goes_on_within_an_epoch_that_accumulates(run):
    """As if it had not been stopped: the scheduler acts only where an epoch begins."""
    steps = ("--model.lr_scheduler.total_steps", "8")
    parts = {"GradientAccumulationScheduler": {"scheduling": {0: 1, 1: 2}}}
    whole = run(*steps, "--trainer.max_steps", "6", "--experiment", "whole", parts=parts)
    run(*steps, "--experiment", "part", parts=parts)  # 4 steps: within the second epoch
    config = "logs/part/version_0/config.yaml"
    again = main(
        ["fit", "--config", config, "--ckpt_path", "last", "--trainer.max_steps", "6"], show=False
    )
    last = [
        torch.load(Path("logs", name, "version_0/checkpoints/last.ckpt"))["state_dict"]["prompt"]
        for name in ("whole", "part")
    ]
    assert torch.equal(*last)
    assert whole.trainer.global_step == again.trainer.global_step == 6


@pytest.mark.slow
@pytest.mark.parametrize("given", [{"filename": "best"}, {"save_last": True}])
def test_the_runs_own_checkpoints_are_not_written_over(run, given: dict, capsys):
    with pytest.raises(SystemExit) as stop:
        run(parts={"ModelCheckpoint": given})
    assert stop.value.code == 2
    assert "would write over the run's own" in told(capsys)


@pytest.mark.slow
def test_loggers_share_a_runs_folder(run):
    listed = [{"class_path": n, "init_args": {"save_dir": "logs"}} for n in LOGGERS]
    run("--trainer.logger", json.dumps(listed), "--trainer.max_steps", "1")
    (folder,) = Path("logs/soft-demo").iterdir()
    assert {"metrics.csv", "config.yaml", "checkpoints"} <= {path.name for path in folder.iterdir()}
    assert list(folder.glob("events.*"))


LOGGERS = [f"lightning.pytorch.loggers.{name}" for name in ("CSVLogger", "TensorBoardLogger")]


@pytest.mark.slow
def test_overfitting_takes_the_same_rows_in_every_epoch(run):
    cli = run("--trainer.overfit_batches", "1", "--trainer.max_steps", "1")
    loader = cli.datamodule.train_dataloader()
    epochs = []
    for epoch in range(3):
        loader._batches.sampler.set_epoch(epoch)
        epochs.append([batch["rows"].tolist() for batch in loader])
    assert epochs[0] == epochs[1] == epochs[2]
    assert len(epochs[0]) == 1
    # Lightning would put a loader of all rows in the place of one that it takes for a shuffle.
    assert cli.trainer.fit_loop.epoch_loop.val_loop._combined_loader is not None
    (val_loader,) = cli.trainer.fit_loop.epoch_loop.val_loop._combined_loader.flattened
    assert type(val_loader.sampler).__name__ == "LongestFirst"
