"""Bad inputs, each run for real in a process of its own, as a table."""

import itertools
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

from soak import wrong_files, wrong_options, wrong_places
from soak.case import MISTAKE, SLOW, Case, Outcome, environment, run_case
from soak.world import damaged, make_world

LONGEST = 220  # characters of a message in the table


def cases() -> Iterator[Case]:
    """The whole catalogue."""
    yield from itertools.chain(wrong_options.cases(), wrong_files.cases(), wrong_places.cases())


def main(folder: Path) -> str:
    """Run the catalogue.

    Args:
        folder: Empty; for everything that the cases read and write.

    Returns:
        The section in Markdown.
    """
    import os

    os.environ.update(environment(folder))
    world = make_world(folder)
    before = world.digests()
    outcomes = [
        run_case(case, world, folder / "cases" / str(number)) for number, case in enumerate(cases())
    ]
    return section(outcomes, damaged(before, world.digests()), len(before))


def section(outcomes: Sequence[Outcome], harmed: Sequence[str], files: int) -> str:
    """What was found, and the table."""
    seconds = sorted(outcome.seconds for outcome in outcomes)
    refused = sum(outcome.status == MISTAKE for outcome in outcomes)
    faulty = [outcome for outcome in outcomes if outcome.faults]
    said = [
        f"{len(outcomes)} command lines, each in a new process: {refused} were refused with exit "
        f"status {MISTAKE}, {len(outcomes) - refused} were no mistake after all and ran.",
        f"Seconds, with the start of Python and the libraries: median "
        f"{statistics.median(seconds):.1f}, longest {seconds[-1]:.1f}; "
        f"{sum(s > SLOW for s in seconds)} took more than {SLOW:.0f}.",
        f"Of the {files} files of the models, the data and the finished run that were there "
        f"before, {len(harmed)} were changed or removed.",
        f"Not as they should be: {len(faulty)}."
        + "".join(f" {o.case.group}, {o.case.name}: {', '.join(o.faults)}." for o in faulty),
    ]
    head = ["| kind | mistake | exit | seconds | message |", "| --- | --- | --- | --- | --- |"]
    return "\n\n".join(said) + "\n\n" + "\n".join([*head, *map(line, outcomes)])


def line(outcome: Outcome) -> str:
    """One line of the table."""
    from lightning_prompts.report.text import code, markdown, shorten

    case = outcome.case
    message = "ran" if outcome.status == 0 else markdown(shorten(outcome.message, LONGEST))
    status = "hung" if outcome.status is None else outcome.status
    name = code(shorten(case.name, 80)) if "--" in case.name else markdown(case.name)
    return f"| {case.group} | {name} | {status} | {outcome.seconds:.1f} | {message} |"
