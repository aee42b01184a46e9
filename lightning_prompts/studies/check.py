"""`lightning-prompts check`: looks at data, answers, time and memory before a fit.

Of each split a sample is tokenized (its median length stands under `tokens`), and the model answers
a few rows; only what is told by the rows themselves is of all of them.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from lightning_prompts.callbacks.rendered import marked
from lightning_prompts.cli.app import PromptCLI
from lightning_prompts.files.amounts import count, share, standard_error
from lightning_prompts.files.console import console, notice
from lightning_prompts.files.escaping import one_line
from lightning_prompts.files.text import first_few, shorten_middle
from lightning_prompts.lm.batch import Example, collate, on_device
from lightning_prompts.lm.class_scores import class_scores
from lightning_prompts.studies.check_costs import (
    CALIBRATED_ON,
    ONE_DEVICE,
    PROBED_TOKENS,
    costs,
    probe,
)
from lightning_prompts.studies.check_data import Split, data_warnings, look_at, word_lines
from lightning_prompts.studies.shared import SharedLM
from lightning_prompts.tasks.rows import SPLIT_SEED, Rows, stratified_order

WARNED = 1  # exit status
SHOWN_ROWS, SHOWN_LABELS = 3, 6
LONGEST = 400  # characters of a row
PASS_TOKENS = 2000  # of a sample that is answered without a prompt: some seconds on a CPU


def check(args: Sequence[str]) -> None:
    """Look before a fit, show what is found, and warn.

    Args:
        args: Options of `fit`.

    Raises:
        PromptError: If the fit cannot run.
        SystemExit: 1 with warnings; 0 after help.
    """
    lm = SharedLM()
    with tempfile.TemporaryDirectory() as folder:
        cli = PromptCLI(
            *(["fit", *args, *ONE_DEVICE], False, False),
            make_lm=lm,
            folder=Path(folder) / "check" / "run",
        )
        warnings = _check(cli, args, lm, Path(folder) / "probe" / "run")
    console.print()
    for number, warning in enumerate(warnings, start=1):
        console.print(Text(f"Warning {number}: {warning}", style="yellow"), soft_wrap=True)
    if warnings:
        console.print(Text(f"{count(len(warnings), 'warning')}.", style="bold"))
        raise SystemExit(WARNED)
    console.print(Text("No warning.", style="bold"))


def _check(cli: PromptCLI, args: Sequence[str], lm: SharedLM, folder: Path) -> list[str]:
    task, tuner = cli.datamodule, cli.model
    device = cli.trainer.strategy.root_device
    task.lm.to(device)
    names = [name for name in ("train", "validation", "test") if task.has(name)]
    notice(f"{type(tuner).__name__} on {task.slug} with {tuner.lm.label}: looking at the rows")
    task.report.max_tokens = task.token_limit(tuner.prompt_length)
    # Rows that are chosen by `shots` or `train_rows` need a label each: refused here, as by `fit`.
    splits = {name: look_at(task, name) for name in names}
    labels = task.verbalizer.labels
    console.print(_table(task.slug, splits))
    for name, split in splits.items():
        counts = (f"{label} {n:,}" for label, n in zip(labels, split.classes, strict=True))
        _say(f"Labels of {name}: {first_few(counts, SHOWN_LABELS)}")
    _say(f"Answers: {tuner.verbalizer}")
    warnings = data_warnings(task, splits)
    for line, warning in word_lines(task, splits):
        _say(line)
        warnings += [warning] if warning else []
    _say(f"Rows as {tuner.lm.label} reads them, of which the first few:")
    for example in splits[names[0]].examples[:SHOWN_ROWS]:
        row = marked(tuner, example.before, example.after)
        _say(f"  {shorten_middle(one_line(row), LONGEST)}")
    if tuner.classifies and len(names) > 1:
        _say(_baselines(cli, splits))
    rows = {name: split.rows for name, split in splits.items()}
    train, num_prompt = splits["train"], tuner.prompt_length
    measured = probe(args, cli, train.quantile(0.95) + num_prompt, lm, folder)
    sizes = train.mean_length + num_prompt, train.quantile(1.0) + num_prompt
    for line, warning in costs(cli, rows, *sizes, measured):
        _say(line)
        warnings += [warning] if warning else []
    return warnings


def _say(line: str) -> None:
    console.print(Text(line), soft_wrap=True)


def _table(title: str, splits: dict[str, Split]) -> Table:
    drawn = Table(title=Text(title, "bold"), title_justify="left", box=SIMPLE_HEAD)
    drawn.add_column("split", no_wrap=True)
    for heading in ("rows", "repeated", "in train", "tokens", "95 %", "most", "cut"):
        drawn.add_column(heading, justify="right", no_wrap=True)
    for name, split in splits.items():
        in_train = "" if split.in_train is None else f"{split.in_train:,}"
        of_tokens = [f"{split.quantile(q):,}" for q in (0.5, 0.95, 1.0)]
        cut = f"{split.cut / len(split.lengths):.0%}"
        numbers = (f"{split.rows:,}", f"{split.repeats.rows:,}", in_train, *of_tokens, cut)
        drawn.add_row(name, *numbers)
    return drawn


# ---- without a prompt


def _baselines(cli: PromptCLI, splits: dict[str, Split]) -> str:
    """The majority and the model without a prompt, raw and calibrated, on a sample."""
    task = cli.datamodule
    name = next(name for name in ("validation", "test", "train") if name in splits)
    rows = task.rows(name)
    scored = [*_some(rows, splits[name])]
    labels = torch.tensor([rows.labels[i] for i in scored])
    scores = _scores(cli, rows, scored, splits[name])
    reference = "train" if "train" in splits else name
    others = [*_some(task.rows(reference), splits[reference])]
    prior = _scores(cli, task.rows(reference), others, splits[reference]).mean(0)
    classes = splits[reference].classes
    majority = max(range(len(classes)), key=classes.__getitem__)
    shares = {
        "majority": (labels == majority).float().mean(),
        "no prompt": (scores.argmax(-1) == labels).float().mean(),
        f"calibrated on {len(others)} {reference} texts": (
            ((scores - prior).argmax(-1) == labels).float().mean()
        ),
    }
    error = standard_error(0.5, len(scored))
    said = ", ".join(f"{way} {share(float(value))}" for way, value in shares.items())
    return f"Baselines on {count(len(scored), f'{name} row')}: {said} (standard error {error:.2f})"


def _some(rows: Rows, split: Split) -> Sequence[int]:
    """Rows with the classes in their shares, of about `PASS_TOKENS` tokens."""
    number = max(4, int(PASS_TOKENS / max(1.0, split.mean_length)))
    return stratified_order(rows.labels, SPLIT_SEED)[: min(number, CALIBRATED_ON)]


@torch.no_grad()
def _scores(cli: PromptCLI, rows: Rows, indices: Sequence[int], split: Split) -> torch.Tensor:
    """[B, C] Log-probabilities without a prompt, of texts that are cut where many are long."""
    task, tuner = cli.datamodule, cli.model
    most = PROBED_TOKENS if split.quantile(0.95) > PROBED_TOKENS else split.limit
    limit, task.report.max_tokens = task.report.max_tokens, most
    try:
        examples = task.encoded_examples(rows.take(indices))
    finally:
        task.report.max_tokens = limit
    nothing = tuner.lm.embedding_table[:0][None]
    found: dict[int, torch.Tensor] = {}
    waiting = sorted(range(len(examples)), key=lambda i: _length(examples[i]))
    while waiting:
        # From the longest on, as many as the pass has tokens for.
        size = max(1, PROBED_TOKENS // max(1, _length(examples[waiting[-1]])))
        some, waiting = waiting[-size:], waiting[:-size]
        batch = on_device(collate([examples[i] for i in some], some, some), nothing.device)
        with cli.trainer.precision_plugin.forward_context():
            scores = class_scores(tuner.lm, tuner.template, tuner.verbalizer, nothing, batch)[0]
        found |= dict(zip(some, scores.log_softmax(-1).float().cpu(), strict=True))
    return torch.stack([found[i] for i in range(len(examples))])


def _length(example: Example) -> int:
    return len(example.before_ids) + len(example.after_ids)
