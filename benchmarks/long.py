"""Whole commands, in turn, each in processes of its own; goes on where it was stopped.

python -m benchmarks.long
python -m benchmarks.long --only fit,demo --repetitions 1 --base f3becd1 --folder ../old
"""

import argparse
import contextlib
import json
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from benchmarks import commands
from benchmarks.builds import ROOT, Build, checked_out, working_tree
from benchmarks.installed import not_installed
from benchmarks.jobs import Job, Place
from benchmarks.lines import Line
from benchmarks.peaks import memory
from benchmarks.records import Record, Records
from benchmarks.report import EXPLANATIONS_OF_LONG, machine, table
from benchmarks.sections import write_section
from benchmarks.tiny import save_tiny

PARTS: dict[str, Callable[[Place], Iterator[Job]]] = {
    "demo": commands.demo,
    "fit": commands.fit,
    "accuracy": commands.accuracy,
    "first_step": commands.first_step,
    **{name: partial(commands.guided, name=name) for name in commands.GUIDED},
    "memory": memory,
    "study": commands.study,
}
BASE = "f3becd1"
HERE = Path(__file__).parent


def main(args: Sequence[str] | None = None) -> None:
    """Measure what is asked for, and write all that was measured of these builds."""
    parser = argparse.ArgumentParser(prog="benchmarks.long", description=__doc__.splitlines()[0])
    parser.add_argument("--only", default=",".join(PARTS), help="names (default: %(default)s)")
    parser.add_argument("--repetitions", type=int, default=3, help="of each side (default: 3)")
    parser.add_argument("--small", action="store_true", help="a tiny model, to try the script")
    parser.add_argument(
        "--base", default=BASE, help="commit to compare with (default: %(default)s)"
    )
    parser.add_argument(
        "--folder", type=Path, help="its worktree, which stays; else a temporary one"
    )
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared/data/sst2", help="SST-2")
    parser.add_argument(
        "--records", type=Path, default=HERE / "long.jsonl", help="repetitions made"
    )
    parser.add_argument(
        "--output", type=Path, help="default: results.md, with --small none but the screen"
    )
    given = parser.parse_args(args)
    names = given.only.split(",")
    if unknown := set(names) - PARTS.keys():
        parser.error(f"--only names {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}.")
    output = given.output or (None if given.small else HERE / "results.md")
    records = Records(given.records)
    # As Ctrl-C does: what is under way is stopped, and what was made is kept.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        theirs = stack.enter_context(checked_out(given.base, given.folder))
        place = _place(given.small, given.data, scratch, theirs)
        for name in names:
            for job in PARTS[name](place):
                measure(job, place, records, given.repetitions)
                text = section(place, records)
                if output is not None:  # after each, so that a stopped run has written
                    write_section(output, "long", text)
    sys.stdout.write(section(place, records) + "\n")


def measure(job: Job, place: Place, records: Records, repetitions: int) -> None:
    """Make the repetitions that are not there yet, the sides in turn."""
    if job.peer == "peft" and not_installed(["peft"]):
        return
    group, key = group_of(job, place), key_of(job)
    sides = list(job.ways)
    for repetition in range(min(repetitions, job.most or repetitions)):
        for side in sides if repetition % 2 else reversed(sides):
            if records.has(key, group, side, repetition):
                continue
            for build in place.builds.values() if job.peer == "build" else [place.ours]:
                place.warm(build)
            found = job.ways[side](repetition)
            records.add(Record(key, group, side, repetition, found.values, found.found))
            numbers = {name: round(value, 3) for name, value in found.values.items()}
            sys.stderr.write(f"{key}, {side}, {repetition}: {json.dumps(numbers)}\n")


def section(place: Place, records: Records) -> str:
    """What was measured of all comparisons, as Markdown."""
    lines = [
        line for part in PARTS.values() for job in part(place) for line in made(job, place, records)
    ]
    return "\n".join(
        [
            "## Whole commands",
            "",
            f"SmolLM2 (135M). {machine()} Ours is the package `{place.ours.name}`.",
            "",
            *table(lines),
            "",
            EXPLANATIONS_OF_LONG,
            "Written by `make bench-long`.",
        ]
    )


def made(job: Job, place: Place, records: Records) -> Iterator[Line]:
    """The lines of a comparison, of the builds at hand or those that were measured last."""
    key, group = key_of(job), group_of(job, place)
    there = records.of(key, group, job.ways)
    other = records.latest_group(key, group.partition(" ")[0])
    if not any(there.values()) and other is not None:
        there, group = records.of(key, other, job.ways), other
    stale = "" if group == group_of(job, place) else f" ({group.partition(' ')[2]})"
    absent = not_installed(["peft"]) if job.peer == "peft" else None
    for line in job.lines(there):
        if line.ours is None:
            yield line.not_run(absent) if absent else line
        else:
            yield line.result(line.theirs, line.ours, line.same + stale, line.besides)


def key_of(job: Job) -> str:
    """Names the comparison in the file of records."""
    return f"{job.name}/{job.peer}"


def group_of(job: Job, place: Place) -> str:
    """Size, and the builds on both sides."""
    theirs = place.theirs.name if job.peer == "build" else "peft"
    return f"{'small' if place.small else 'whole'} ours {place.ours.name}, theirs {theirs}"


def _place(small: bool, data: Path, scratch: Path, theirs: Build) -> Place:
    """Real model and data, or tiny ones."""
    if small:
        folder = save_tiny(scratch / "tiny")
        lm = folder / "lm"
        return Place(working_tree(), theirs, folder / "data", scratch, str(lm), lambda: lm, True)
    return Place(working_tree(), theirs, data.resolve(), scratch, "smollm2", _weights)


def _weights() -> Path:
    """The folder that the packaged model was converted into."""
    from lightning_prompts.lm.sources import converted_folder, find_model

    return converted_folder(find_model("smollm2"))


if __name__ == "__main__":
    main()
