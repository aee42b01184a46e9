"""Times the project's ways against its peers', in turn and in one process, and writes a table.

python -m benchmarks
python -m benchmarks --only soft,pez --repetitions 3
"""

import argparse
import dataclasses
import logging
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
import transformers
from transformers import GPT2LMHeadModel

from benchmarks.gcg import gcg
from benchmarks.lines import Line
from benchmarks.loop import loop
from benchmarks.projection import projection
from benchmarks.report import report, row
from benchmarks.reward import reward
from benchmarks.sections import write_section
from benchmarks.setting import Setting, save_random_model
from benchmarks.start import start
from benchmarks.steps import memory, pez, soft
from benchmarks.validation import validation

PARTS: dict[str, Callable[[Setting], Iterator[Line]]] = {
    "soft": soft,
    "memory": memory,
    "loop": loop,
    "pez": pez,
    "projection": projection,
    "reward": reward,
    "gcg": gcg,
    "validation": validation,
    "help": start,
}
RESULTS = Path(__file__).with_name("results.md")


def main(args: Sequence[str] | None = None) -> None:
    """Measure, show a table and write it.

    Raises:
        SystemExit: If two ways do not compute the same: then nothing is written.
    """
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--only", default=",".join(PARTS), help="parts by name (default: %(default)s)"
    )
    parser.add_argument("--repetitions", type=int, default=7, help="of each way (default: 7)")
    parser.add_argument("--small", action="store_true", help="a tiny model, to try the script")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: each that is there")
    parser.add_argument(
        "--output", type=Path, help=f"default: {RESULTS.name}, where all is run and not --small"
    )
    given = parser.parse_args(args)
    names = given.only.split(",")
    if unknown := set(names) - PARTS.keys():
        parser.error(f"--only names {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}.")
    whole = names == list(PARTS) and not given.small and given.device is None
    output = given.output or (RESULTS if whole else None)
    transformers.utils.logging.disable_progress_bar()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        # Of a module without a trainer, whose log goes nowhere, and of loaders without workers.
        warnings.filterwarnings("ignore", module="lightning")
        warnings.filterwarnings("ignore", category=FutureWarning)  # of what PEFT reads
        save_random_model(Path(folder), given.small)
        count = sum(p.numel() for p in GPT2LMHeadModel.from_pretrained(folder).parameters())
        lines = []
        for line in measure(Setting("cpu", Path(folder), given.repetitions), names, given.device):
            sys.stderr.write(row(line) + "\n")
            lines.append(line)
    text = report(lines, f"{count / 1e6:.3g}M")
    if output is not None:
        write_section(output, "bench", text)
    sys.stdout.write(text)


def measure(setting: Setting, names: Sequence[str], device: str | None) -> Iterator[Line]:
    """The lines of each part, on the CPU and on a GPU; without one they say so."""
    missing = None if torch.cuda.is_available() else "no GPU"
    settings = [setting, dataclasses.replace(setting, device="cuda", missing=missing)]
    for name in names:
        for each in settings:
            if device in (None, each.device):
                yield from PARTS[name](each)


if __name__ == "__main__":
    main()
