"""Entry point of the command line: which command is asked for, and how it ends."""

import importlib
import os
import sys
from collections.abc import Mapping
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch.cli import ArgsType

from lightning_prompts.cli.app import PromptCLI
from lightning_prompts.cli.commands import answer
from lightning_prompts.cli.exit_codes import ending
from lightning_prompts.cli.quiet import silence
from lightning_prompts.files.console import fail
from lightning_prompts.files.option_names import speaking_flags

# What runs otherwise than through Lightning's command line, each with its own options.
OTHERS: Mapping[str, str] = {
    "check": "lightning_prompts.studies.check:check",
    "demo": "lightning_prompts.studies.demo:demo",
    "style": "lightning_prompts.cli.style:style",
    "study": "lightning_prompts.studies.command:study",
    "measure": "lightning_prompts.studies.measure:measure",
    "inspect": "lightning_prompts.studies.inspect:inspect",
    "transfer": "lightning_prompts.studies.transfer:transfer",
    "validity": "lightning_prompts.studies.validity:validity",
    "export": "lightning_prompts.cli.export:export",
    "report": "lightning_prompts.cli.report:report",
}


@speaking_flags()
def main(args: ArgsType = None, run: bool = True, show: bool = True) -> PromptCLI | None:
    """Entry point of `lightning-prompts`.

    Args:
        args: As on the command line, which is the default.
        run: False builds everything that the arguments name and runs nothing.
        show: False leaves out the closing table.

    Raises:
        SystemExit: 0 after help, 2 after a mistake that the user can fix, 130 or 143 where a
            signal stopped it.
    """
    given: Any = sys.argv[1:] if args is None else args
    debug = isinstance(given, list) and "--debug" in given
    silence()
    if (here := os.getcwd()) not in sys.path:
        sys.path.append(here)  # the user's own classes; last, so that they hide no library
    try:
        if isinstance(given, dict | Namespace):
            return PromptCLI(given, run, show)
        answer(given)
        given = [arg for arg in given if arg != "--debug"]
        if other := OTHERS.get(given[0]):
            module, _, name = other.partition(":")
            getattr(importlib.import_module(module), name)(given[1:])
            return None
        return PromptCLI(given, run, show)
    except BaseException as error:
        found = ending(error, debug)
        if found is None:
            raise
        code, message = found
    fail(message)
    raise SystemExit(code)
