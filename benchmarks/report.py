"""The table of all lines, with the machine and what is compared."""

import importlib.metadata
import os
import platform
from collections.abc import Iterable
from pathlib import Path

import torch

from benchmarks.lines import Line

PACKAGES = ("torch", "transformers", "lightning", "peft", "sentence-transformers", "nanogcg")
HEAD = ("work", "against", "n", "theirs", "ours", "ratio", "asked", "met", "the same")
EXPLANATIONS = """\
Times and memory are medians over the n repetitions, the least and the greatest in brackets; the two
ways of a line run in turn in one process. A ratio is of the medians: *times as fast*, or *times the
cost*. "The same" says in what the results of both ways were compared, and their relative
difference (Euclidean norms); where it is more than rounding, the benchmark stops without a table.
P prompt tokens, T text tokens, B rows.

- **Soft step**: forward, backward and optimizer (AdamW), prompt first, all texts of T tokens. Ours
  is the tuner's own `training_step`: cross-entropy over the verbalizer's two words. *PEFT as
  shipped* is `get_peft_model` with `PromptTuningConfig` and
  `model(input_ids, attention_mask, labels)`: cross-entropy over the vocabulary at the answer (all
  other labels are -100), logits of all positions; the answer is the last of T + 1 tokens, because
  its loss shifts the labels. With *logits_to_keep=1* it reads T tokens, makes one position's logits
  of the whole vocabulary, and takes the verbalizer's words of them, which is the loss of ours. For
  "the same", ours takes the peer's loss. PEFT's model is in eval mode, so that dropout neither
  costs it time nor changes its numbers, and both use torch's fused attention unless the project
  chooses another.
- **Peak memory**: what torch has allocated at most, weights included, each way alone on the GPU;
  ours not compiled.
- **PEZ step**: as the soft step; one projection more. Loss and gradient equal those of a soft step
  at the projected rows.
- **Step in Trainer.fit**: with the data module's loader and Lightning's loop, without logger,
  checkpoints, validation or progress bar.
- **PEZ projection**: nearest tokens by cosine and their rows. The published way normalises prompt
  and table at each call, searches with `sentence_transformers.util.semantic_search`, and makes the
  ids from Python numbers.
- **RLPrompt reward**: the published way takes one prompt after another: strings, tokens, one pass
  with logits of all positions; its model has the project's kernels.
- **Validation**: `Trainer.validate` with the callbacks Faithfulness, Scrutability and PromptText
  (which writes in `fit` alone), against none. The baselines (no prompt, calibrated, majority) are
  not counted: they are computed once a run. The prompt is another one at each repetition, so
  nothing is remembered from the last.
- **GCG step**: the gradient at the prompt's tokens and the losses of the same 64 candidates, each
  with one token replaced, behind one text of 128 tokens; drawing candidates and filters are not in
  it. Ours takes both over the verbalizer's two words, nanoGCG over the vocabulary at the target
  word; for "the same", ours takes the peer's loss. The text's keys and values are kept from step to
  step in ours; nanoGCG has a prefix cache for that, but it fails under transformers 5 and is off.
- **--help**: whole processes.
"""
EXPLANATIONS_OF_LONG = """\
Each repetition is a command of its own, the two sides in turn (ours, theirs, theirs, ours). Times
and memory as above; a command's memory is the peak of its largest process. *This project at* a
commit is that commit's package and configurations under the same Python and packages. *PEFT, plain
loop* is `get_peft_model` with `PromptTuningConfig`, a `DataLoader` that pads a batch to its longest
row, AdamW with the same learning rate and schedule, and plain passes over the validation rows for
their accuracy; its loss is over the vocabulary at the answer, and it measures nothing else. Who has
not reached the accuracy counts with the whole run, a lower bound. A step of guided search is timed
between the first and the last step's log entries.
"""


def report(lines: Iterable[Line], parameters: str) -> str:
    """Everything in Markdown.

    Args:
        lines: In the order of the table.
        parameters: The model's size in words.
    """
    return "\n".join(
        [
            "# Benchmarks",
            "",
            f"GPT-2 of {parameters} parameters with random weights. {machine()}",
            "",
            *table(lines),
            "",
            EXPLANATIONS,
            "Written by `make bench`.",
            "",
        ]
    )


def table(lines: Iterable[Line]) -> list[str]:
    """All lines with the names of the columns."""
    return [f"| {' | '.join(HEAD)} |", f"|{' --- |' * len(HEAD)}", *map(row, lines)]


def row(line: Line) -> str:
    """One line of the table."""
    kind = "times the cost" if line.cost else "times as fast"
    asked = "" if line.asked is None else f"at {'most' if line.cost else 'least'} {line.asked:g}"
    cells = [line.work, line.peer]
    if line.theirs is None or line.ours is None:
        cells += ["", "", "", f"not run: {line.why_not}", asked, "", ""]
    else:
        met = {None: "", True: "yes", False: "no"}[line.met]
        count, ratio = str(len(line.ours.values)), f"{line.ratio:.2f} {kind}"
        cells += [count, str(line.theirs), str(line.ours), ratio, asked, met, line.same]
    return f"| {' | '.join(cells)} |"


def machine() -> str:
    """Processor, cores, threads, GPU and versions."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    versions = ", ".join(f"{name} {version}" for name in PACKAGES if (version := _version(name)))
    return (
        f"{_processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads; {gpu}; "
        f"Python {platform.python_version()}, {versions}."
    )


def _processor() -> str:
    described = Path("/proc/cpuinfo")
    if described.is_file():
        for text in described.read_text(encoding="utf-8").splitlines():
            if text.startswith("model name"):
                return text.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
