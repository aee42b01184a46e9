"""What a prompt on the command line means: a folder, a file, a text."""

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lightning_prompts.files.errors import PromptError
from lightning_prompts.files.text import (
    PROGRAM,
    command,
    looks_like_path,
    short_path,
    shorten_middle,
)
from lightning_prompts.runs.folder import CONFIG, PROMPT
from lightning_prompts.tuners.vectors import (
    ADAPTER_CONFIG,
    TENSORS,
    Vectors,
    is_hub_id,
    read_vectors,
)

LISTS = (".txt", ".jsonl")  # a text a line
RUNS = (".ckpt", ".json")  # what runs of our own leave
NAME = 14  # characters of a prompt's name in a table of 76 columns


@dataclass
class Given:
    """One prompt that was asked for.

    Attributes:
        whole: What it is called.
        options: Of the run that measures it.
        text: Where it is one.
        vectors: What its file has, where it is none.
    """

    whole: str
    options: list[str]
    text: str = ""
    vectors: Vectors | None = None

    @property
    def name(self) -> str:
        """What it is called, short enough for a table in a terminal."""
        return shorten_middle(self.whole, NAME)


def find(given: str) -> Iterator[Given]:
    """What a prompt on the command line means; several where it is a file of texts.

    Raises:
        PromptError: If it is a path that is not there, a run, or cannot be read.
    """
    if not given.strip():
        raise PromptError("--prompt is empty; give a folder, a file or a text.")
    path = path_of(given)
    if path and is_run(path):
        run = path if path.is_dir() else path.parent
        again = command("validate", "--config", short_path(run / CONFIG), "--ckpt_path", "best")
        raise PromptError(f"{given} is a run of {PROGRAM}; to measure it again: {again}")
    if path and path.is_file() and path.suffix in LISTS:
        yield from (_text(text) for text in texts_in(path))
    elif path or is_hub_id(given) or is_missing(given):
        name = path.resolve().name if path else given
        if path and path.is_file() and (path.parent / ADAPTER_CONFIG).is_file():
            name = path.resolve().parent.name
        yield Given(
            name,
            ["--model=lightning_prompts.ImportedPrompt", f"--model.path={given}"],
            vectors=read_vectors(given),
        )
    else:
        yield _text(given)


def _text(text: str) -> Given:
    return Given(
        repr(text), ["--model=lightning_prompts.ManualPrompt", f"--model.text={text}"], text
    )


def texts_in(path: Path) -> list[str]:
    """The texts of a file, spaces at their ends and all; empty lines are left out."""
    try:
        lines = [re.sub(r"\r$", "", line) for line in path.read_text("utf-8").split("\n")]
        found = [line for line in lines if line.strip()]
        if path.suffix == ".jsonl":
            found = [str(json.loads(line)["text"]) for line in found]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PromptError(
            f"{path}: not readable as {path.suffix} ({error!r}); write a text a line, in .jsonl an "
            "object with 'text'."
        ) from error
    if not found:
        raise PromptError(f"{path}: has no text; write one a line.")
    return found


def is_run(path: Path) -> bool:
    """Whether it is a run's folder, or a file that a run leaves of its prompt."""
    return (path / PROMPT).is_file() or (path.is_file() and path.suffix in RUNS)


def run_of(given: str) -> Path | None:
    """The run, prompt.json or checkpoint that a word on the command line names, if it does.

    Raises:
        PromptError: If it is a folder with no prompt.
    """
    path = path_of(given)
    if path is None:
        return None
    if is_run(path):
        return path
    if path.is_dir() and not (path / ADAPTER_CONFIG).is_file():
        raise PromptError(
            f"{given}: neither a run with a validated prompt nor an adapter of PEFT; give a run's "
            "folder, for example logs/soft-demo/version_0, or begin a text with a space."
        )
    return None


def path_of(given: str) -> Path | None:
    """What a word on the command line names, if anything: a text may be too long for a name."""
    path = os.path.expanduser(given)
    return Path(path) if os.path.exists(path) else None


def is_missing(given: str) -> bool:
    """Whether it was meant as a path that is not there; one with a space before it is a text."""
    like = looks_like_path(given) or Path(given).suffix in (*LISTS, *RUNS, *TENSORS)
    return like and not given[0].isspace()
