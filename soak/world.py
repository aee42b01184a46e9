"""What bad inputs are tried on: a tiny language model, a few reviews, and one real run to harm."""

import contextlib
import hashlib
import importlib
import io
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.tiny import save_model

# What some commands load; a forked command would otherwise load it again and again.
LOADED_LATER = ("datasets", "optuna", "matplotlib.pyplot", "pyarrow.parquet")
POSITIONS = 256  # of the tiny model
REVIEWS = {
    "positive": ("A warm and funny film.", "Great cast, good songs.", "Quiet, clever and kind."),
    "negative": ("Dull and far too long.", "No plot, no jokes.", "Cold, slow and loud."),
}


@dataclass(frozen=True)
class World:
    """Folders that cases may read.

    Attributes:
        folder: Of all of it.
        lm: A saved language model with random weights and its tokenizer.
        other_lm: The same with other weights.
        data: `train.jsonl` (24 rows), `validation.jsonl` (9), `test.jsonl` (8): text and label.
        run: A finished run of `fit`, which no case may damage.
    """

    folder: Path

    @property
    def lm(self) -> Path:
        """The language model."""
        return self.folder / "lm"

    @property
    def other_lm(self) -> Path:
        """Another one."""
        return self.folder / "other_lm"

    @property
    def data(self) -> Path:
        """The reviews."""
        return self.folder / "data"

    @property
    def run(self) -> Path:
        """The run."""
        return self.folder / "logs" / "base" / "version_0"

    def filled(self, text: str, here: Path) -> str:
        """A text with `<lm>`, `<data>` and so on replaced by paths."""
        for name in ("lm", "other_lm", "data", "run"):
            text = text.replace(f"<{name}>", str(getattr(self, name)))
        return text.replace("<here>", str(here))

    def digests(self) -> dict[str, str]:
        """Hash of every file that cases may read."""
        return {
            str(path.relative_to(self.folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for place in (self.lm, self.other_lm, self.data, self.run)
            for path in sorted(place.rglob("*"))
            if path.is_file()
        }


def damaged(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """Files that were changed or removed; a refused evaluation may add an empty events file."""
    return [name for name, digest in before.items() if after.get(name) != digest]


def make_world(folder: Path) -> World:
    """Write the models and the reviews, and make the run."""
    world = World(folder)
    save_model(world.lm, seed=0)
    save_model(world.other_lm, seed=1)
    write_reviews(world.data)
    with working_in(folder), contextlib.redirect_stdout(io.StringIO()):
        from lightning_prompts.cli.main import main

        main([world.filled(arg, folder) for arg in fit("--experiment", "base")])
    for name in LOADED_LATER:
        importlib.import_module(name)
    return world


@contextlib.contextmanager
def working_in(folder: Path) -> Iterator[None]:
    """Let a folder be the working directory for a while."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def fit(*options: str, tuner: str = "soft", command: str = "fit") -> tuple[str, ...]:
    """Arguments of a fit of two steps; `options` come last and win."""
    return (
        *(command, "--config", f"configs/tuner/{tuner}.yaml"),
        *("--config", "configs/task/demo.yaml", "--lm.name", "<lm>", "--data.path", "<data>"),
        *("--data.batch_size", "8", "--trainer.max_steps", "2"),
        *("--trainer.val_check_interval", "2", "--trainer.precision", "32-true"),
        *("--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"),
        *options,
    )


def write_reviews(folder: Path) -> None:
    """24 training, 9 validation and 8 test rows."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, count in (("train", 24), ("validation", 9), ("test", 8)):
        (folder / f"{split}.jsonl").write_text(review_lines(count), encoding="utf-8")


def review_lines(count: int) -> str:
    """JSONL of so many reviews, the labels in turn."""
    labels = list(REVIEWS)
    rows = []
    for i in range(count):
        label = labels[i % 2]
        texts = REVIEWS[label]
        first, second = texts[i // 2 % 3], texts[i // 6 % 3]
        rows.append({"text": f"{first} {second}", "label": label})
    return "".join(json.dumps(row) + "\n" for row in rows)


def copied_model(world: World, here: Path) -> Path:
    """A copy of the language model, to damage."""
    return Path(shutil.copytree(world.lm, here / "lm"))
