"""Mistakes in language models and in checkpoints, payloads among them."""

import contextlib
import json
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from soak.case import Case, Prepare
from soak.world import World, copied_model, fit

MARK = "pwned"  # a file that a payload would leave
TRAIN = ("--data.train=<data>/train.jsonl",)
CONFIG = ("--config", "<run>/config.yaml")


class Payload:
    """Runs a command when it is unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        """`touch`."""
        import os

        return os.system, (f"touch {MARK}",)


def cases() -> Iterator[Case]:
    """All of them."""
    yield from _models()
    yield from _checkpoints()


# ---- models


def _models() -> Iterator[Case]:
    names: dict[str, tuple[str, tuple[str, ...]]] = {
        "a hub model, without a hub": ("owner/model", ("hub",)),
        "a misspelt hub model": ("gpt-two", ("hub",)),
        "a folder that is not there": ("<here>/nope", ("no such folder",)),
        "a folder without a model": ("<data>", ("config.json",)),
        "a file": ("<data>/train.jsonl", ()),
        "a GGUF file that is not there": ("<here>/x.gguf", ("no such",)),
        "an empty name": ("", ("--lm.name",)),
        "null": ("null", ("--lm.name",)),
    }
    for name, (value, says) in names.items():
        yield Case("model", name, fit(f"--lm.name={value}"), says)
    yield Case(
        "model",
        "a GGUF file that is none",
        fit("--lm.name", "<here>/x.gguf"),
        ("x.gguf",),
        {"x.gguf": "no weights"},
    )
    damages: dict[str, Prepare] = {
        "no weights": removed("model.safetensors"),
        "no tokenizer": removed("tokenizer.json", "tokenizer_config.json"),
        "a broken config.json": overwritten("config.json", b"{"),
        "a config.json of another kind": overwritten("config.json", b'{"model_type": "bert"}'),
        "a config.json of an unknown kind": overwritten("config.json", b'{"model_type": "x"}'),
        "an empty config.json": overwritten("config.json", b""),
        "weights cut short": cut("model.safetensors"),
        "weights of another shape": configured(n_embd=32),
        "a broken tokenizer": overwritten("tokenizer.json", b"{}"),
        "weights as a pickle with a payload": pickled(),
        "names that begin with module.": reweighted(lambda w: {f"module.{k}": w[k] for k in w}),
        "a layer that is not there": reweighted(lambda w: {k: w[k] for k in w if ".h.1." not in k}),
        "weights that are infinite": reweighted(lambda w: {k: v / 0 for k, v in w.items()}),
        "fewer layers by config.json": configured(n_layer=1),
        "more layers by config.json": configured(n_layer=3),
        "an adapter beside the model": overwritten("adapter_config.json", b"{}"),
    }
    for name, prepare in damages.items():
        yield Case("model", name, fit("--lm.name", "<here>/lm"), ("--lm.name",), prepare=prepare)


def removed(*names: str) -> Prepare:
    """A copy of the model without some files."""

    @contextlib.contextmanager
    def prepare(world: World, here: Path) -> Iterator[None]:
        folder = copied_model(world, here)
        for name in names:
            (folder / name).unlink(missing_ok=True)
        yield

    return prepare


def overwritten(name: str, content: bytes) -> Prepare:
    """A copy of the model with another content of a file."""

    @contextlib.contextmanager
    def prepare(world: World, here: Path) -> Iterator[None]:
        (copied_model(world, here) / name).write_bytes(content)
        yield

    return prepare


def cut(name: str) -> Prepare:
    """A copy of the model with half a file."""

    @contextlib.contextmanager
    def prepare(world: World, here: Path) -> Iterator[None]:
        path = copied_model(world, here) / name
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        yield

    return prepare


def configured(**values: int) -> Prepare:
    """A copy of the model whose config.json says something else than its weights."""

    @contextlib.contextmanager
    def prepare(world: World, here: Path) -> Iterator[None]:
        path = copied_model(world, here) / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
        yield

    return prepare


def reweighted(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Prepare:
    """A copy of the model with other weights."""

    @contextlib.contextmanager
    def prepare(world: World, here: Path) -> Iterator[None]:
        from safetensors.torch import load_file, save_file

        path = copied_model(world, here) / "model.safetensors"
        save_file(change(load_file(path)), path, {"format": "pt"})
        yield

    return prepare


def pickled() -> Prepare:
    """A copy of the model with a payload in place of weights."""

    @contextlib.contextmanager
    def prepare(world: World, here: Path) -> Iterator[None]:
        folder = copied_model(world, here)
        (folder / "model.safetensors").unlink()
        (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"transformer": Payload()}))
        yield
        assert not (here / MARK).exists(), "the payload ran"

    return prepare


# ---- checkpoints


def _checkpoints() -> Iterator[Case]:
    validate = ("validate", *CONFIG, "--ckpt_path")
    given: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
        "a checkpoint that is not there": ((*validate, "<here>/no.ckpt"), ("no such file",)),
        "a folder for a checkpoint": ((*validate, "<run>/checkpoints"), ("--ckpt_path",)),
        "an empty checkpoint path": ((*validate, ""), ("--ckpt_path",)),
        "no checkpoint": (("validate", *CONFIG), ("--ckpt_path",)),
        "best of no run": (fit("--ckpt_path=best", command="validate"), ("no run",)),
        "last of no run": (fit("--ckpt_path=last"), ("no run",)),
        "another language model": ((*validate, "best", "--lm.name=<other_lm>"), ("weights",)),
        "another tuner": ((*validate, "best", "--model=PEZ"), ("SoftPrompt", "PEZ")),
        "another template": (
            (*validate, "best", "--data.template={text}{prompt}"),
            ("{text}{prompt}",),
        ),
        "another verbalizer": (
            (*validate, "best", "--data.verbalizer={positive: ' good', negative: ' bad'}"),
            (" good",),
        ),
        "another length": ((*validate, "best", "--model.prompt_length=3"), ("10", "3")),
        "a prompt.json for a checkpoint": ((*validate, "<run>/prompt.json"), ("--ckpt_path",)),
        "another model's prompt to start from": (
            fit("--model.init=FromCheckpoint", "--model.init.path=<run>/prompt.json",
                "--lm.name=<other_lm>"),
            ("prompt.json",),
        ),
        "predict: rows that are not there": (
            ("predict", *CONFIG, "--ckpt_path=best", "--data.predict=no.jsonl"),
            ("no.jsonl",),
        ),
        "test: no test rows": (
            ("test", *CONFIG, "--ckpt_path=best", "--data.path=<here>", *TRAIN),
            ("test",),
        ),
    }  # fmt: skip
    for name, (args, says) in given.items():
        yield Case("checkpoint", name, args, says)
    contents: dict[str, bytes] = {
        "an empty file": b"",
        "a text": b"no checkpoint",
        "a pickle with a payload": pickle.dumps({"global_step": Payload()}),
        "a pickle of a number": pickle.dumps(3),
    }
    for name, content in contents.items():
        yield Case(
            "checkpoint",
            name,
            (*validate, "<here>/x.ckpt"),
            ("x.ckpt",),
            {"x.ckpt": content},
            unharmed,
        )
        yield Case(
            "checkpoint",
            f"{name} to start from",
            fit("--model.init=FromCheckpoint", "--model.init.path=<here>/x.ckpt"),
            ("x.ckpt",),
            {"x.ckpt": content},
            unharmed,
        )
    for name, prepare in (("cut short", halved), ("zip with a payload", poisoned),
                          ("other contents", emptied)):  # fmt: skip
        yield Case("checkpoint", name, (*validate, "<here>/x.ckpt"), ("x.ckpt",), prepare=prepare)
    yield Case(
        "checkpoint",
        "resuming from a checkpoint cut short",
        ("fit", *CONFIG, "--ckpt_path=<here>/x.ckpt"),
        ("x.ckpt",),
        prepare=halved,
    )
    for name, content in (("no JSON", "{"), ("another JSON", '{"a": 1}'), ("a JSON list", "[]")):
        yield Case(
            "checkpoint",
            f"a start from a prompt.json that is {name}",
            fit("--model.init=FromCheckpoint", "--model.init.path=prompt.json"),
            ("prompt.json",),
            {"prompt.json": content},
        )


@contextlib.contextmanager
def unharmed(world: World, here: Path) -> Iterator[None]:
    """See that no payload ran."""
    yield
    assert not (here / MARK).exists(), "the payload ran"


@contextlib.contextmanager
def halved(world: World, here: Path) -> Iterator[None]:
    """Half of the run's last checkpoint."""
    content = (world.run / "checkpoints" / "last.ckpt").read_bytes()
    (here / "x.ckpt").write_bytes(content[: len(content) // 2])
    yield


@contextlib.contextmanager
def poisoned(world: World, here: Path) -> Iterator[None]:
    """A checkpoint as torch writes it, with a payload in it."""
    import torch

    content = torch.load(world.run / "checkpoints" / "last.ckpt", weights_only=True)
    torch.save({**content, "extra": Payload()}, here / "x.ckpt")
    with unharmed(world, here):
        yield


@contextlib.contextmanager
def emptied(world: World, here: Path) -> Iterator[None]:
    """A file of torch that is no checkpoint of a prompt."""
    import torch

    torch.save({"global_step": 3, "state_dict": {"prompt": torch.zeros(10, 16)}}, here / "x.ckpt")
    yield
