"""`lightning-prompts style`: trains the two style classifiers of style transfer, in one table."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from jsonargparse import ActionConfigFile, Namespace
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from lightning_prompts.callbacks.progress import StepProgress
from lightning_prompts.cli.completion import LOGS, native_precision
from lightning_prompts.cli.option_values import options_of, refuse_numbers
from lightning_prompts.cli.parser import CONFIGS, PromptParser, default_config, find_configs
from lightning_prompts.files.amounts import share
from lightning_prompts.files.console import console
from lightning_prompts.files.errors import PromptError
from lightning_prompts.files.option_types import Count, Positive, Seed, require_fields
from lightning_prompts.files.text import short_path
from lightning_prompts.lm.features import Pooling, num_layers, resolve_layer
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.tasks.base import PromptTask
from lightning_prompts.tasks.rows import Rows, stratified_order
from lightning_prompts.tuners.rewards.style.training import StyleClassifier

CONFIG = "task/yelp_style.yaml"
PARTS = ("reward", "judge")
# Rows of the same split, kept from training, whose accuracy stands beside the test's.
HELD_OUT = 500


@dataclass
class Recipe:
    """How one style classifier is made.

    Args:
        split: Whose rows it is trained on.
        rows: At most this many, drawn by seed with the labels in their shares.
        layer: Layers of the language model to read: a number, or a share below 1.
        pooling: `mean` over a text's tokens, or the `last` of them.
        lr: Learning rate of AdamW.
        seed: Of the rows, their order and the head's first weights.
    """

    split: Literal["train", "validation"]
    rows: Count
    layer: Positive
    pooling: Pooling
    lr: Positive
    seed: Seed

    def __post_init__(self) -> None:
        require_fields(self)


class StyleSentences(PromptTask):
    """A task whose `split` is divided into training and held-out rows; its test rows as they are.

    Args:
        task: Reads the rows.
        recipe: Which of them.
    """

    def __init__(self, task: PromptTask, recipe: Recipe) -> None:
        words = dict(zip(task.verbalizer.labels, task.verbalizer.words, strict=True))
        super().__init__(
            task.lm,
            task.template.given,
            words,
            seed=recipe.seed,
            truncate=task.truncate,
            max_tokens=task.max_tokens,
            batch_size=task.batch_size,
            val_batch_size=task.val_batch_size,
            num_workers=task.num_workers,
        )
        self.task, self.recipe = task, recipe

    @property
    def slug(self) -> str:
        """The task's name."""
        return self.task.slug

    def has(self, split: str) -> bool:
        """Whether there is such a split."""
        return self.task.has(split if split in ("test", "predict") else self.recipe.split)

    def read(self, split: str) -> Rows:
        """Rows drawn from the recipe's split, held-out rows of it, or the test rows."""
        if split in ("test", "predict"):
            return self.task.read(split)
        rows = self.task.read(self.recipe.split)
        order = stratified_order(rows.labels, self.recipe.seed)
        held_out = min(HELD_OUT, len(rows) // 5)
        train = order[held_out : held_out + self.recipe.rows]
        return rows.take(sorted(order[:held_out] if split == "validation" else train))


@dataclass
class Outcome:
    """One trained classifier, for the table."""

    name: str
    recipe: Recipe
    rows: int
    layer: int
    held_out: float
    test: float
    folder: Path


def style(args: Sequence[str]) -> None:
    """Train both classifiers, test them, write them and show them.

    Args:
        args: Options, as on the command line; `--help` lists them.

    Raises:
        PromptError: If the user can fix it.
    """
    config, built = _parse(args)
    precision = config.trainer.precision or native_precision(str(config.trainer.accelerator))
    folder = Path(config.trainer.default_root_dir or LOGS) / config.experiment
    outcomes = []
    for name in PARTS:  # the second one's mistake before the first one's training
        check(name, built[name], built.lm)
    for name in PARTS:
        options = {**built.trainer, "precision": precision}
        callbacks = list(options.pop("callbacks", None) or [])
        if options.get("enable_progress_bar") is not False:
            callbacks.append(StepProgress())
        try:
            trainer = Trainer(**options, callbacks=callbacks)
        except (ValueError, TypeError, MisconfigurationException) as error:
            raise PromptError(f"--trainer: {error}") from error
        outcomes.append(train(name, built[name], built.data, trainer, folder / name))
    if not trainer.is_global_zero:
        return
    console.print()
    console.print(table(outcomes, f"{built.data.slug}, {built.lm.label}"))
    for outcome in outcomes:
        console.print(Text(f"{outcome.name}: {short_path(outcome.folder)}"), soft_wrap=True)


def check(name: str, recipe: Recipe, lm: FrozenLM) -> None:
    """Refuse a recipe that cannot be followed.

    Raises:
        PromptError: With the option to change.
    """
    try:
        resolve_layer(recipe.layer, num_layers(lm.model))
    except PromptError as error:
        raise PromptError(f"--{name}.layer: {error}") from error


def train(name: str, recipe: Recipe, task: PromptTask, trainer: Trainer, folder: Path) -> Outcome:
    """Train, test and write one classifier.

    Args:
        name: What to call it.
        recipe: How it is made.
        task: Has its rows.
        trainer: New.
        folder: Where it is written, as a whole and only when it has been tested.

    Raises:
        PromptError: If the folder cannot be written.
    """
    sentences = StyleSentences(task, recipe)
    labels = task.verbalizer.labels
    classifier = StyleClassifier(
        task.lm, labels, recipe.layer, recipe.pooling, recipe.lr, recipe.seed
    )
    trainer.fit(classifier, datamodule=sentences)
    held_out = float(trainer.callback_metrics.get("val/accuracy", torch.nan))
    trainer.test(classifier, datamodule=sentences, verbose=False)
    test = float(trainer.callback_metrics["test/accuracy"])
    report = sentences.report
    if trainer.is_global_zero:
        source = Path(report.sources["train"]).name
        classifier.save(folder, source, report.rows["train"], test)
    return Outcome(name, recipe, report.rows["train"], classifier.layer, held_out, test, folder)


def table(outcomes: Sequence[Outcome], title: str) -> Table:
    """The classifiers, with accuracies as shares."""
    drawn = Table(title=Text(title, "bold"), title_justify="left", box=SIMPLE_HEAD)
    drawn.add_column("style classifier", no_wrap=True)
    drawn.add_column("trained on", no_wrap=True)
    for heading in ("rows", "layer"):
        drawn.add_column(heading, justify="right", no_wrap=True)
    drawn.add_column("pooling", no_wrap=True)
    for heading in ("held out", "test"):
        drawn.add_column(heading, justify="right", no_wrap=True)
    for outcome in outcomes:
        recipe = outcome.recipe
        drawn.add_row(
            *(outcome.name, recipe.split, f"{outcome.rows:,}", str(outcome.layer)),
            *(recipe.pooling, share(outcome.held_out), share(outcome.test)),
        )
    return drawn


def _parse(args: Sequence[str]) -> tuple[Namespace, Namespace]:
    """The configuration, and the same with its parts built."""
    known = parser()
    config = known.parse_args(find_configs(args)[0])
    refuse_numbers(list(options_of(config.as_dict(), dict.fromkeys(PARTS, Recipe))))
    return config, known.instantiate_classes(config)


def parser() -> PromptParser:
    """The command's options."""
    default_config()  # the installation has its configurations
    assert CONFIGS is not None
    known = PromptParser(
        prog="lightning-prompts style",
        description="Train two style classifiers on a frozen language model: one that rewards, "
        "one that judges.",
        default_config_files=[str(CONFIGS / CONFIG)],
        allow_abbrev=False,
    )
    known.add_argument(
        "--config", action=ActionConfigFile, help="A YAML file; counts more than the shipped one."
    )
    known.add_argument(
        "--experiment", type=str, default="style", help="They go to logs/EXPERIMENT."
    )
    known.add_class_arguments(FrozenLM, "lm")
    known.add_lightning_class_args(PromptTask, "data", subclass_mode=True)
    known.link_arguments("lm", "data.init_args.lm", apply_on="instantiate")
    for name in PARTS:
        known.add_class_arguments(Recipe, name)
    known.add_lightning_class_args(Trainer, "trainer")
    return known
