"""What each measure of the panel of scrutability costs, as a share of a validation.

python -m benchmarks.panel
python -m benchmarks.panel --lm gemma3-270m --prompt ' The film was' --rows 128
"""

import argparse
import logging
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import transformers
from lightning.pytorch import Trainer

from benchmarks.builds import ROOT
from benchmarks.report import machine
from benchmarks.tiny import save_tiny
from lightning_prompts.cli.app import PromptCLI
from lightning_prompts.files.amounts import count
from lightning_prompts.metrics.panel.measures import CHEAP, MEASURES, scrutability_panel
from lightning_prompts.studies.inspect_alike import NO_OTHERS
from lightning_prompts.studies.inspect_scores import Inspecting, Subject
from lightning_prompts.studies.shared import SharedLM
from lightning_prompts.tuners.rows import task_facts

PROMPT = "Is this review good or bad?"
ROWS = 256  # that the costly measures pass over, as in evaluations
NOTE = """
A measure's processor time by that of one validation pass of the prompt over all rows without any
callback. *First* is in a new process, *again* at the next evaluation of a prompt of as many tokens:
what is remembered is not computed again. A dash: nothing is remembered, so the same again.
"""


def main(args: Sequence[str] | None = None) -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(prog="benchmarks.panel", description=__doc__.splitlines()[0])
    parser.add_argument("--lm", default="smollm2", help="as --lm.name (default: %(default)s)")
    parser.add_argument("--prompt", default=PROMPT, help="a text (default: %(default)s)")
    parser.add_argument("--only", default=",".join(MEASURES), help="names (default: %(default)s)")
    parser.add_argument(
        "--rows", type=int, default=ROWS, help="of the costly measures (default: %(default)s)"
    )
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared/data/sst2", help="SST-2")
    parser.add_argument("--small", action="store_true", help="a tiny model, to try the script")
    given = parser.parse_args(args)
    names = given.only.split(",")
    if unknown := set(names) - MEASURES.keys():
        parser.error(f"--only names {', '.join(sorted(unknown))}; there are {', '.join(MEASURES)}.")
    transformers.utils.logging.disable_progress_bar()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", module="lightning")  # of loaders without workers
        lm, data = given.lm, given.data
        if given.small:
            tiny = save_tiny(folder / "tiny")
            lm, data = str(tiny / "lm"), tiny / "data"
        cli = task_of(lm, data, given.prompt, folder)
        for line in measure(cli, names, given.rows):  # a stopped run leaves what it has
            sys.stdout.write(line + "\n")
            sys.stdout.flush()
        sys.stdout.write(NOTE)


def task_of(lm: str, data: Path, prompt: str, folder: Path) -> PromptCLI:
    """A fit of SST-2 that is built and not run."""
    options = {
        "--config": ROOT / "configs/task/sst2.yaml",
        "--data.path": data,
        "--lm.name": lm,
        "--model": "lightning_prompts.ManualPrompt",
        "--model.text": prompt,
        "--trainer.logger": "false",
        "--trainer.accelerator": "cpu",
    }
    words = ["fit", *(f"{option}={value}" for option, value in options.items())]
    return PromptCLI(words, False, False, make_lm=SharedLM(), folder=folder / "run")


def measure(cli: PromptCLI, names: Sequence[str], rows: int) -> Iterator[str]:
    """The table in Markdown, a line as soon as it is known.

    Raises:
        SystemExit: If a measure does not apply.
    """
    tuner, task = cli.model, cli.datamodule
    inspected = Inspecting(cli, Subject(tuner.record(), None), rows, NO_OTHERS)
    lm, ids = inspected.lm, inspected.record.ids
    facts = task_facts(task, task.verbalizer)
    facts.rows = inspected.rows

    def validated(**options: int) -> float:
        trainer = Trainer(
            **options,
            accelerator="cpu",
            devices=1,
            precision=cli.trainer.precision,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        return _seconds(lambda: trainer.validate(tuner, datamodule=task, verbose=False))

    def measured(name: str) -> float:
        said: list[str] = []
        seconds = _seconds(lambda: scrutability_panel(lm, ids, [name], facts, say=said.append))
        if said:
            raise SystemExit(said[0])
        return seconds

    validated(limit_val_batches=1)  # finds its kernels
    whole = validated()
    yield (
        f"{lm.label}, {count(len(ids), 'token')}, {cli.trainer.precision}. A validation of "
        f"{count(len(task.rows('validation')), 'row')} took {whole:.3g} s of processor time; the "
        f"costly measures are of {count(len(inspected.rows.answers), 'row')} and "
        f"{count(len(inspected.rows.unlabelled_texts), 'unlabelled text')}. {machine()}"
    )
    yield "\n| measure | first | again |\n| --- | ---: | ---: |"
    for name in names:
        first = ratio(measured(name) / whole)
        again = ratio(measured(name) / whole) if name in CHEAP else "\N{EN DASH}"
        yield f"| `{name}` | {first} | {again} |"


def ratio(value: float) -> str:
    """To two digits, as repetitions differ by some percent.

    >>> [ratio(value) for value in (0.00004, 0.0123, 0.456, 12.34)]
    ['< 0.001', '0.012', '0.46', '12']
    """
    return "< 0.001" if value < 0.001 else f"{float(f'{value:.2g}'):g}"


def _seconds(work: Callable[[], object]) -> float:
    """Of the processor, by all threads: what else the machine does has no part in it."""
    start = time.process_time()
    work()
    return time.process_time() - start


if __name__ == "__main__":
    main()
