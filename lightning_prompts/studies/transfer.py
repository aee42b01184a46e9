"""`lightning-prompts transfer`: prompts scored on other models, by their texts and vectors."""

import gc
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lightning_prompts.cli.parser import PromptParser, given_value
from lightning_prompts.cli.shown import show
from lightning_prompts.files.atomic_files import read_lines, remove_drafts
from lightning_prompts.files.console import notice
from lightning_prompts.files.errors import PromptError
from lightning_prompts.files.text import PROGRAM
from lightning_prompts.lm.sources import find_model
from lightning_prompts.report.transfer import Cell, Column, write
from lightning_prompts.runs.folder import require_writable
from lightning_prompts.runs.lock import locked
from lightning_prompts.runs.prompt import read_record, read_vectors_of
from lightning_prompts.studies.given import LISTS, is_missing, is_run, path_of, texts_in
from lightning_prompts.studies.needs import OnlyParses
from lightning_prompts.studies.transfer_scores import Moved, Scoring, arguments
from lightning_prompts.tuners.moved import EmbeddedTokens
from lightning_prompts.tuners.prompt_init import source_of
from lightning_prompts.tuners.vectors import ADAPTER_CONFIG, TENSORS

OUTPUT = "logs/transfer"
CELLS = "cells.jsonl"  # of the output's folder: a line for each text on each model
ANOTHER = "give another folder with --output"
NAME = 18  # characters of a name in a table of 80 columns
EXAMPLE = (
    f"{PROGRAM} transfer RUN ' In one word, the movie was' --lm.name smollm2 --lm.name gpt2 "
    "--config configs/task/sst2.yaml"
)


@dataclass
class Asked:
    """What the command line asks for; `options` are those of `fit`."""

    prompts: list[str] = field(default_factory=list)
    models: list[str] = field(default_factory=list)
    output: Path = Path(OUTPUT)
    options: list[str] = field(default_factory=list)


def transfer(args: Sequence[str]) -> None:
    """Score prompts on models, show the matrix and write it.

    What was measured is kept beside it, so that the same command goes on where it was stopped.

    Args:
        args: As on the command line; `--help` lists them.

    Raises:
        PromptError: If a prompt, a model or an option is none, before any is scored.
        SystemExit: After `--help`.
    """
    asked = divide(args)
    require_writable(asked.output, ANOTHER)
    prompts = [moved for given in asked.prompts for moved in texts_of(given)]
    # A text once, that of a run rather than the same written by hand; and what each has to beat.
    known = {each.same_as: each for each in sorted(prompts, key=lambda e: e.record is not None)}
    prompts = [Moved(""), *(known[same] for same in dict.fromkeys(e.same_as for e in prompts))]
    for model in asked.models:
        parsed = OnlyParses(arguments(asked.options, model, prompts), run=False).config["fit"]
        find_model(model, parsed.lm.revision, "--lm.name")
    with locked(asked.output, "transfer", f"or {ANOTHER}"):
        remove_drafts(asked.output)
        cells = read_lines(asked.output / CELLS, Cell.from_json)
        kept = {cell.key: cell for cell in cells}
        prompts = list(with_sources(prompts))
        columns: list[Column] = []
        for model in asked.models:
            scoring = Scoring(asked.options, model, prompts, asked.output / CELLS)
            columns.append(scoring.column(kept, [column.model for column in columns]))
            matrix = scoring.matrix(columns)
            del scoring
            gc.collect()  # the model, which trainer and tuner hold in a circle
        sentences = (*matrix.findings(), *matrix.limits())
        show(matrix.tables(NAME), sentences, write(matrix, asked.output))


def divide(args: Sequence[str]) -> Asked:
    """The prompts, the models, the folder, and options of `fit`.

    Raises:
        PromptError: If one of the first two is missing, or an option says what the prompt says.
        SystemExit: After `--help`.
    """
    asked, rest = Asked(), list(args)
    while rest and not rest[0].startswith("--") and rest[0] not in ("-h", "-c"):
        asked.prompts.append(rest.pop(0))
    while rest:
        arg = rest.pop(0)
        if arg in ("--help", "-h"):
            parser().print_help()
            raise SystemExit(0)
        flag = arg.partition("=")[0]
        if flag in ("--lm.name", "--output"):
            value = given_value(arg, rest, EXAMPLE)
            if flag == "--output":
                asked.output = Path(value)
            else:
                asked.models.append(value)
        elif flag == "--model" or flag.startswith("--model."):
            raise PromptError(f"{flag}: a text that is scored has no tuner; leave it out.")
        else:
            asked.options.append(arg)
    if not asked.prompts:
        raise PromptError(f"Say first which prompts to move: {EXAMPLE} (--help says more).")
    if not asked.models:
        raise PromptError(f"Say on which models, each with --lm.name: {EXAMPLE}.")
    asked.models = list(dict.fromkeys(asked.models))
    return asked


def parser() -> PromptParser:
    """The command's own options, for its help."""
    known = PromptParser(
        prog=f"{PROGRAM} transfer",
        description="Score prompts on other models, by their texts and by moved vectors: accuracy "
        "raw, and recalibrated on training texts without their labels, which supposes about "
        "equally frequent classes. All "
        f"other options are those of fit ({PROGRAM} fit --help), for every model: --config, "
        "--data.*, --lm.*, --trainer.*.",
        allow_abbrev=False,
    )
    known.add_argument(
        "prompts",
        nargs="+",
        metavar="PROMPT",
        help="Each a run's folder, its prompt.json or a checkpoint, a file with a text a line "
        "(.txt; .jsonl with 'text'), or a text. Of a run whose prompt is vectors they move, and "
        "the text of their nearest tokens.",
    )
    known.add_argument("--lm.name", metavar="MODEL", help="Once for each model.")
    known.add_argument(
        "--output",
        type=str,
        default=OUTPUT,
        metavar="FOLDER",
        help="Of the page, the numbers, and what goes on after a stop.",
    )
    return known


def texts_of(given: str) -> Iterator[Moved]:
    """What a prompt on the command line means; several where it is a file of texts.

    Raises:
        PromptError: If it is a path that is not there, vectors alone, or cannot be read.
    """
    if not given.strip():
        raise PromptError("A prompt is empty; give a run's folder, a file or a text.")
    path = path_of(given)
    if path and is_run(path):
        record = read_record(path)
        if not record.text:
            raise PromptError(f"{given}: its prompt has no text; give another.")
        yield Moved(record.text, record)
        if record.soft_in_use:
            try:
                yield Moved(record.text, record, read_vectors_of(path).float())
            except PromptError as error:
                notice(f"{given}: its vectors do not move, its text alone: {error}")
    elif path and path.is_file() and path.suffix in LISTS:
        yield from map(Moved, texts_in(path))
    elif path and (path.suffix in TENSORS or (path / ADAPTER_CONFIG).is_file()):
        raise PromptError(
            f"{given} has vectors and does not say of which model; they and the text of their "
            f"nearest tokens move: give the run that {PROGRAM} measure --prompt {given} leaves."
        )
    elif path or is_missing(given):
        what = "no run with a validated prompt" if path else "no such file or folder"
        raise PromptError(
            f"{given}: {what}; give a run's folder, for example logs/soft-demo/version_0, a .txt "
            "file, or a text, which needs a space before it where it looks like a path."
        )
    else:
        yield Moved(given)


def with_sources(prompts: Iterable[Moved]) -> Iterator[Moved]:
    """Prompts with the tokens of the models that learned their vectors, each of them read once.

    Vectors whose model cannot be read are left out, and said; their texts stay.
    """
    sources: dict[str, EmbeddedTokens | None] = {}
    for each in prompts:
        if each.record is None or each.vectors is None:
            yield each
            continue
        learned_on = each.record.lm
        if learned_on.fingerprint not in sources:
            try:
                sources[learned_on.fingerprint] = source_of(learned_on)
            except PromptError as error:
                notice(f"The vectors of {learned_on.label} do not move, their texts alone: {error}")
                sources[learned_on.fingerprint] = None
            gc.collect()
        if source := sources[learned_on.fingerprint]:
            yield each._replace(source=source)
