"""Runs parts of the soak and writes what was seen into docs/reliability.md.

python -m soak            # all parts, in the order of the document
python -m soak kills disk
"""

import argparse
import importlib
import os
import platform
import re
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "reliability.md"
MARK = re.compile(r"<!-- ([\w-]+) -->")


def main(args: Sequence[str] | None = None) -> None:
    """Run parts, each in a folder of its own that is removed afterwards.

    Raises:
        SystemExit: 2 for a part that the document has no place for; 1 where one ended with an
            error, whose section stays as it was.
    """
    known = MARK.findall(DOCUMENT.read_text(encoding="utf-8"))
    parser = argparse.ArgumentParser(prog="soak", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(known)}")
    names = parser.parse_args(args).names or known
    if unknown := [name for name in names if name not in known]:
        parser.error(f"{', '.join(unknown)}: {DOCUMENT.name} has marks for {', '.join(known)}.")
    failed = []
    for name in names:
        start = time.monotonic()
        sys.stderr.write(f"{name} …\n")
        with tempfile.TemporaryDirectory(prefix=f"soak-{name}-") as folder:
            try:
                section = importlib.import_module(f"soak.{name}").main(Path(folder).resolve())
            except Exception as error:
                failed.append(name)
                traceback.print_exception(error)
                continue
        write(name, f"{section.strip()}\n\n{_circumstances(time.monotonic() - start)}")
    if failed:
        raise SystemExit(1)


def write(name: str, section: str) -> None:
    """Replace what stands between a part's marks."""
    text = DOCUMENT.read_text(encoding="utf-8")
    first, last = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, _, rest = text.partition(first)
    _, found, after = rest.partition(last)
    if not found:
        raise ValueError(f"{DOCUMENT.name} has no mark {last}")
    DOCUMENT.write_text(f"{before}{first}\n{section}\n{last}{after}", encoding="utf-8")


def _circumstances(seconds: float) -> str:
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "lightning"))
    return (
        f"Run in {seconds / 60:.0f} min on {platform.system()} with {os.cpu_count()} cores, Python "
        f"{platform.python_version()}, {versions}."
    )


if __name__ == "__main__":
    main()
