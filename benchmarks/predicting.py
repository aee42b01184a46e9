"""Rate of `predict`, the whole command, against bare passes of the model over the same rows.

python -m benchmarks.predicting --run logs/guided_search-sst2/version_0 --lm smollm2 --rows FILE

Both at the same time, a process and a thread each, so that what else the machine does it does to
both. The command counts from its start; of the passes, neither reading nor tokenizing counts.
"""

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.builds import ROOT

BATCH, WINDOW = 64, 2048  # rows in a pass, and rows sorted by length together, as in the command


class Took(NamedTuple):
    """Seconds of both clocks, and the label that each row was given."""

    clock: float
    processor: float
    labels: list[str]


def main(args: Sequence[str] | None = None) -> None:
    """Run both, and print the ratio of their rates."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.predicting", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--run", type=Path, required=True, help="of a prompt of tokens, text last")
    parser.add_argument("--lm", required=True, help="its model")
    parser.add_argument("--rows", type=Path, required=True, help="JSON lines with a text")
    given = parser.parse_args(args)
    run, rows = given.run.resolve(), given.rows.resolve()
    os.environ["OMP_NUM_THREADS"] = "1"
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        theirs = pool.apply_async(passes, (run, given.lm, rows))
        ours = command(run, given.lm, rows)
        bare = theirs.get()
    same = sum(a == b for a, b in zip(ours.labels, bare.labels, strict=True))
    print(f"{len(ours.labels)} rows, {same} answered alike")  # noqa: T201
    for name in ("clock", "processor"):
        mine, other = getattr(ours, name), getattr(bare, name)
        print(  # noqa: T201
            f"{name}: predict {mine:.0f} s, passes {other:.0f} s, rate {other / mine:.2f} of theirs"
        )


def command(run: Path, lm: str, rows: Path) -> Took:
    """The whole command, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "predictions.jsonl"
        options = [
            *("--config", str(run / "config.yaml"), "--ckpt_path", "best", "--lm.name", lm),
            *("--data.predict", str(rows), "--predictions.path", str(path)),
        ]
        begun = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "lightning_prompts", "predict", *options],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
        )
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begun
        if status:
            raise SystemExit("predict has failed.")
        lines = path.read_text(encoding="utf-8").splitlines()
    labels = [str(json.loads(line)["label"]) for line in lines]
    return Took(seconds, used.ru_utime + used.ru_stime, labels)


def passes(run: Path, name: str, rows: Path) -> Took:
    """The model's own passes over rows of token ids, and the logits of one position."""
    import torch

    from lightning_prompts import FrozenLM, load_prompt

    lm = FrozenLM(name)
    prompt = load_prompt(run, lm)
    answers = [tokens[0][0] for tokens in prompt.verbalizer.tokens]
    labels = [str(label) for label in prompt.verbalizer.labels]
    lines = rows.read_text(encoding="utf-8").splitlines()
    ids = [lm.encode(json.loads(line)["text"]) + prompt.ids for line in lines]
    order = [
        i
        for start in range(0, len(ids), WINDOW)
        for i in sorted(range(start, min(start + WINDOW, len(ids))), key=lambda i: -len(ids[i]))
    ]
    found = [""] * len(ids)
    begun, processor = time.perf_counter(), time.process_time()
    with torch.inference_mode():
        for start in range(0, len(order), BATCH):
            batch = order[start : start + BATCH]
            length = max(len(ids[i]) for i in batch)
            padded = torch.tensor([ids[i] + [0] * (length - len(ids[i])) for i in batch])
            last = torch.tensor([len(ids[i]) - 1 for i in batch])
            mask = torch.arange(length) <= last[:, None]
            states = lm.body(input_ids=padded, attention_mask=mask)[0]
            logits = lm.logits(states[torch.arange(len(batch)), last])[:, answers]
            for i, best in zip(batch, logits.argmax(-1).tolist(), strict=True):
                found[i] = labels[best]
    return Took(time.perf_counter() - begun, time.process_time() - processor, found)


if __name__ == "__main__":
    main()
