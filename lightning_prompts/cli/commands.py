"""What there is to do, and the answers that load no library that takes seconds."""

from collections.abc import Mapping, Sequence
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from lightning_prompts.files.console import fail
from lightning_prompts.files.text import PROGRAM
from lightning_prompts.files.version import __version__

DESCRIPTION = (
    "Learn prompts for a frozen language model and measure how interpretable they are. "
    "`lightning-prompts demo` shows it in a few minutes."
)
# What Lightning's command line runs, with what the list of commands says of it.
RUNS = {
    "fit": "Learn a prompt, measure it on the validation rows and show it.",
    "validate": "Measure a prompt on the validation rows.",
    "test": "Measure a prompt on the test rows.",
    "predict": "Write a prompt's predictions to predictions.jsonl.",
}
COMMANDS = {
    **RUNS,
    "check": "Look at data, template, answers, time and memory before a long fit.",
    "style": "Train the two classifiers of style transfer.",
    "study": "Run many fits, a grid or a search, and go on where they were stopped.",
    "measure": "Measure prompts that were learned elsewhere: adapters of PEFT, tensors, texts.",
    "inspect": "Look at one prompt closely: its tokens, its neighbours, what its text does.",
    "transfer": "Score the texts of prompts on other models, raw and recalibrated.",
    "validity": "Ask the measures of a prompt's text about texts that a reader tells apart.",
    "export": "Write a prompt as files that transformers or PEFT read, with a model card.",
    "report": "Show studies and runs as a page, figures and tables.",
    "demo": "Compare a written, a soft, a PEZ and a searched prompt on a small model.",
}
*_FIRST, _LAST = COMMANDS
NO_COMMAND = f"Say what to do: {PROGRAM} {', '.join(_FIRST)} or {_LAST} (or --help)."


def answer(args: Sequence[str]) -> None:
    """Answer what stands before any command, `--help` or `--version`, or that there is none.

    Args:
        args: As on the command line.

    Raises:
        SystemExit: 0 after an answer, 2 if no command is given; nothing is raised where there is
            one and no more is asked before it.
    """
    start = next((i for i, arg in enumerate(args) if arg in COMMANDS), len(args))
    asked = [arg for arg in args[:start] if arg in ("-h", "--help", "--version")]
    if asked:
        _overview().parse_args(asked[:1])
    if start == len(args):
        fail(NO_COMMAND)
        raise SystemExit(2)


def command_of(args: list[str] | Mapping[str, Any] | Namespace | None) -> str:
    """Which of `RUNS` is asked for, on the command line or in a mapping; empty where none is."""
    if isinstance(args, list):
        return next((arg for arg in args if arg in RUNS), "")
    given: dict[str, Any] = dict(args or {})
    named = [name for name in RUNS if name in given]
    return str(given.get("subcommand") or (named[0] if len(named) == 1 else ""))


def _overview() -> ArgumentParser:
    """Knows the commands by name only; each one's own parser knows its options."""
    parser = ArgumentParser(prog=PROGRAM, description=DESCRIPTION, version=__version__)
    commands = parser.add_subcommands(
        title="commands",
        description=f"`{PROGRAM} COMMAND --help` lists a command's options; with --debug, a "
        "mistake shows where it was found.",
    )
    for name, description in COMMANDS.items():
        commands.add_subcommand(name, ArgumentParser(), help=description)
    return parser
