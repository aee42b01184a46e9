"""Whether Lightning still has what this package touches of its own, and still means the same.

Every test is a plain run of Lightning's own toy module; none of them knows a prompt.
"""

import ast
import inspect
import re
import signal
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, Timer, WeightAveraging
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins.environments import LightningEnvironment, SLURMEnvironment
from lightning.pytorch.utilities.exceptions import SIGTERMException

from lightning_prompts.files import lightning_internals as internals

PACKAGE = Path(internals.__file__).parents[1]


class Model(BoringModel):
    """Logs its loss at each step."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        outputs = super().training_step(batch, batch_idx)
        self.log("train/loss", outputs["loss"])
        return outputs


class Asks(Callback):
    """Keeps the answers to a question at each batch's end, and the steps of validations."""

    def __init__(self, question: Any) -> None:
        self.question, self.answers, self.validations = question, [], []

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        self.answers.append(self.question(trainer))

    def on_validation_end(self, trainer: Trainer, *args: Any) -> None:
        self.validations.append(trainer.global_step)


def quick_trainer(*callbacks: Callback, **options: Any) -> Trainer:
    """Four steps on the CPU with a validation after every second one."""
    return Trainer(
        **{
            **{"accelerator": "cpu", "devices": 1, "max_steps": 4, "val_check_interval": 2},
            **{"logger": False, "enable_checkpointing": False, "limit_val_batches": 1},
            **{"enable_progress_bar": False, "enable_model_summary": False},
            **{"num_sanity_val_steps": 0, **options},
        },
        callbacks=list(callbacks),
    )


def test_within_step():
    asks = Asks(internals.within_step)
    quick_trainer(asks, accumulate_grad_batches=2, max_steps=2).fit(Model())
    assert asks.answers == [True, False, True, False]


def test_step_metrics():
    losses = []

    def ask(trainer: Trainer) -> torch.Tensor:
        return internals.step_metrics(trainer)["train/loss"]

    class Validated(Callback):
        def on_validation_start(self, trainer: Trainer, *args: Any) -> None:
            losses.append(ask(trainer))

    asks = Asks(ask)
    quick_trainer(asks, Validated()).fit(Model())
    assert len(set(map(float, asks.answers))) == 4
    assert losses == [asks.answers[1], asks.answers[3]]  # still there in the validation


def test_number_logged_steps(tmp_path: Path):
    class Renumber(Callback):
        def on_train_batch_start(self, trainer: Trainer, *args: Any) -> None:
            internals.number_logged_steps(trainer, 100 + trainer.global_step)

    logger = CSVLogger(tmp_path, name="", version="")
    quick_trainer(Renumber(), logger=logger, log_every_n_steps=1).fit(Model())
    rows = (tmp_path / "metrics.csv").read_text().splitlines()
    place = rows[0].split(",").index("step")
    assert {"100", "101", "102", "103"} <= {row.split(",")[place] for row in rows[1:]}
    tester = quick_trainer(logger=CSVLogger(tmp_path / "test", name="", version=""))

    class Test(Model):
        def test_step(self, batch: Any, batch_idx: int) -> None:
            self.log("test/one", 1.0)

    internals.number_logged_steps(tester, 7)
    tester.test(Test(), verbose=False)
    rows = (tmp_path / "test" / "metrics.csv").read_text().splitlines()
    assert rows[1].split(",")[rows[0].split(",").index("step")] == "7"


def test_logged_step():
    asks = Asks(internals.logged_step)
    quick_trainer(asks).fit(Model())
    assert asks.answers == [0, 1, 2, 3]  # at the end of each step, before it counts


def test_validates_after_step():
    asks = Asks(internals.validates_after_step)
    quick_trainer(asks, max_steps=5).fit(Model())
    assert asks.answers == [False, True, False, True, False]
    assert asks.validations == [2, 4]


def test_stop_after_step():
    class Stops(Callback):
        def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
            if trainer.global_step == 2:
                internals.stop_after_step(trainer)

    asks, trainer = Asks(lambda trainer: trainer.global_step), None
    trainer = quick_trainer(asks, Stops())
    with pytest.raises(SIGTERMException):
        trainer.fit(Model())
    assert (asks.answers, asks.validations) == ([1, 2], [])


def test_ignore_after_fit():
    class Listens(Callback):
        def on_train_start(self, trainer: Trainer, *args: Any) -> None:
            internals.ignore_after_fit(trainer, signal.SIGUSR2)

    before = signal.getsignal(signal.SIGUSR2)
    try:
        quick_trainer(Listens()).fit(Model())
        assert signal.getsignal(signal.SIGUSR2) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGUSR2, before)


def test_cluster_of(monkeypatch: pytest.MonkeyPatch):
    assert isinstance(internals.cluster_of(quick_trainer()), LightningEnvironment)
    trainer = quick_trainer(plugins=[SLURMEnvironment(requeue_signal=signal.SIGUSR1)])
    assert internals.cluster_of(trainer).requeue_signal == signal.SIGUSR1
    assert internals.cluster_of(trainer).auto_requeue


def test_adds_sampler():
    assert internals.adds_sampler(quick_trainer())
    assert not internals.adds_sampler(quick_trainer(use_distributed_sampler=False))
    assert not internals.adds_sampler(None)


def test_trainer_of():
    model = Model()
    assert internals.trainer_of(model) is None
    trainer = quick_trainer()
    trainer.fit(model)
    assert internals.trainer_of(model) is trainer


def test_save_now_and_again(tmp_path: Path):
    saved: list[tuple[int, list[bool]]] = []

    class Saves(ModelCheckpoint):
        def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
            did = [internals.save_now(self, trainer), internals.save_now(self, trainer)]
            internals.save_again(self)
            did.append(internals.save_now(self, trainer))
            saved.append((trainer.global_step, did))

        def _save_checkpoint(self, trainer: Trainer, filepath: str) -> None:
            """As this package's do, which writes more beside it."""
            super()._save_checkpoint(trainer, filepath)
            (tmp_path / "beside").touch()

    saves = Saves(dirpath=tmp_path, filename="one", enable_version_counter=False)
    quick_trainer(saves, max_steps=2, enable_checkpointing=True).fit(Model())
    assert saved == [(1, [True, False, True]), (2, [True, False, True])]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["beside", "one.ckpt"]


def test_without_a_step_nothing_is_saved_unless_asked(tmp_path: Path):
    for asked in (False, True):
        saves = ModelCheckpoint(dirpath=tmp_path / str(asked), save_on_train_epoch_end=False)
        if asked:
            internals.save_again(saves)

        class Still(Model):
            automatic_optimization = False

            def training_step(self, batch: Any, batch_idx: int) -> None:
                """Nothing is stepped."""

        options = {"max_steps": -1, "max_epochs": 1, "limit_train_batches": 2}
        quick_trainer(saves, enable_checkpointing=True, **options).fit(Still())
        assert bool(list(tmp_path.glob(f"{asked}/*.ckpt"))) == asked


@pytest.mark.parametrize("at_epochs", [True, False])
def test_acts_at_epochs(at_epochs: bool, tmp_path: Path):
    stopping = EarlyStopping("val/x", check_on_train_epoch_end=at_epochs)
    saving = ModelCheckpoint(tmp_path, save_on_train_epoch_end=at_epochs)
    assert internals.acts_at_epochs(stopping) is at_epochs
    assert internals.acts_at_epochs(saving) is at_epochs


def test_a_save_by_steps_ranks_by_the_validation_before(tmp_path: Path):
    """What `saves_between_validations` is for: Lightning saves first, and validates then."""
    losses = {2: 5.0, 4: 1.0, 6: 7.0}

    class Validated(Model):
        def validation_step(self, *args: Any) -> None:
            self.log("val/x", losses[self.global_step])

    found = []
    for given in ({}, {"every_n_train_steps": 2}):
        saves = ModelCheckpoint(tmp_path / str(len(found)), "{step}", monitor="val/x", **given)
        options = {"max_steps": 6, "val_check_interval": 2, "enable_checkpointing": True}
        quick_trainer(saves, **options).fit(Validated())
        found.append((internals.saves_between_validations(saves), Path(saves.best_model_path).stem))
    assert found == [(False, "step=4"), (True, "step=6")]
    assert internals.saves_between_validations(ModelCheckpoint(train_time_interval=timedelta(1)))


def test_seconds_of():
    assert internals.seconds_of(Timer("00:00:02:05")) == 125.0
    assert internals.seconds_of(Timer()) is None


def test_averages():
    averaging = WeightAveraging(avg_fn=None)
    assert internals.averaged(averaging) is None
    assert internals.last_averaged_epoch(averaging) == -1
    options = {"max_steps": -1, "max_epochs": 2, "limit_train_batches": 1}
    model = Model()
    quick_trainer(averaging, **options, val_check_interval=None).fit(model)
    assert int(internals.averaged(averaging).n_averaged) > 0
    assert internals.last_averaged_epoch(averaging) >= -1
    assert internals.last_averaged_epoch(averaging, 5) == 5
    assert averaging._latest_update_epoch == 5


def test_what_the_command_line_overrides_is_still_asked_for():
    source = inspect.getsource(LightningCLI)
    for name in ("_prepare_subcommand_parser", "_parse_ckpt_path", "_run_subcommand"):
        assert hasattr(LightningCLI, name)
        assert f"self.{name}(" in source
    assert list(inspect.signature(LightningCLI._get).parameters)[:3] == ["self", "config", "key"]
    assert list(inspect.signature(LightningCLI._parser).parameters) == ["self", "subcommand"]


OWNERS = re.compile(r"\b(trainer|loop|fit_loop|epoch_loop|strategy|logger|callback|timer|inner)$")


def test_nothing_else_touches_them():
    """No private attribute of a trainer, a loop, a strategy, a logger or a callback elsewhere."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.name == "lightning_internals.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and re.match(r"_[a-z]", node.attr):
                owner = ast.unparse(node.value)
                if OWNERS.search(owner) and owner != "self":
                    found.append(f"{path.relative_to(PACKAGE)}: {owner}.{node.attr}")
    assert found == []
    assert OWNERS.search("self.trainer.fit_loop")


def test_every_function_has_its_test():
    tests = Path(__file__).read_text(encoding="utf-8")
    names = [name for name, _ in inspect.getmembers(internals, inspect.isfunction)]
    assert len(names) > 10
    assert not [name for name in names if f"internals.{name}" not in tests]
