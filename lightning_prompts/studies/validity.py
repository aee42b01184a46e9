"""`lightning-prompts validity`: do the measures of a text tell what a reader would tell?"""

import gc
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jsonargparse.typing import PositiveInt

from lightning_prompts.cli.parser import PromptParser, given_value
from lightning_prompts.cli.shown import show
from lightning_prompts.files.atomic_files import remove_drafts
from lightning_prompts.files.errors import PromptError
from lightning_prompts.files.text import PROGRAM, did_you_mean
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.lm.sources import find_model
from lightning_prompts.metrics.panel.task_identification import TASK_SHUFFLES
from lightning_prompts.report.validity import Validity, write
from lightning_prompts.report.validity_readings import MEASURES, Reading
from lightning_prompts.runs.folder import require_writable
from lightning_prompts.runs.lock import locked
from lightning_prompts.studies.transfer import ANOTHER
from lightning_prompts.studies.validity_texts import Learned, ask, learned_texts
from lightning_prompts.studies.validity_values import Measuring, read_kept

OUTPUT = "logs/validity"
KEPT = "values.jsonl"  # of the output's folder: lines for each text on each model
EXAMPLE = f"{PROGRAM} validity --lm.name smollm2 --lm.name gemma3-270m"


@dataclass
class Wanted:
    """What the command line asks for; `options` are those of the language models."""

    models: list[str] = field(default_factory=list)
    measures: list[str] = field(default_factory=lambda: list(MEASURES))
    learned: list[Learned] = field(default_factory=list)
    output: Path = Path(OUTPUT)
    shuffles: int = TASK_SHUFFLES
    options: list[str] = field(default_factory=list)


def validity(args: Sequence[str]) -> None:
    """Ask the measures about texts, show which they tell apart, and write it.

    What was measured is kept beside it, so that the same command goes on where it was stopped.

    Args:
        args: As on the command line; `--help` lists them.

    Raises:
        PromptError: If an option is wrong, before a model is read; or if one cannot be read.
        SystemExit: After `--help`.
    """
    asked = parse(args)
    require_writable(asked.output, ANOTHER)
    known = parser()
    lms = [known.parse_args([*asked.options, f"--lm.name={name}"]) for name in asked.models]
    for config in lms:
        find_model(config.lm.name, config.lm.revision, "--lm.name")
    with locked(asked.output, "validity", f"or {ANOTHER}"):
        remove_drafts(asked.output)
        kept = read_kept(asked.output / KEPT)
        readings: list[Reading] = []
        for config in lms:
            lm: FrozenLM = known.instantiate(config).lm
            if torch.cuda.is_available():
                lm.to("cuda")
            label = lm.label
            if label in [reading.model for reading in readings]:  # two folders of one name
                label = f"{label} ({config.lm.name})"
            measuring = Measuring(
                lm, label, asked.measures, asked.output / KEPT, kept, asked.shuffles
            )
            readings.append(measuring.reading(ask(lm, asked.learned)))
            del lm, measuring
            gc.collect()  # a model is in circles
        if not any(reading.values for reading in readings):
            raise PromptError(
                f"No measure could be taken: {'; '.join(readings[0].left_out.values())}."
            )
        found = Validity(readings)
        sentences = (*found.findings(), *found.limits())
        show(found.tables(wide=False), sentences, write(found, asked.output))


def parse(args: Sequence[str]) -> Wanted:
    """Divide the command line.

    Raises:
        PromptError: If no model is named, a measure is none, or the learned prompts cannot be read.
        SystemExit: After `--help`.
    """
    names, rest, given = [], [], list(args)
    while given:
        arg = given.pop(0)
        if arg.partition("=")[0] == "--lm.name":
            names.append(given_value(arg, given, EXAMPLE))
        else:
            rest.append(arg)
    config = parser().parse_args(rest)
    if not names:
        raise PromptError(f"Say which models read, each with --lm.name: {EXAMPLE}.")
    for name in config.measures:
        if name not in MEASURES:
            raise PromptError(f"--measures {name}: no measure{did_you_mean(name, MEASURES)}")
    return Wanted(
        models=list(dict.fromkeys(names)),
        measures=[name for name in MEASURES if name in config.measures],
        learned=learned_texts(Path(config.learned)) if config.learned else [],
        output=Path(config.output),
        shuffles=config.shuffles,
        options=_without_own(rest),
    )


def _without_own(rest: Sequence[str]) -> list[str]:
    """The options of language models alone."""
    found, taking = [], False
    for arg in rest:
        if arg.startswith("--"):
            taking = arg.startswith("--lm.")
        if taking:
            found.append(arg)
    return found


def parser() -> PromptParser:
    """The command's options."""
    known = PromptParser(
        prog=f"{PROGRAM} validity",
        description="Ask the measures of a prompt's text about texts that a reader tells apart: "
        "prompts that people would write, the same shuffled, for another task, random tokens and "
        "more. --lm.name may stand several times; each model reads for itself.",
        allow_abbrev=False,
    )
    known.add_argument(
        "--measures",
        nargs="+",
        default=list(MEASURES),
        metavar="NAME",
        help=f"Some of {', '.join(MEASURES)}; by default all. The costly one is "
        "task_identification.",
    )
    known.add_argument(
        "--learned",
        type=str | None,
        default=None,
        metavar="FILE",
        help="Learned prompts to compare with the written ones: YAML, a task's name, then a list "
        "of text, from (what learned it) and, where it is known, accuracy.",
    )
    known.add_argument(
        "--shuffles",
        type=PositiveInt,
        default=TASK_SHUFFLES,
        metavar="N",
        help="Of each text that task_identification reads beside it; 2 take a third of the "
        "time, and task_margin_over_shuffled is noisier.",
    )
    known.add_argument(
        "--output",
        type=str,
        default=OUTPUT,
        metavar="FOLDER",
        help="Of the page, the numbers, and what goes on after a stop.",
    )
    known.add_class_arguments(FrozenLM, "lm")
    return known
