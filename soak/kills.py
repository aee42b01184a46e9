"""A run that is killed again and again ends as one that was left alone, to the last bit."""

import os
import random
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from soak.runs import Process, Runs, step_of

STEPS, EVERY = 200, 10
OPTIONS = (
    *("--config", "configs/tuner/soft.yaml", "--data.batch_size", "8"),
    *("--data.val_batch_size", "4", "--trainer.max_steps", str(STEPS)),
    *("--trainer.val_check_interval", str(EVERY), "--trainer.log_every_n_steps", "1"),
    *("--trainer.enable_progress_bar", "false"),
)
TWO = ("--trainer.accelerator", "cpu", "--trainer.devices", "2", "--trainer.strategy", "ddp")


def main(folder: Path) -> str:
    """20 SIGKILLs of one run, and 5 SIGTERMs of one under two processes."""
    alone, two = Runs(folder / "alone", OPTIONS), Runs(folder / "two", (*OPTIONS, *TWO))
    killed = stopped_and_resumed(alone, 20, kill, seed=0)
    termed = stopped_and_resumed(two, 5, terminate, seed=1, in_training=True)
    return f"""\
One run of {STEPS} steps (soft prompt, tiny model, float32 or bfloat16 as the machine computes,
validations of 6 batches every {EVERY} steps, all steps logged), stopped at random moments and gone
on with by `fit --ckpt_path last`. For SIGKILL a moment is drawn between the line that says what
runs on what, before anything is read back, and somewhat more than a share of the run's own time
later. For SIGTERM it lies after the next checkpoint: before the first step that signal ends a
process as it would any other.

| stopped by | times | at a checkpoint of step | same as uninterrupted |
| --- | --- | --- | --- |
| SIGKILL, one process | {len(killed)} | {_listed(killed)} | yes, to the last bit |
| SIGTERM, two processes (gloo), to the first or to both | {len(termed)} | {_listed(termed)} | \
yes, to the last bit |

Compared: prompt, AdamW's state, schedule, tokens counted, history of validations, every value in
the event files (but for a step's own `train/` values where they are missing just before a
validation, see above), and `prompt.json`. A step of 0 means that nothing had been saved yet, and
the run began anew; the same step twice means that no further checkpoint was reached in between."""


def stopped_and_resumed(
    runs: Runs,
    times: int,
    stop: Callable[[Process, random.Random], None],
    seed: int,
    in_training: bool = False,
) -> list[int]:
    """Stop a run several times, go on with it to its end, and compare it with one left alone.

    Args:
        runs: Of the same options.
        times: How often to stop it.
        stop: Does it.
        seed: Of the moments.
        in_training: Whether each moment comes after the next checkpoint.

    Returns:
        The step of the last checkpoint at each stop.

    Raises:
        AssertionError: If the two differ in any bit.
    """
    draw = random.Random(seed)
    process = _moving(runs, "full", in_training)
    start = time.monotonic()
    if (status := process.wait()) != 0:
        raise RuntimeError(f"Exit status {status}: {process.said()[-2000:]}")
    # Where what is not yet saved is lost each time, somewhat more than a share.
    longest = (1 if in_training else 2.6) * (time.monotonic() - start) / (times + 1)
    steps: list[int] = []
    while len(steps) < times:
        process = _moving(runs, "stopped", in_training)
        time.sleep(draw.uniform(0, longest))
        if process.process.poll() is not None:
            break  # the end was reached before as many stops
        stop(process, draw)
        process.wait()
        steps.append(step_of(runs.run("stopped")))
    if process.process.returncode != 0:
        runs.finish("stopped")
    runs.assert_equal("stopped", "full")
    return steps


def _moving(runs: Runs, name: str, in_training: bool) -> Process:
    """A run that has begun, or has saved a checkpoint since."""
    before = step_of(runs.run(name))
    process = runs.start(name)
    reached = (lambda: step_of(runs.run(name)) > before) if in_training else process.has_begun
    if not process.wait_until(reached):
        raise RuntimeError(f"It ended by itself: {process.said()[-2000:]}")
    return process


def kill(process: Process, draw: random.Random) -> None:
    """As the system does where memory is short."""
    process.process.send_signal(signal.SIGKILL)


def terminate(process: Process, draw: random.Random) -> None:
    """As a cluster does: to the first process alone, or to all of them."""
    if draw.random() < 0.5:
        process.process.send_signal(signal.SIGTERM)
    else:
        os.killpg(process.process.pid, signal.SIGTERM)


def _listed(steps: Sequence[int]) -> str:
    return ", ".join(map(str, steps))
