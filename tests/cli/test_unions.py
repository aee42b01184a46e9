"""An option's value is the same whichever library named its union of types first."""

import itertools
import os
import subprocess
import sys
import typing
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, Union

import pytest
import yaml
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.strategies import Strategy

from lightning_prompts.cli.parser import PromptParser
from lightning_prompts.cli.unions import narrowest_first

COMMAND = Path(sys.executable).with_name("lightning-prompts")


def union(*members: Any) -> Any:
    """A union of exactly this order, which typing's own constructors do not promise."""
    return type(Union[int, str])(Union, members)  # noqa: UP007


Swapped = union(float, int, type(None))


class Trained:
    """Stands for a class of a library whose unions another library named first."""

    def __init__(
        self, limit: Swapped = None, limits: dict[str, Swapped] | None = None, part: Any = None
    ) -> None:
        """Keep nothing."""


def parsed(*args: str, hint: Any = None) -> Any:
    parser = PromptParser()
    if hint is None:
        parser.add_class_arguments(Trained, "trained")
        parser.add_subclass_arguments(Trained, "inner")
        parser.add_argument("--config", action="config")
    else:
        parser.add_argument("--x", type=hint)
    return parser.parse_args(list(args))


@pytest.mark.parametrize(("given", "meant"), [("1", 1), ("1.0", 1.0), ("0.5", 0.5), ("1e3", 1e3)])
def test_a_swapped_union_reads_numbers_as_they_are_written(given, meant, tmp_path: Path):
    file = tmp_path / "a.yaml"
    file.write_text(
        f"trained: {{limit: {given}, limits: {{a: {given}}}}}\n"
        f"inner: {{class_path: {__name__}.Trained, init_args: {{limit: {given}}}}}\n"
    )
    by_flag = parsed(
        *("--trained.limit", given, "--trained.limits", f"{{a: {given}}}"),
        *("--inner", f"{__name__}.Trained", "--inner.limit", given),
    )
    for config in (by_flag, parsed("--config", str(file))):
        values = (config.trained.limit, config.trained.limits["a"], config.inner.init_args.limit)
        for value in values:
            assert (value, type(value)) == (meant, type(meant))


def test_no_order_of_a_union_changes_a_value():
    unions = [
        (int, float, type(None)),
        (int, float, str, timedelta, dict[str, int]),  # an interval between validations
        (list[int], str, int),  # devices
        (bool, Literal["warn"], type(None)),
        (Literal[64, 32, 16], Literal["16-mixed", "bf16-true"], Literal["64", "32", "16", "bf16"]),
        (str, Path),
        (str, Strategy),
    ]
    texts = ("1", "1.0", "0.5", "16", "true", "warn", "auto", "[0]", "a/b", "{hours: 1}")
    for members in unions:
        orders = list(itertools.permutations(members))
        for text in texts:
            found = set()
            for order in orders[:: max(1, len(orders) // 4)]:
                try:
                    found.add(repr(parsed(f"--x={text}", hint=union(*order)).x))
                except Exception as error:
                    found.add(type(error).__name__)
            assert len(found) == 1, (members, text, found)


def test_types_keep_what_no_order_changes():
    for hint in (int, list[str], Literal["b", 1, "a"], typing.Callable[[int], str], str | None):
        assert narrowest_first(hint) == hint
    assert str(narrowest_first(list[union(float, int)])) == "list[typing.Union[int, float]]"


def test_an_enums_default_is_the_text_that_it_is():
    parser = PromptParser()
    parser.add_class_arguments(Timer, "timer")
    config = parser.parse_args(["--timer.duration", "00:01:00:00"])
    assert yaml.safe_load(parser.dump(config))["timer"]["interval"] == "step"
    assert type(config.timer.interval) is str


OPTIONS = {  # two values of each: a whole number and another kind
    "limit_train_batches": (1, 1.0),
    "limit_val_batches": (1, 0.5),
    "limit_test_batches": (2, 1.0),
    "limit_predict_batches": (1, 1.0),
    "val_check_interval": (1, "00:00:01:00"),
    "gradient_clip_val": (1, 0.5),
    "devices": (1, "auto"),
    "precision": (64, "bf16-mixed"),
    "max_time": ("00:01:00:00", {"minutes": 2}),
    "deterministic": (True, "warn"),
    "accumulate_grad_batches": (1, 2),
    "num_sanity_val_steps": (0, 2),
    "log_every_n_steps": (1, 5),
}


@pytest.mark.slow
@pytest.mark.parametrize("which", [0, 1])
def test_the_command_means_what_a_plain_trainer_does(which: int, lm_folder: Path, tmp_path: Path):
    given = {name: values[which] for name, values in OPTIONS.items()}
    flags = [f"--trainer.{name}={value}" for name, value in given.items()]
    told = subprocess.run(
        [
            *(COMMAND, "fit", "--config", "configs/tuner/soft.yaml"),
            *("--config", "configs/task/demo.yaml", "--lm.name", str(lm_folder), *flags),
            "--print_config",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    read = {name: yaml.safe_load(told.stdout)["trainer"][name] for name in given}
    logged = {"logger": CSVLogger(tmp_path), "accelerator": "cpu", "check_val_every_n_epoch": None}
    ours, plain = Trainer(**read, **logged), Trainer(**given, **logged)
    for name, value in given.items():
        assert (read[name], type(read[name])) == (value, type(value)), name
        own, theirs = getattr(ours, name, None), getattr(plain, name, None)
        assert (own, type(own)) == (theirs, type(theirs)), name
    assert ours.num_devices == plain.num_devices


@pytest.mark.slow
@pytest.mark.parametrize(("limit", "rows"), [("1", 4), ("1.0", 10)])
def test_one_batch_is_one_batch_in_a_new_process(
    limit: str, rows: int, lm_folder: Path, review_folder: Path, tmp_path: Path
):
    module = [sys.executable, "-m", "lightning_prompts"]
    for command in [[COMMAND], module] if rows == 4 else [[COMMAND]]:
        said = subprocess.run(
            [
                *(*command, "validate", "--config", "configs/tuner/manual.yaml"),
                *("--config", "configs/task/demo.yaml", "--lm.name", str(lm_folder)),
                *("--data.path", str(review_folder), "--data.val_batch_size", "4"),
                *("--trainer.limit_val_batches", limit, "--trainer.precision", "32-true"),
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "COLUMNS": "200"},
        )
        words = " ".join(said.stdout.split())
        assert ("the longest 4 of 10 rows" in words) == (rows == 4), words
