"""`lightning-prompts measure`: prompts that were learned elsewhere, measured like our own."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from rich.text import Text

from lightning_prompts.cli import table
from lightning_prompts.cli.advice import advice
from lightning_prompts.cli.app import PromptCLI
from lightning_prompts.cli.evaluation import Evaluation
from lightning_prompts.cli.outcome import best_evaluation, folder
from lightning_prompts.cli.parser import PromptParser
from lightning_prompts.files.amounts import share
from lightning_prompts.files.console import console, notice
from lightning_prompts.files.errors import PromptError
from lightning_prompts.files.text import (
    PROGRAM,
    short_path,
    shorten_middle,
)
from lightning_prompts.lm.verbalizer import Verbalizer
from lightning_prompts.report.panel import OF_PANEL, shown
from lightning_prompts.studies.given import Given, find
from lightning_prompts.studies.needs import OnlyParses, inner
from lightning_prompts.studies.shared import SharedBaselines, SharedLM, stopped
from lightning_prompts.tuners.imported import adapter_template
from lightning_prompts.tuners.prompt_init import text_ids
from lightning_prompts.tuners.vectors import (
    fitting_rows,
)

EXAMPLE = f"{PROGRAM} measure --prompt FOLDER --config configs/task/sst2.yaml --lm.name gpt2"
NAME_ON_PAGE = 48
# The parts of the answer, with the metrics that they are of.
FAITHFULNESS = {
    "cosine distance to the nearest tokens": "distance_differential_cosine",
    "output differential": "output_differential",
    "accuracy differential": "accuracy_differential",
}


class Measured(NamedTuple):
    """One prompt that was measured."""

    given: Given
    evaluation: Evaluation
    run: Path
    title: str


def measure(args: Sequence[str]) -> None:
    """Measure prompts on a task's validation rows and show what they are worth.

    Args:
        args: As on the command line: `--prompt` with one or more, then options of `fit`.

    Raises:
        PromptError: If a prompt cannot be read or is not of this model, before any is measured.
        SystemExit: After `--help`; 130 or 143 where a signal stopped it.
    """
    prompts, options = divide(args)
    given = [prompt for each in prompts for prompt in find(each)]
    lm, baselines = SharedLM(), SharedBaselines()
    options = fitted_to(given, options, lm)
    measured: list[Measured] = []
    for prompt in given:
        cli = PromptCLI(["fit", *options, *prompt.options], run=False, show=False, make_lm=lm)
        try:
            baselines.start(cli)
        except SystemExit:  # a signal came, and its exit status is kept
            notice(stopped(prompt.name, [each.run for each in measured], len(given)))
            raise
        evaluation = best_evaluation(cli.trainer, cli.model, cli.datamodule)
        if evaluation is None:
            raise PromptError("Nothing was validated; leave validation and checkpoints on.")
        title = table.title(evaluation, cli.datamodule.slug, cli.model.lm.label)
        measured.append(Measured(prompt, evaluation, folder(cli.trainer), title))
    show(measured)


def divide(args: Sequence[str]) -> tuple[list[str], list[str]]:
    """The prompts, and the options of their runs.

    Raises:
        PromptError: If there is no prompt, or an option says what the prompt says.
        SystemExit: After `--help`.
    """
    prompts: list[str] = []
    options: list[str] = []
    taking = False
    for arg in args:
        if arg in ("--help", "-h"):
            parser().print_help()
            raise SystemExit(0)
        flag, equals, value = arg.partition("=")
        if flag == "--prompt":
            taking = not equals
            prompts += [value] if equals else []
        elif taking and not arg.startswith("--") and arg != "-c":
            prompts.append(arg)
        else:
            taking = False
            options.append(arg)
            if flag == "--model" or flag.startswith("--model."):
                raise PromptError(f"{flag}: a prompt that is measured has no tuner; leave it out.")
    if not prompts:
        raise PromptError(f"Say which prompts to measure: {EXAMPLE} (--help says more).")
    return prompts, options


def parser() -> PromptParser:
    """The command's own options, for its help."""
    known = PromptParser(
        prog=f"{PROGRAM} measure",
        description="Measure prompts that were learned elsewhere as validations measure our own: "
        "accuracy, faithfulness, scrutability, round trip. All other options are those of fit "
        f"({PROGRAM} fit --help): --config, --data.*, --lm.*, --trainer.*.",
        allow_abbrev=False,
    )
    known.add_argument(
        "--prompt",
        nargs="+",
        metavar="FOLDER|FILE|TEXT",
        help="Each an adapter of PEFT (its folder, or owner/name on the hub), a file of tensors "
        "(.safetensors, .pt), a file with a text a line (.txt; .jsonl with 'text'), or a text.",
    )
    return known


def show(measured: Sequence[Measured]) -> None:
    """Print the table, then of each prompt its text, what was measured of it, and one sentence."""
    first = measured[0]
    rows = table.baseline_rows(first.evaluation.baselines)
    for prompt in measured:
        rows += table.prompt_rows(prompt.evaluation, prompt.given.name)
    console.print()
    console.print(table.table(rows, first.title))
    for prompt in measured:
        console.print(Text(f"{prompt.given.name}: {short_path(prompt.run)}"), soft_wrap=True)
        text = table.prompt_text(prompt.evaluation.prompt)
        console.print(Text("  ").append_text(text), soft_wrap=True)
        for line in lines(prompt.evaluation):
            console.print(Text(f"  {line}"), soft_wrap=True)
        console.print(Text(f"  {advice(prompt.evaluation)}", style="bold"), soft_wrap=True)
    from lightning_prompts.report.writing import write_report  # loads matplotlib

    names = {str(p.run): shorten_middle(p.given.whole, NAME_ON_PAGE) for p in measured}
    page = write_report(
        list(names), first.run / "report", f"Measured: prompts for {first.title}", names=names
    )
    console.print(Text(f"Open in a browser: {short_path(page)}"), soft_wrap=True)


def lines(evaluation: Evaluation) -> Iterator[str]:
    """Faithfulness and scrutability of a prompt, a line each."""
    metrics = evaluation.metrics
    if evaluation.vectors:
        parts = [
            f"{name} {value:.3g}"
            for name, metric in FAITHFULNESS.items()
            if (value := metrics.get(metric)) is not None
        ]
        yield f"Faithfulness: {', '.join(parts) or 'not measured'}."
    else:
        yield "Faithfulness: complete, as its tokens are what the model reads."
    perplexity, whole = metrics.get("perplexity"), metrics.get("round_trip")
    known = "not measured" if perplexity is None else f"perplexity {table.large(perplexity)}"
    yield f"Scrutability: {known}, round trip {share(whole)}."
    if panel := [
        f"{name} {shown(metrics, name)}" for name in OF_PANEL if metrics.get(name) is not None
    ]:
        yield f"Panel: {', '.join(panel)}."


def fitted_to(given: Sequence[Given], options: list[str], make_lm: SharedLM) -> list[str]:
    """Options that all runs share: the model that adapters name, and how much of a text is read.

    An adapter's own options are given the template by which it is read as PEFT does.

    Raises:
        PromptError: If a prompt does not fit the model or the template.
    """
    first = given[0].options
    parsed = OnlyParses(["fit", *options, *first], run=False)
    bases = [each.vectors.base for each in given if each.vectors and each.vectors.base]
    if "lm.name" not in parsed.given and bases:
        options = [*options, f"--lm.name={bases[0]}"]
        parsed = OnlyParses(["fit", *options, *first], run=False)
    config = parsed.config["fit"]
    lm = make_lm(**config.lm.as_dict())
    template, words = (inner(config, "data", name) for name in ("template", "verbalizer"))
    lengths = []
    for each in given:
        if (found := each.vectors) is None:
            lengths.append(len(text_ids(each.text, lm)))
            continue
        lengths.append(len(fitting_rows(found, each.name, lm)))
        if not found.adapter:
            continue
        base = Path(found.base).name if found.base else ""
        # A converted file's folder is named by its digest, which is its revision here.
        same = base == Path(lm.name).name or base.startswith(str(lm.revision)[:16])
        if base and not same:
            notice(f"{each.name} was learned for {found.base}, its file says, not {lm.label}.")
        wanted = adapter_template(found, lm, template)
        if wanted != template:
            each.options.append(f"--data.template={wanted}")
            notice(f"{each.name} is read as PEFT reads it: --data.template {wanted!r}.")
    if "data.max_tokens" in parsed.given or len(set(lengths)) == 1:
        return options
    # The same rows for all, and what no prompt changes is measured once.
    depth = Verbalizer(words, lm).depth if isinstance(words, dict) else 0
    return [*options, f"--data.max_tokens={max(1, lm.max_positions - max(lengths) - depth)}"]
