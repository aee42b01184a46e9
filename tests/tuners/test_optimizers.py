"""Every optimizer and every schedule does what its class does by hand, or is refused by name."""

import functools
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import transformers
from lightning.pytorch import Callback
from torch import nn
from torch.optim import lr_scheduler as schedules
from transformers import get_scheduler

from lightning_prompts.cli.app import PromptCLI
from lightning_prompts.cli.main import main
from tests.resuming import assert_same, last, logged

ROOT = Path(__file__).resolve().parents[2]
STEPS = 5
# What each class is given beside its defaults.
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "torch.optim.Adadelta": {},
    "torch.optim.Adafactor": {},
    "torch.optim.Adagrad": {},
    "torch.optim.Adam": {},
    "torch.optim.AdamW": {"lr": 0.02, "weight_decay": 0.3},
    "torch.optim.Adamax": {},
    "torch.optim.ASGD": {},
    "torch.optim.LBFGS": {"max_iter": 3},
    "torch.optim.Muon": {},
    "torch.optim.NAdam": {},
    "torch.optim.RAdam": {},
    "torch.optim.RMSprop": {},
    "torch.optim.Rprop": {},
    "torch.optim.SGD": {"lr": 0.1, "momentum": 0.9},
    "transformers.optimization.Adafactor": {},
}
SCHEDULES: dict[str, dict[str, Any]] = {
    "LambdaLR": {"lr_lambda": f"{__name__}.cosine"},
    "MultiplicativeLR": {"lr_lambda": f"{__name__}.cosine"},
    "StepLR": {"step_size": 2},
    "MultiStepLR": {"milestones": [1, 3]},
    "ConstantLR": {"total_iters": 2},
    "LinearLR": {"total_iters": 3},
    "ExponentialLR": {"gamma": 0.5},
    "CosineAnnealingLR": {"T_max": 4},
    "ReduceLROnPlateau": {"patience": 0, "threshold": 1.0},
    "CyclicLR": {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 2},
    "CosineAnnealingWarmRestarts": {"T_0": 2},
    "OneCycleLR": {"max_lr": 0.1, "total_steps": STEPS},
    "PolynomialLR": {"total_iters": 3, "power": 2.0},
}
# What each of them keeps in a checkpoint is a kind of its own.
RESUMED = {
    *("torch.optim.LBFGS", "torch.optim.Rprop", "torch.optim.Adafactor", "torch.optim.ASGD"),
    *("transformers.optimization.Adafactor", "CyclicLR", "OneCycleLR", "MultiStepLR", "LambdaLR"),
}
REFUSED = {"SparseAdam", "SequentialLR", "ChainedScheduler"}


def cosine(step: int) -> float:
    return math.cos(step)


WARM = {"class_path": "LinearLR", "init_args": {"start_factor": 0.1, "total_iters": 2}}
FALL = {"class_path": "ExponentialLR", "init_args": {"gamma": 0.5}}
warm = functools.partial(schedules.LinearLR, start_factor=0.1, total_iters=2)
fall = functools.partial(schedules.ExponentialLR, gamma=0.5)
LENGTHS = {"num_warmup_steps": 2, "num_training_steps": STEPS}


def spec(path: str, options: dict[str, Any]) -> dict[str, Any]:
    return {"class_path": path, "init_args": options}


class Record(Callback):
    """Keeps the batches, and of each step the rates, the momenta and the prompt that it leaves."""

    def __init__(self) -> None:
        self.batches: list[Any] = []
        self.groups: list[dict[str, Any]] = []
        self.prompts: list[torch.Tensor] = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.batches.append(batch)
        self.groups.append(group_of(trainer.optimizers[0]))

    def on_train_batch_end(self, trainer, pl_module, *args):
        self.prompts.append(pl_module.prompt.detach().clone())


def group_of(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    group = optimizer.param_groups[0]
    # Some rates are tensors, which schedules fill anew.
    rate = group["lr"] if group["lr"] is None else float(group["lr"])
    return {"lr": rate, "momentum": group.get("momentum"), "betas": group.get("betas")}


@pytest.fixture
def build(lm_folder: Path, review_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A fit without validations, whose gradients are not clipped."""
    monkeypatch.chdir(tmp_path)

    def run(optimizer: Any, schedule: Any = None, *args: str, run: bool = False) -> PromptCLI:
        return main(
            [
                *("fit", "--config", "configs/tuner/soft.yaml", "--model.prompt_length", "4"),
                *("--config", "configs/task/demo.yaml", "--lm.name", str(lm_folder)),
                *("--data.path", str(review_folder), "--data.batch_size", "8"),
                *("--trainer.max_steps", str(STEPS), "--trainer.limit_val_batches", "0"),
                *("--trainer.enable_progress_bar", "false", "--trainer.precision", "32-true"),
                *("--trainer.gradient_clip_val", "null"),
                *("--model.optimizer", json.dumps(optimizer)),
                *("--model.lr_scheduler", json.dumps(schedule), *args),
            ],
            run=run,
            show=False,
        )

    return run


def trained(cli: PromptCLI) -> tuple[torch.Tensor, Record]:
    """Run it; the prompt that it began with, and what came of it."""
    start = cli.model.prompt.detach().clone()
    cli.trainer.callbacks.insert(0, record := Record())
    cli.start()
    assert len(record.prompts) == STEPS
    return start, record


def by_hand(
    cli: PromptCLI,
    start: torch.Tensor,
    record: Record,
    optimizer: Callable[..., Any],
    schedule: Callable[..., Any] | None = None,
) -> None:
    """The same batches in a plain loop, with the classes themselves."""
    prompt = nn.Parameter(start)
    plain = optimizer([prompt])
    stepped = None if schedule is None else schedule(plain)
    for batch, group, expected in zip(record.batches, record.groups, record.prompts, strict=True):
        assert group_of(plain) == group

        @torch.enable_grad()  # which transformers' Adafactor leaves to it
        def closure(batch: Any = batch) -> torch.Tensor:
            plain.zero_grad()
            hidden = cli.model.answer_hidden(prompt, batch)
            loss = F.cross_entropy(cli.model.class_logits(hidden), batch["labels"])
            loss.backward()
            return loss

        plain.step(closure)
        if stepped is not None:
            stepped.step()
        torch.testing.assert_close(prompt.detach(), expected, rtol=1e-5, atol=1e-6)


def named(path: str) -> type:
    module, _, name = path.rpartition(".")
    return getattr(__import__(module, fromlist=[name]), name)


def by_class(path: str, options: dict[str, Any]) -> Callable[..., Any]:
    ready = {k: named(v) if k == "lr_lambda" else v for k, v in options.items()}
    return functools.partial(named(path), **ready)


# ---- all of them


def test_all_are_known():
    classes = {n for n in torch.optim.__all__ if isinstance(getattr(torch.optim, n), type)}
    known = {path.rpartition(".")[2] for path in OPTIMIZERS}
    assert classes - {"Optimizer"} - REFUSED <= known
    assert set(schedules.__all__) - {"LRScheduler"} - REFUSED == set(SCHEDULES)
    listed = (ROOT / "docs/optimizers.md").read_text()
    rows = set(re.findall(r"^\| `([\w.]+)`", listed, re.MULTILINE))
    assert {*known, *SCHEDULES, *REFUSED} <= {row.rpartition(".")[2] for row in rows}


@pytest.mark.slow
@pytest.mark.parametrize("path", OPTIMIZERS)
def test_an_optimizer_does_what_its_class_does(build, path: str):
    cli = build(spec(path, OPTIMIZERS[path]))
    start, record = trained(cli)
    by_hand(cli, start, record, by_class(path, OPTIMIZERS[path]))
    if path in RESUMED:
        goes_on(build, cli, spec(path, OPTIMIZERS[path]), None)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(SCHEDULES) - {"ReduceLROnPlateau"}))
def test_a_schedule_does_what_its_class_does(build, name: str):
    path, options = f"torch.optim.lr_scheduler.{name}", SCHEDULES[name]
    optimizer = spec("torch.optim.SGD", {"lr": 0.1, "momentum": 0.5})
    cli = build(optimizer, spec(path, options))
    start, record = trained(cli)
    made = by_class("torch.optim.SGD", optimizer["init_args"])
    by_hand(cli, start, record, made, by_class(path, options))
    if name in RESUMED:
        goes_on(build, cli, optimizer, spec(path, options))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (
            spec("SequentialSchedule", {"schedulers": [WARM, FALL], "milestones": [2]}),
            lambda o: schedules.SequentialLR(o, [warm(o), fall(o)], milestones=[2]),
        ),
        (
            spec("torch.optim.swa_utils.SWALR", {"swa_lr": 0.05, "anneal_epochs": 2}),
            functools.partial(torch.optim.swa_utils.SWALR, swa_lr=0.05, anneal_epochs=2),
        ),
        (
            spec("ChainedSchedule", {"schedulers": [WARM, FALL]}),
            lambda o: schedules.ChainedScheduler([warm(o), fall(o)], o),
        ),
        *(
            (
                spec("TransformersSchedule", {"name": name, **LENGTHS}),
                functools.partial(get_scheduler, name, **LENGTHS),
            )
            for name in ("linear", "cosine", "polynomial", "inverse_sqrt", "constant_with_warmup")
        ),
        (
            spec("transformers.optimization.AdafactorSchedule", {}),
            lambda o: transformers.optimization.AdafactorSchedule(o),
        ),
    ],
    ids=lambda part: str(part)[:80] if isinstance(part, dict) else "by hand",
)
def test_schedules_of_others_do_what_theirs_do(build, ours: Any, theirs: Any):
    optimizer = spec("torch.optim.SGD", {"lr": 0.1})
    if "Adafactor" in ours["class_path"]:
        optimizer = spec("transformers.optimization.Adafactor", {})
    cli = build(optimizer, ours)
    start, record = trained(cli)
    by_hand(cli, start, record, by_class(optimizer["class_path"], optimizer["init_args"]), theirs)
    goes_on(build, cli, optimizer, ours)


@pytest.mark.slow
@pytest.mark.parametrize(
    "path",
    ["torch.optim.lr_scheduler.ReduceLROnPlateau", "lightning.pytorch.cli.ReduceLROnPlateau"],
)
def test_a_plateau_is_of_validations(build, path: str):
    """The rates are those of the class by hand, on what was logged; after a resume, too."""
    options = {"patience": 0, "factor": 0.5, "threshold": 0.5}
    monitor = {"monitor": "val/hard_loss"} if "cli" in path else {}
    optimizer = spec("torch.optim.SGD", {"lr": 0.1})
    parts = optimizer, spec(path, {**options, **monitor})
    often = ("--trainer.limit_val_batches", "1.0", "--trainer.val_check_interval", "1")
    cli = build(*parts, *often)
    _, record = trained(cli)
    plain = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    stepped = schedules.ReduceLROnPlateau(plain, **options)
    values = logged(Path(cli.trainer.log_dir))[monitor.get("monitor", "val/objective")]
    for step, group in enumerate(record.groups):
        assert group["lr"] == plain.param_groups[0]["lr"]
        stepped.step(values[step + 1])
    assert len({group["lr"] for group in record.groups}) > 2
    goes_on(build, cli, *parts, *often)


def goes_on(build: Any, full: PromptCLI, *parts: Any) -> None:
    """A run of two steps that goes on to the end is the run that was not stopped."""
    build(*parts, "--experiment", "short", "--trainer.max_steps", "2", run=True)
    resume = ("--experiment", "short", "--ckpt_path", "last")
    build(*parts, *resume, run=True)
    own, expected = last(Path("logs/short/version_0")), last(Path(full.trainer.log_dir))
    for key in ("state_dict", "optimizer_states", "lr_schedulers"):
        assert_same(own[key], expected[key], key)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("optimizer", "schedule", "args", "message"),
    [
        ("SparseAdam", {}, (), "SparseAdam does not support dense gradients"),
        ("Adam", {"capturable": True}, (), "Adam: If capturable=True"),
        ("LBFGS", {}, ("--trainer.accumulate_grad_batches", "2"), "several times"),
        ("SGD", ("OneCycleLR", {"max_lr": 1.0, "total_steps": 3}), (), "ends after 3 steps but"),
        ("SGD", ("LambdaLR", {"lr_lambda": "math.cos"}), (), "cannot be saved in a checkpoint"),
        ("SGD", ("StepLR", {"step_size": 0}), (), "StepLR: integer modulo by zero"),
    ],
)
def test_what_does_not_fit_is_refused(build, optimizer, schedule, args, message, capsys):
    options = {"lr": 0.1} if isinstance(schedule, tuple) else schedule
    made = (
        spec(f"torch.optim.lr_scheduler.{schedule[0]}", schedule[1])
        if isinstance(schedule, tuple)
        else None
    )
    with pytest.raises(SystemExit) as refused:
        build(spec(f"torch.optim.{optimizer}", options), made, *args, run=True)
    assert refused.value.code == 2
    assert message in capsys.readouterr().err.strip().splitlines()[-1]
