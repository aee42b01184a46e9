"""The command's start: its `--help` against that of Lightning's own demo."""

import subprocess
import sys
from collections.abc import Iterator

from benchmarks.lines import Line, alternate
from benchmarks.setting import Setting

HEAVY = ("transformers", "datasets")
OURS = "import sys; sys.argv[0] = 'lightning-prompts'; import lightning_prompts.__main__ as m; "
BARE = (
    "from lightning.pytorch.cli import LightningCLI; "
    "from lightning.pytorch.demos.boring_classes import BoringDataModule, DemoModel; "
    "LightningCLI(DemoModel, BoringDataModule)"
)
# On stderr, which the help does not use.
TELL = (
    "import atexit, sys; atexit.register(lambda: sys.stderr.write("
    f"'loaded: ' + ' '.join(m for m in {HEAVY!r} if m in sys.modules) + chr(10))); "
)


def start(setting: Setting) -> Iterator[Line]:
    """Whole processes, from their start to their end."""
    if setting.device != "cpu":
        return
    line = Line("lightning-prompts --help", "LightningCLI(DemoModel, ...) --help", 1.2, cost=True)
    told = run_help(TELL + OURS + "m.run()").rpartition("loaded:")[2].split()
    ways = {"theirs": lambda: run_help(BARE), "ours": lambda: run_help(OURS + "m.run()")}
    measured = alternate(ways, setting.repetitions)
    words = f"{' and '.join(told) or 'neither ' + ' nor '.join(HEAVY)} imported"
    yield line.result(measured["theirs"], measured["ours"], words, besides=not told)


def run_help(code: str) -> str:
    """What Python code says on stderr when run with `--help`."""
    command = [sys.executable, "-c", code, "--help"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if run.returncode or "usage:" not in run.stdout:
        raise SystemExit(f"--help failed:\n{run.stderr[-2000:]}")
    return run.stderr
