"""A checkpoint is gone on with by its own run; another one is refused, with both values."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lightning_prompts.cli.app import PromptCLI
from lightning_prompts.cli.main import main

RUN = Path("logs/soft-demo/version_0")
STEPS = 2


@pytest.fixture(scope="module")
def fit(lm_folder: Path, review_folder: Path, tmp_path_factory: pytest.TempPathFactory):
    """Goes on with a run of two steps, by its configuration and further options."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("same"))
        shutil.copytree(review_folder, "reviews")
        main(
            [
                *("fit", "--config", "configs/tuner/soft.yaml"),
                *("--config", "configs/task/demo.yaml", "--lm.name", str(lm_folder)),
                *("--data.path", "reviews", "--data.batch_size", "8"),
                *("--trainer.max_steps", str(STEPS), "--trainer.val_check_interval", "1"),
                *("--trainer.precision", "32-true", "--trainer.enable_progress_bar", "false"),
                *("--trainer.limit_val_batches", "1"),
            ],
            show=False,
        )

        def run(*args: str, checkpoint: str = "last", command: str = "fit") -> PromptCLI:
            given = [command, "--config", str(RUN / "config.yaml"), "--ckpt_path", checkpoint]
            return main([*given, *args], show=False)

        yield run


def refused(fit: Callable[..., PromptCLI], capsys, *args: str) -> str:
    """What is said to a run that is refused; it changes no file."""
    before = {path: path.read_bytes() for path in sorted(RUN.rglob("*")) if path.is_file()}
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        fit(*args)
    assert stopped.value.code == 2
    assert before == {path: path.read_bytes() for path in sorted(RUN.rglob("*")) if path.is_file()}
    return " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("option", "value", "then", "now"),
    [
        ("model.perplexity_weight", "0.5", "0.0", "0.5"),
        ("model.projection", "euclidean", "cosine", "euclidean"),
        ("model.exclude_special", "false", "True", "False"),
        ("model.seed", "3", "0", "3"),
        ("data.seed", "3", "0", "3"),
        ("seed_everything", "3", "0", "3"),
        ("model.optimizer.lr", "0.5", "0.01", "0.5"),
        ("model.optimizer", "torch.optim.SGD", "torch.optim.AdamW", "torch.optim.SGD"),
        ("model.lr_scheduler.warmup_steps", "3", "20", "3"),
        ("model.lr_scheduler.total_steps", "9", "null", "9"),
        ("model.init.top", "7", "5000", "7"),
        ("data.max_tokens", "40", "null", "40"),
        ("data.val_batch_size", "3", "64", "3"),  # of which one batch is validated
        ("lm.dtype", "bfloat16", "float32", "bfloat16"),
        ("trainer.accumulate_grad_batches", "2", "1", "2"),
        ("trainer.gradient_clip_val", "0.5", "1.0", "0.5"),
        ("trainer.precision", "64-true", "32-true", "64-true"),
        ("trainer.limit_train_batches", "1", "1.0", "1"),
    ],
)
def test_another_option(fit, capsys, option: str, value: str, then: str, now: str):
    said = refused(fit, capsys, f"--{option}", value)
    assert (
        f"The checkpoint's run has --{option} {then} but this one has --{option} {now}; give "
        f"--{option} as before, or start a new run without --ckpt_path." in said
    )


@pytest.mark.parametrize(
    ("args", "names"),
    [
        (("--data.template", "{text}{prompt}"), "template is '{prompt} {text} It was'"),
        (("--model.prompt_length", "3"), "prompt length is 10 but the configuration's is 3"),
        (("--data.verbalizer", '{"negative": " bad", "positive": " good"}'), "verbalizer is"),
    ],
)
def test_another_prompt(fit, capsys, args: tuple[str, ...], names: str):
    assert names in refused(fit, capsys, *args)


def test_other_rows_a_step(fit, capsys):
    said = refused(fit, capsys, "--data.batch_size", "4")
    assert "has 8 rows a step (--data.batch_size 8, processes: 1) but this one has 4 rows" in said


def test_other_rows(fit, capsys):
    said = refused(fit, capsys, "--data.shots", "4")
    assert "24 train rows (fingerprint " in said
    assert ", --data.shots null but this one has 8 train rows" in said
    assert "give --data.shots as before" in said
    said = refused(fit, capsys, "--data.validation_rows", "4")
    assert "10 validation rows" in said


def test_a_changed_file(fit, capsys):
    path = Path("reviews/train.jsonl")
    text = path.read_text()
    path.write_text(text.replace("warm", "cold"))
    try:
        said = refused(fit, capsys)
        assert "24 train rows (fingerprint " in said
        assert "put back the rows that it began with" in said
        # What measures a prompt does not train on them.
        fit(command="validate")
    finally:
        path.write_text(text)


def test_what_does_not_change_the_result(fit):
    shutil.copytree("reviews", "moved")
    rows = [json.loads(line) for line in Path("moved/train.jsonl").read_text().splitlines()]
    lines = [json.dumps({"more": 1, **row}) for row in rows]  # a column that nobody reads
    Path("moved/train.jsonl").write_text("\n".join(lines))
    cli = fit(
        *("--data.path", "moved", "--data.num_workers", "1"),
        *("--data.test_rows", "2", "--trainer.max_steps", "3", "--trainer.log_every_n_steps", "1"),
        *("--trainer.val_check_interval", "3", "--faithfulness.every_n_validations", "2"),
        # The same rows, however they are read.
        *("--data.encoding", "ascii", "--data.skip_bad_rows", "true", "--data.id_column", "more"),
    )
    assert cli.trainer.global_step == 3
    content = torch.load(RUN / "checkpoints" / "last.ckpt", weights_only=True)
    assert content["run"]["rows"]["train"][0] == 24


def test_batches_of_a_whole_validation_are_free(fit, lm_folder: Path):
    options = ["--config", "configs/tuner/soft.yaml", "--config", "configs/task/demo.yaml"]
    options += ["--lm.name", str(lm_folder), "--data.path", "reviews", "--data.batch_size", "8"]
    main(["fit", *options, "--trainer.max_steps", "1", "--experiment", "whole"], show=False)
    resume = ["fit", "--config", "logs/whole/version_0/config.yaml", "--ckpt_path", "last"]
    cli = main(
        [*resume, "--trainer.max_steps", "2", "--data.val_batch_size", "3"],
        show=False,
    )
    assert cli.trainer.global_step == 2


def test_a_first_prompt_may_have_been_moved(fit):
    shutil.copy(RUN / "prompt.json", "first.json")
    begins = ("--model.init", "FromCheckpoint", "--model.init.path")
    config = RUN / "config.yaml"
    main(["fit", "--config", str(config), "--experiment", "second", *begins, "first.json"])
    Path("first.json").rename("moved.json")
    config = Path("logs/second/version_0/config.yaml")
    more = ("--model.init.path", "moved.json", "--trainer.max_steps", "3")
    cli = main(["fit", "--config", str(config), "--ckpt_path", "last", *more])
    assert cli.trainer.global_step == 3


def test_what_lightning_keeps_as_an_enum_is_saved_as_a_text(fit):
    place = ("--experiment", "clipped", "--trainer.gradient_clip_algorithm", "value")
    args = ("fit", "--config", str(RUN / "config.yaml"), *place)
    main(list(args), show=False)
    # What is no plain text would be refused here, and with it every checkpoint of the run.
    last = Path("logs/clipped/version_0/checkpoints/last.ckpt")
    content = torch.load(last, weights_only=True)
    assert content["run"]["options"]["trainer"]["gradient_clip_algorithm"] == "value"


def test_a_checkpoint_of_an_older_version_is_taken(fit):
    path = RUN / "checkpoints" / "last.ckpt"
    content = torch.load(path, weights_only=True)
    del content["run"]
    torch.save(content, "older.ckpt")
    fit("--model.perplexity_weight", "0.5", checkpoint="older.ckpt")
