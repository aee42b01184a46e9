"""Mistakes in folders, devices, ports, studies and reports."""

import contextlib
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

from soak.case import Case, Prepare
from soak.world import World, fit

PORT = 29555


def cases() -> Iterator[Case]:
    """All of them."""
    yield from _folders()
    yield from _devices()
    yield from _studies()
    yield from _others()


# ---- folders


def _folders() -> Iterator[Case]:
    yield Case("folder", "the log folder is a file", fit(), ("logs",), {"logs": "a file"})
    yield Case("folder", "the experiment is a file", fit("--experiment=x"), ("logs/x",),
               {"logs/x": "a file"})  # fmt: skip
    yield Case("folder", "a read-only log folder", fit(), ("logs",), prepare=read_only)
    yield Case("folder", "a full log folder", fit(), ("logs",), prepare=full)
    yield Case("folder", "a read-only run, resumed",
               ("fit", "--config=logs/version_0/config.yaml", "--ckpt_path=last",
                "--trainer.max_steps=4"), ("logs",), prepare=read_only_run)  # fmt: skip
    yield Case("folder", "an experiment's name too long", fit("--experiment=" + "x" * 300))
    yield Case("folder", "a report's folder is a file", ("report", "<run>", "--output=x"), ("x",),
               {"x": "a file"})  # fmt: skip
    yield Case("folder", "a read-only folder for a report", ("report", "<run>", "--output=logs/r"),
               ("logs",), prepare=read_only)  # fmt: skip
    yield Case("folder", "predictions in a read-only run",
               ("predict", "--config=logs/version_0/config.yaml", "--ckpt_path=best"), ("logs",),
               prepare=read_only_run)  # fmt: skip


@contextlib.contextmanager
def mounted(folder: Path, size: str) -> Iterator[Path]:
    """A small file system in memory; needs the right to mount."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@contextlib.contextmanager
def read_only(world: World, here: Path) -> Iterator[None]:
    """A log folder that cannot be written; `chmod` would not stop root."""
    with mounted(here / "logs", "1m") as folder:
        subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
        yield


@contextlib.contextmanager
def read_only_run(world: World, here: Path) -> Iterator[None]:
    """A copy of the run that cannot be written."""
    with mounted(here / "logs", "8m") as folder:
        shutil.copytree(world.run, folder / "version_0")
        subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
        yield


@contextlib.contextmanager
def full(world: World, here: Path) -> Iterator[None]:
    """A log folder without room."""
    with mounted(here / "logs", "16k") as folder:
        with contextlib.suppress(OSError), (folder / "filler").open("wb") as file:
            file.write(bytes(1 << 16))
        yield


# ---- devices and processes


def _devices() -> Iterator[Case]:
    given: dict[str, tuple[str, ...]] = {
        "a GPU where there is none": ("--trainer.accelerator=gpu",),
        "a TPU where there is none": ("--trainer.accelerator=tpu",),
        "a second GPU": ("--trainer.accelerator=gpu", "--trainer.devices=2"),
        "no device": ("--trainer.devices=0",),
        "less than no device": ("--trainer.devices=-2",),
        "a device by name": ("--trainer.devices=first",),
        "devices by number on a CPU": ("--trainer.devices=[0, 1]",),
        "a strategy for GPUs on a CPU": ("--trainer.strategy=fsdp",),
        "a strategy that is not installed": ("--trainer.strategy=deepspeed",),
        "a kernel that is not installed": ("--lm.attn_implementation=flash_attention_2",),
        "a second sampler": (
            *("--trainer.devices=2", "--trainer.strategy=ddp"),
            "--trainer.use_distributed_sampler=true",
        ),
        "validations by the clock": (
            *("--trainer.devices=2", "--trainer.strategy=ddp"),
            "--trainer.val_check_interval=00:00:10:00",
        ),
        "more devices than rows": (
            *("--trainer.devices=2", "--trainer.strategy=ddp", "--data.validation_rows=1"),
        ),
    }
    for name, options in given.items():
        yield Case("device", name, fit(*options), alone="ddp" in "".join(options))
    two = ("--trainer.devices=2", "--trainer.strategy=ddp")
    yield Case("device", "an occupied port", fit(*two), (str(PORT),), prepare=occupied, alone=True)
    yield Case("device", "a port that is none", fit(*two), ("MASTER_PORT",),
               prepare=variable("MASTER_PORT", "many"), alone=True)  # fmt: skip
    yield Case("device", "a port out of range", fit(*two), ("MASTER_PORT",),
               prepare=variable("MASTER_PORT", "99999"), alone=True)  # fmt: skip
    yield Case("device", "an address that is none", fit(*two), ("MASTER_ADDR",),
               prepare=variable("MASTER_ADDR", "no-such-host.invalid"), alone=True)  # fmt: skip


def variable(name: str, value: str) -> Prepare:
    """A variable of the environment."""
    import os

    @contextlib.contextmanager
    def prepare(world: World, here: Path) -> Iterator[None]:
        os.environ[name] = value
        try:
            yield
        finally:
            del os.environ[name]

    return prepare


@contextlib.contextmanager
def occupied(world: World, here: Path) -> Iterator[None]:
    """A port that another program listens at."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("", PORT))
        other.listen()
        with variable("MASTER_PORT", str(PORT))(world, here):
            yield


# ---- studies and reports


def _study(name: str, content: str, *options: str, says: tuple[str, ...] = (),
           prepare: Prepare | None = None) -> Case:  # fmt: skip
    args = ("study", "--config", "s.yaml", *options)
    return Case("study", name, args, says, {"s.yaml": content}, prepare)


STUDY = """
study: {name: s, seeds: [0]}
base: [configs/tuner/soft.yaml, configs/task/demo.yaml]
set: {lm.name: <lm>, data.path: <data>, trainer.max_steps: 2, data.batch_size: 8}
space: {model.optimizer.lr: [0.01, 0.1]}
"""


def _studies() -> Iterator[Case]:
    yield Case("study", "no study", ("study",), ("--config",))
    yield Case("study", "a file that is not there", ("study", "--config", "no.yaml"), ("no.yaml",))
    yield Case("study", "a run's configuration", ("study", "--config", "configs/tuner/soft.yaml"),
               ("model",))  # fmt: skip
    yield Case("study", "no workers", ("study", "--config", "configs/study/demo.yaml",
               "--workers", "0"), ("--workers",))  # fmt: skip
    changes: dict[str, tuple[str, str, tuple[str, ...]]] = {
        "an unknown key": ("seeds: [0]", "seed: [0]", ("seed",)),
        "an unknown block": ("space:", "spaces:", ("space",)),
        "an unknown sampler": ("seeds: [0]", "sampler: tpa, trials: 2", ("tpe",)),
        "an unknown variant key": ("space:", "variants: {a: {st: {}}}\nspace:", ("st",)),
        "a misspelt option": ("model.optimizer.lr", "model.optimizer.learning_rate", ("lr",)),
        "an option of no tuner": ("model.optimizer.lr", "model.lr", ("lr",)),
        "a value out of range": ("[0.01, 0.1]", "[0.01, -1]", ("lr",)),
        "no values": ("[0.01, 0.1]", "[]", ("lr",)),
        "a name that no folder can have": ("name: s", "name: a/b", ("name",)),
        "seeds that are none": ("[0]}", "[a]}", ("seeds",)),
        "a negative seed": ("[0]}", "[-1]}", ("seed",)),
        "an unknown metric's direction": ("seeds: [0]", "objectives: {val/loss: up}", ("max",)),
        "a missing base": ("configs/tuner/soft.yaml", "configs/tuner/soap.yaml", ("soap.yaml",)),
        "a model that is not there": ("<lm>", "<here>/nope", ("nope",)),
        "data that is not there": ("<data>", "<here>/nope", ("nope",)),
        "a storage that cannot be reached": (
            "seeds: [0]",
            "storage: 'mysql://u:p@127.0.0.1:9/x'",
            ("storage",),
        ),
        "a storage that is none": ("seeds: [0]", "storage: 'nope://x'", ("storage",)),
        "a storage in a folder that is not there": (
            "seeds: [0]",
            "storage: 'sqlite:////nope/x.db'",
            ("storage",),
        ),
    }  # fmt: skip
    for name, (old, new, says) in changes.items():
        assert old in STUDY, old
        yield _study(name, STUDY.replace(old, new), says=says)
    yield _study("bad YAML", "study: [", says=("YAML",))
    yield _study("an empty file", "", says=("study",))
    yield _study("a key twice", STUDY + "study: {name: t}\n", says=("study",))
    yield _study("an option that a study decides", STUDY, "--experiment", "x", says=("experiment",))
    yield _study("a study's folder that is a file", STUDY, "--study.folder", "s.yaml",
                 says=("s.yaml",))  # fmt: skip
    yield _study("a read-only folder", STUDY, "--study.folder", "logs", says=("logs",),
                 prepare=read_only)  # fmt: skip


def _others() -> Iterator[Case]:
    given: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
        "of nothing": (("report",), ("PATH",)),
        "of what is not there": (("report", "nope"), ("nope",)),
        "of a folder without runs": (("report", "<data>"), ("no run",)),
        "of a text file": (("report", "<data>/train.jsonl"), ("no run",)),
        "of a database that is not there": (("report", "sqlite:///nope.db"), ("nope.db",)),
        "of a storage that is none": (("report", "nope://x"), ("nope",)),
        "unknown option": (("report", "<run>", "--folder", "x"), ("--folder",)),
    }
    for name, (args, says) in given.items():
        yield Case("report", name, args, says)
    files: dict[str, dict[str, str]] = {
        "of an empty journal": {"s/journal.log": ""},
        "of a journal that is none": {"s/journal.log": "hello\n"},
        "of a study.yaml that is none": {"s/study.yaml": "[", "s/journal.log": ""},
        "of a broken prompt.json": {"s/prompt.json": "{", "s/config.yaml": "{}"},
        "of another prompt.json": {"s/prompt.json": "[]", "s/config.yaml": "{}"},
        "of a broken config.yaml": {"s/config.yaml": "["},
    }
    for name, content in files.items():
        yield Case("report", name, ("report", "s"), (), content)
    style = ("style", "--lm.name=<lm>", "--data.path=<data>")
    words = "--data.verbalizer={negative: ' bad', positive: ' good'}"
    others: dict[str, tuple[str, ...]] = {
        "style: unknown option": (*style, "--judge.row=3"),
        "style: no rows": (*style, words, "--judge.rows=0"),
        "style: a layer that is none": (*style, words, "--judge.layer=9"),
        "style: a negative layer": (*style, words, "--reward.layer=-1"),
        "style: a rate of NaN": (*style, words, "--reward.lr=.nan"),
        "style: unknown pooling": (*style, "--judge.pooling=max"),
        "style: labels of other data": style,
        "style: data that is not there": ("style", "--lm.name=<lm>", "--data.path=<here>/nope"),
        "demo: unknown option": ("demo", "--model.prompt_lenght=3"),
        "demo: a model that is not there": ("demo", "--lm.name=<here>/nope"),
        "demo: an argument": ("demo", "fast"),
    }
    for name, args in others.items():
        yield Case("other", name, args)
