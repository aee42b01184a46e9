"""`lightning-prompts inspect`: one prompt looked at closely."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from rich.text import Text

from lightning_prompts.cli import shown
from lightning_prompts.cli.app import PromptCLI
from lightning_prompts.cli.export import folder_of
from lightning_prompts.cli.parser import PromptParser, given_value
from lightning_prompts.cli.table import prompt_text
from lightning_prompts.files.console import console
from lightning_prompts.files.errors import PromptError
from lightning_prompts.files.escaping import visible
from lightning_prompts.files.text import PROGRAM
from lightning_prompts.metrics.panel.measures import ALL, CHEAP, MEASURES, chosen
from lightning_prompts.report.inspect import Inspection
from lightning_prompts.report.inspect_page import write
from lightning_prompts.runs.folder import CONFIG, require_writable
from lightning_prompts.runs.prompt import load_prompt, read_record
from lightning_prompts.runs.shading import scales, spaced
from lightning_prompts.studies.check_costs import ONE_DEVICE
from lightning_prompts.studies.given import find, run_of
from lightning_prompts.studies.inspect_alike import given_comparisons
from lightning_prompts.studies.inspect_scores import VALIDATION, Inspecting, Subject
from lightning_prompts.studies.measure import fitted_to
from lightning_prompts.studies.shared import SharedLM

OUTPUT = "logs/inspect"
ROWS = 256  # some three points of accuracy are chance then
SPLITS = (VALIDATION, "test")
TEXT = 28  # characters of a text in a table of 80 columns
EXAMPLE = f"{PROGRAM} inspect logs/soft-demo/version_0"


@dataclass
class Asked:
    """What the command line asks for; `options` are those of `fit`."""

    prompt: str = ""
    panel: list[str] = field(default_factory=list)
    compare: list[str] = field(default_factory=list)
    rows: int = ROWS
    split: str = VALIDATION
    in_words: bool = False
    output: Path | None = None
    options: list[str] = field(default_factory=list)

    @property
    def measures(self) -> Sequence[str]:
        """Names of the panel's measures."""
        return chosen(self.panel, "--panel") or CHEAP


def inspect(args: Sequence[str]) -> None:
    """Look at one prompt, show what is found and write it.

    Args:
        args: As on the command line; `--help` lists them.

    Raises:
        PromptError: If the prompt or an option is none, or does not fit the task.
        SystemExit: After `--help`.
    """
    asked = divide(args)
    run = run_of(asked.prompt)
    output = asked.output or (Path(OUTPUT) if run is None else folder_of(run) / "inspect")
    compare = given_comparisons(asked.compare)
    require_writable(output, "give another folder with --output")
    with tempfile.TemporaryDirectory() as folder:
        made = _of_run(asked, run, folder) if run else _of_another(asked, folder)
    found = Inspecting(*made, asked.rows, compare, asked.split).found(
        asked.measures, asked.in_words
    )
    show(found, write(found, output))


def divide(args: Sequence[str]) -> Asked:
    """The prompt, what is asked of it, and options of `fit`.

    Raises:
        PromptError: If there is not one prompt, or an option has no value that it can have.
        SystemExit: After `--help`.
    """
    asked, rest, prompts = Asked(), list(args), list[str]()
    while rest and not rest[0].startswith("--") and rest[0] not in ("-h", "-c"):
        prompts.append(rest.pop(0))
    while rest:
        arg = rest.pop(0)
        if arg in ("--help", "-h"):
            parser().print_help()
            raise SystemExit(0)
        flag = arg.partition("=")[0]
        if flag in ("--rows", "--split", "--output", "--compare", "--panel"):
            value = given_value(arg, rest, f"{EXAMPLE} --rows 100")
            if flag == "--rows":
                asked.rows = _count(value)
            elif flag == "--split":
                asked.split = _split(value)
            elif flag == "--output":
                asked.output = Path(value)
            elif flag == "--compare":
                asked.compare.append(value)
            else:
                asked.panel += _names(value)
                while rest and not rest[0].startswith("-"):
                    asked.panel += _names(rest.pop(0))
        elif flag == "--in_words":
            asked.in_words = _switch(arg)
        elif flag == "--model" or flag.startswith("--model."):
            raise PromptError(f"{flag}: a prompt that is looked at has no tuner; leave it out.")
        else:
            asked.options.append(arg)
    if len(prompts) != 1:
        raise PromptError(
            f"Say first which prompt to look at: {EXAMPLE} (--help says more)."
            if not prompts
            else f"{len(prompts)} prompts are given, and inspect looks at one; put quotes around a "
            f"text with spaces, or compare several with {PROGRAM} measure."
        )
    asked.prompt = prompts[0]
    if not asked.prompt.strip():
        raise PromptError("The prompt is empty; give a run's folder, a file or a text.")
    chosen(asked.panel, "--panel")
    return asked


def parser() -> PromptParser:
    """The command's own options, for its help."""
    known = PromptParser(
        prog=f"{PROGRAM} inspect",
        description="Look at one prompt closely: what each of its tokens does, which tokens its "
        "vectors are near to, on which rows vectors and tokens disagree, what its text says, and "
        f"which other prompts act alike. All other options are those of fit ({PROGRAM} fit "
        "--help): --config, --data.*, --lm.*, --trainer.*; a run's own stand in its config.yaml.",
        allow_abbrev=False,
    )
    known.add_argument(
        "prompt",
        metavar="RUN|FOLDER|FILE|TEXT",
        help="A run's folder, its prompt.json or a checkpoint; an adapter of PEFT (its folder, or "
        "owner/name on the hub), a file of tensors (.safetensors, .pt), or a text, which need "
        "--config and --lm.name.",
    )
    known.add_argument(
        "--rows", type=int, default=ROWS, help="Most rows of the split, in the classes' shares."
    )
    known.add_argument(
        "--split",
        choices=SPLITS,
        default=VALIDATION,
        help="Of whose rows; those of the test split had no part in choosing a run's prompt.",
    )
    known.add_argument(
        "--panel",
        nargs="+",
        metavar="MEASURE",
        help=f"Measures of the text in place of the cheap ones: {ALL}, or some of "
        f"{', '.join(MEASURES)}.",
    )
    known.add_argument(
        "--compare",
        metavar="TEXT|FILE|RUN",
        help="A text, or a file with a text a line (.txt, .jsonl), in place of the ten written "
        "prompts for sentiment, or a run whose prompt in use stands beside them; once for each.",
    )
    known.add_argument(
        "--in_words",
        action="store_true",
        help="Read the prompt out as well: its states stand in a sentence that the model goes on "
        "with; beside it its nearest tokens, random vectors and the runs of --compare.",
    )
    known.add_argument(
        "--output",
        metavar="FOLDER",
        help=f"Of the page and the numbers; by default inspect in the run's folder, or {OUTPUT}.",
    )
    return known


def show(found: Inspection, page: Path) -> None:
    """Print the text, the tables, what they say, and where the page is."""
    console.print()
    console.print(Text(f"{found.about}. {found.title}.", "bold"), soft_wrap=True)
    console.print(prompt_text(found.record), soft_wrap=True)
    surprise, _ = scales([found.record])
    shades = [f"black on {surprise.shade(nats)}" for nats in found.record.token_nats or []]
    tokens = [visible(spaced(token)) for token in found.record.tokens]
    line = Text(" ").join(map(Text, tokens, shades))
    console.print(Text("Shaded by surprise: ", "dim").append_text(line), soft_wrap=True)
    tables = chain.from_iterable(tables for _, tables in found.tables(TEXT))
    shown.show(tables, (*found.findings(), *found.restrictions()), page)


def _of_run(asked: Asked, run: Path, folder: str) -> tuple[PromptCLI, Subject]:
    """A run's prompt, and its task by its configuration."""
    record = read_record(run)
    if not record.text:
        raise PromptError(f"{asked.prompt}: its prompt has no text; give another.")
    config = folder_of(run) / CONFIG
    if config.is_file():
        own = ["--config", str(config)]
    elif any(arg.partition("=")[0] in ("--config", "-c") for arg in asked.options):
        own = [f"--lm.name={record.lm.name}"]
    else:
        raise PromptError(
            f"{asked.prompt}: no {CONFIG} lies there that says its task; give one with --config, "
            "for example --config configs/task/sst2.yaml."
        )
    tuner = ["--model=lightning_prompts.ManualPrompt", f"--model.text={record.text}"]
    cli = _built([*own, *asked.options, *tuner], SharedLM(), folder)
    prompt = load_prompt(run, cli.datamodule.lm)
    vectors = prompt.embeddings if record.soft_in_use else None
    return cli, Subject(prompt.record, vectors, learned_here=record.step > 0)


def _of_another(asked: Asked, folder: str) -> tuple[PromptCLI, Subject]:
    """An adapter, a file of tensors, or a text."""
    given, *more = find(asked.prompt)
    if more:
        raise PromptError(
            f"{asked.prompt} has {1 + len(more)} texts, and inspect looks at one; give it in "
            f"quotes, or compare them with {PROGRAM} measure."
        )
    make_lm = SharedLM()
    options = fitted_to([given], asked.options, make_lm)
    cli = _built([*options, *given.options], make_lm, folder)
    tuner = cli.model
    record = tuner.record()
    return cli, Subject(record, tuner.prompt_embeddings() if tuner.soft_in_use else None)


def _built(options: Sequence[str], make_lm: SharedLM, folder: str) -> PromptCLI:
    return PromptCLI(
        *(["fit", *options, *ONE_DEVICE], False, False),
        make_lm=make_lm,
        folder=Path(folder) / "inspect" / "run",
    )


def _switch(arg: str) -> bool:
    if arg != "--in_words":
        raise PromptError(f"{arg}: --in_words takes no value; give it alone, or leave it out.")
    return True


def _names(value: str) -> list[str]:
    """One name, or a list of them as --scrutability.panel has it: `[grammar, repetition]`."""
    return value.strip("[]").replace(",", " ").split() or [value]


def _split(value: str) -> str:
    if value not in SPLITS:
        raise PromptError(f"--split {value}: give {' or '.join(SPLITS)}.")
    return value


def _count(value: str) -> int:
    if not value.isdecimal() or int(value) < 1:
        raise PromptError(f"--rows {value}: give a whole number, at least 1.")
    return int(value)
