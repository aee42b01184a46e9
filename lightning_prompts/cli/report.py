"""`lightning-prompts report`: a page, figures and tables of studies and runs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.text import Text

from lightning_prompts.cli.parser import PromptParser
from lightning_prompts.files.amounts import count
from lightning_prompts.files.console import console
from lightning_prompts.files.errors import PromptError
from lightning_prompts.files.text import PROGRAM
from lightning_prompts.report.rating_sheet import MOST_CONTROLS, make, write
from lightning_prompts.runs.record import RunRecord

TEXT = 28  # characters of a text in a table of 80 columns


def report(args: Sequence[str]) -> None:
    """Read the paths, write the report, and name the page.

    Args:
        args: As on the command line; `--help` lists them.

    Raises:
        PromptError: If there is nothing to report, or no place to write it.
    """
    from lightning_prompts.report.load import WHAT, load

    if not args:
        raise PromptError(f"Say what to report: {PROGRAM} report PATH; {WHAT}.")
    given = parser().parse_args(list(args))
    refuse_apart(given)
    if given.rating_sheet:
        write_sheet(load(given.paths).records, Path(given.rating_sheet), given.controls or 0)
        return
    rated = None
    if given.ratings:
        from lightning_prompts.report.rated_sheets import read_sheets
        from lightning_prompts.report.ratings import Ratings

        key = Path(given.rating_key) if given.rating_key else None
        found = read_sheets([Path(each) for each in given.ratings], key)
        rated = Ratings(*found, load(given.paths).records)
    from lightning_prompts.report.writing import write_report  # loads matplotlib

    folder = Path(given.output) if given.output else default_folder(given.paths)
    written = write_report(given.paths, folder, rated=rated)
    if rated is not None:
        from lightning_prompts.cli.shown import show

        show(rated.tables(TEXT), rated.findings(), written)
        return
    console.print(Text(f"Report: {written}"), soft_wrap=True)


def write_sheet(records: Sequence[RunRecord], path: Path, controls: int) -> None:
    """Write the sheet for raters and its key, and say where they are."""
    key = make(records, controls)
    beside = write(path, key)
    texts = count(len(key.items), "text")
    console.print(Text(f"Sheet: {path} ({texts}; a copy for each rater)"), soft_wrap=True)
    console.print(Text(f"Key: {beside} (not for raters)"), soft_wrap=True)


def refuse_apart(given: Any) -> None:
    """Refuse options that go with another one, without it.

    Raises:
        PromptError: At the first.
    """
    if given.rating_sheet and given.ratings:
        raise PromptError(
            "--rating_sheet writes a sheet and --ratings reads filled ones; give one of them."
        )
    for option, needed in (("controls", "rating_sheet"), ("rating_key", "ratings")):
        if getattr(given, option) is not None and not getattr(given, needed):
            raise PromptError(f"--{option} goes with --{needed}; give both or none.")
    most = MOST_CONTROLS
    if given.controls is not None and not 1 <= given.controls <= most:
        raise PromptError(f"--controls {given.controls}: give a number from 1 to {most}.")


def parser() -> PromptParser:
    """The command's options."""
    known = PromptParser(
        prog=f"{PROGRAM} report",
        description="Draw what studies and runs show: report.html, figures, results.csv, "
        "results.md; or write a sheet for people to rate prompts on, and read it back.",
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
    known.add_argument(
        "--rating_sheet",
        type=str | None,
        default=None,
        metavar="FILE",
        help="Write a sheet (.csv) with the runs' texts in random order, without what made them, "
        "on which people rate them, and its key beside it; no report.",
    )
    known.add_argument(
        "--controls",
        type=int | None,
        default=None,
        metavar="N",
        help="On the sheet also N written prompts, and N written ones with their words shuffled.",
    )
    known.add_argument(
        "--ratings",
        nargs="+",
        metavar="FILE",
        help="Filled copies of the sheet, each named after its rater: what they say, how nearly "
        "they agree, and rank correlations with the measures.",
    )
    known.add_argument(
        "--rating_key",
        type=str | None,
        default=None,
        metavar="FILE",
        help="The sheet's key; by default the one that lies beside a filled copy.",
    )
    return known


def default_folder(paths: Sequence[str]) -> Path:
    """`report` inside the one folder that was given, else logs/report."""
    if len(paths) == 1 and "://" not in paths[0]:
        path = Path(paths[0])
        return (path if path.is_dir() else path.parent) / "report"
    return Path("logs") / "report"
