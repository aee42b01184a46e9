"""Bad inputs, each run for real, as a table."""

import itertools
import os
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lightning_prompts.files.text import shorten
from lightning_prompts.report.text import markdown
from soak import wrong_files, wrong_models, wrong_options, wrong_places
from soak.case import MISTAKE, SLOW, Case, Outcome, environment, run_case
from soak.world import damaged, make_world

EACH = 16  # of so many cases one is run in a new process as well
LONGEST = 220  # characters of a message in the table


def cases() -> Iterator[Case]:
    """The whole catalogue."""
    yield from itertools.chain(
        *(part.cases() for part in (wrong_options, wrong_files, wrong_models, wrong_places))
    )


def main(folder: Path) -> str:
    """Run the catalogue.

    Args:
        folder: Empty; for everything that the cases read and write.

    Returns:
        The section in Markdown.
    """
    os.environ.update(environment(folder))
    world = make_world(folder)
    before = world.digests()
    runs = []
    for number, case in enumerate(cases()):
        place = folder / "cases" / str(number)
        run = Run(run_case(case, world, place, fresh=False))
        if number % EACH == 0 and not case.alone:
            run.fresh = run_case(case, world, place.with_name(f"{number}-fresh"))
        runs.append(run)
    return section(runs, damaged(before, world.digests()), len(before))


@dataclass
class Run:
    """A case run once, and some of them twice.

    Attributes:
        outcome: Of a fork of a process that knows the libraries, or of a new one (`Case.alone`).
        fresh: Of a new process, where there was a second run.
    """

    outcome: Outcome
    fresh: Outcome | None = None

    @property
    def faults(self) -> list[str]:
        """What is wrong with either run, or differs between them."""
        found = list(self.outcome.faults)
        if self.fresh is not None:
            found += [f"{fault} (new process)" for fault in self.fresh.faults]
            if self.fresh.status != self.outcome.status:
                found.append("another exit status in a new process")
        return found

    @property
    def started(self) -> Outcome | None:
        """The run in a new process."""
        return self.outcome if self.outcome.case.alone else self.fresh


def section(runs: Sequence[Run], harmed: Sequence[str], files: int) -> str:
    """What was found, and the table."""
    outcomes = [run.outcome for run in runs]
    own = sorted(o.seconds for o in outcomes if not o.case.alone)
    started = [run.started for run in runs if run.started is not None]
    spent = sorted(outcome.processor or 0.0 for outcome in started)
    waited = sorted(outcome.seconds for outcome in started)
    refused = sum(outcome.status == MISTAKE for outcome in outcomes)
    faulty = [run for run in runs if run.faults]
    said = [
        f"{len(runs)} command lines, each really run: {refused} were refused with exit status "
        f"{MISTAKE}; {len(runs) - refused} were no mistake after all and ran. In forks of a "
        f"process that had loaded the libraries they took {statistics.median(own):.1f} s in the "
        f"median and {own[-1]:.1f} s at most. {len(started)} were run in new processes, start of "
        f"Python and libraries included: {statistics.median(spent):.1f} s of a processor in the "
        f"median and {spent[-1]:.1f} s at most ({sum(s > SLOW for s in spent)} took more than "
        f"{SLOW:.0f} s). By the clock it was {statistics.median(waited):.1f} s in the median and "
        f"{waited[-1]:.1f} s at most, at a load of {os.getloadavg()[1]:.0f} on {os.cpu_count()} "
        "processors.",
        f"Of the {files} files of models, data and the finished run that were there before, "
        f"{len(harmed)} were changed or removed.",
        f"Not as they should be: {len(faulty)}."
        + "".join(
            f" {run.outcome.case.group}, {run.outcome.case.name}: {', '.join(run.faults)}."
            for run in faulty
        ),
    ]
    head = [
        "| kind | mistake | exit | seconds | processor, with start | message |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    return "\n\n".join(said) + "\n\n" + "\n".join([*head, *map(line, runs)])


def line(run: Run) -> str:
    """One line of the table."""
    outcome, case = run.outcome, run.outcome.case
    message = "ran" if outcome.status == 0 else markdown(shorten(outcome.message, LONGEST))
    status = "hung" if outcome.status is None else outcome.status
    own = "" if case.alone else f"{outcome.seconds:.1f}"
    started = "" if run.started is None else f"{run.started.processor:.1f}"
    name = markdown(shorten(case.name, 80))
    return f"| {case.group} | {name} | {status} | {own} | {started} | {message} |"
