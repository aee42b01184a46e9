"""A long run: the process's memory, and the sizes of what it writes."""

import itertools
import json
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback

from soak.runs import Runs

STEPS, EVERY, WARM_UP = 10_000, 500, 2_000
ALLOWED = 0.01
LONG = 3600.0  # a run that takes longer hangs
OPTIONS = (
    *("--config", "configs/tuner/soft.yaml", "--data.batch_size", "8"),
    *("--trainer.max_steps", str(STEPS), "--trainer.val_check_interval", str(EVERY)),
    *("--trainer.enable_progress_bar", "false", "--trainer.callbacks+=soak.memory.Watch"),
)
SEEN = "memory.jsonl"
MIB = 2**20


class Watch(Callback):
    """Writes down the process's memory every 1,000 steps, in the working directory."""

    def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
        """Write it down."""
        if trainer.global_step % 1000 == 0:
            with Path(SEEN).open("a", encoding="utf-8") as file:
                file.write(json.dumps([trainer.global_step, resident()]) + "\n")


def main(folder: Path) -> str:
    """10,000 steps with validations.

    Raises:
        AssertionError: If the memory grows by more than is allowed.
    """
    runs = Runs(folder, OPTIONS)
    runs.finish("long", seconds=LONG)
    lines = (folder / SEEN).read_text(encoding="utf-8").splitlines()
    seen = [json.loads(line) for line in lines]
    grown = growth(seen)
    run = runs.run("long")
    events = sum(path.stat().st_size for path in run.rglob("events*"))
    sizes = {p.name: p.stat().st_size for p in sorted((run / "checkpoints").iterdir())}
    section = f"""\
{STEPS:,} steps of the tiny model (soft prompt, P = 10, batches of 8) with a validation every
{EVERY}, every 10th step logged.

| step | {" | ".join(f"{step:,}" for step, _ in seen)} |
| --- | {" | ".join("---" for _ in seen)} |
| resident memory, MiB | {" | ".join(f"{size / MIB:.1f}" for _, size in seen)} |
| growth over 1,000 steps | {" | ".join(["", *(f"{100 * g:+.2f} %" for g in grown)])} |

After {WARM_UP:,} steps the largest growth over 1,000 steps is
{100 * max(grown[WARM_UP // 1000 - 1 :]):.2f} % ({100 * ALLOWED:.0f} % is allowed). Event files:
{events / MIB:.2f} MiB, {events / STEPS:.0f} bytes a step. Checkpoints:
{", ".join(f"{name} {size / 1000:.0f} kB" for name, size in sizes.items())}."""
    assert max(grown[WARM_UP // 1000 - 1 :]) < ALLOWED, section
    return section


def growth(seen: list[list[int]]) -> list[float]:
    """Of each measurement over the one before it, as a share."""
    sizes = [size for _, size in seen]
    return [after / before - 1 for before, after in itertools.pairwise(sizes)]


def resident() -> int:
    """Bytes of this process that are in memory, on Linux."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status does not say how much memory is in use")
