"""`lightning-prompts report`: a page, figures and tables of studies and runs."""

from collections.abc import Sequence
from pathlib import Path

from rich.text import Text

from lightning_prompts.cli.parser import PromptParser
from lightning_prompts.files.console import console
from lightning_prompts.files.errors import PromptError
from lightning_prompts.files.text import PROGRAM


def report(args: Sequence[str]) -> None:
    """Read the paths, write the report, and name the page.

    Args:
        args: As on the command line; `--help` lists them.

    Raises:
        PromptError: If there is nothing to report, or no place to write it.
    """
    from lightning_prompts.report.load import WHAT
    from lightning_prompts.report.writing import write_report  # loads matplotlib

    if not args:
        raise PromptError(f"Say what to report: {PROGRAM} report PATH; {WHAT}.")
    given = parser().parse_args(list(args))
    folder = Path(given.output) if given.output else default_folder(given.paths)
    written = write_report(given.paths, folder)
    console.print(Text(f"Report: {written}"), soft_wrap=True)


def parser() -> PromptParser:
    """The command's options."""
    known = PromptParser(
        prog=f"{PROGRAM} report",
        description="Draw what studies and runs show: report.html, figures, results.csv, "
        "results.md.",
        allow_abbrev=False,
    )
    known.add_argument(
        "paths",
        nargs="+",
        metavar="PATH",
        help="A study's folder, a run's folder, a folder with runs in it, or an Optuna URL "
        "(sqlite:///study.db#NAME).",
    )
    known.add_argument(
        "--output",
        type=str | None,
        default=None,
        metavar="FOLDER",
        help="Where to write; by default `report` in the one folder given, else logs/report.",
    )
    return known


def default_folder(paths: Sequence[str]) -> Path:
    """`report` inside the one folder that was given, else logs/report."""
    if len(paths) == 1 and "://" not in paths[0]:
        path = Path(paths[0])
        return (path if path.is_dir() else path.parent) / "report"
    return Path("logs") / "report"
