"""What a person sees: a table of prompts, the text, one sentence, where the files are."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from lightning_prompts.cli.advice import advice, few_rows
from lightning_prompts.cli.evaluation import Evaluation
from lightning_prompts.files.amounts import NONE, count, share
from lightning_prompts.files.console import console
from lightning_prompts.files.stages import SPLIT_OF
from lightning_prompts.files.text import short_path
from lightning_prompts.runs.folder import CHECKPOINTS, CONFIG, PROMPT, PROMPTS
from lightning_prompts.tuners.record import PromptRecord

HEADINGS = ("accuracy", "macro-F1", "loss", "perplexity")
# Of a name such as "written prompt (10 tokens)" and of the numbers; 76 columns with their margins.
PART_WIDTHS = (28, 8, 8, 8, 10)


class Row(NamedTuple):
    """One line of the table; None where a value is not defined or was not measured."""

    name: str
    accuracy: float | None = None
    macro_f1: float | None = None
    loss: float | None = None
    perplexity: float | None = None
    own: bool = False
    """Whether it is the prompt in use."""


def prompt_rows(evaluation: Evaluation, name: str | None = None, brief: bool = False) -> list[Row]:
    """The lines of the prompt in use and of what it turns into.

    Args:
        evaluation: Of the prompt.
        name: What to call it; by default its tuner.
        brief: Whether to show nothing more than its nearest tokens.
    """
    metrics, prompt = evaluation.metrics, evaluation.prompt
    name = name or prompt.tuner
    kind = "vector" if evaluation.vectors else "token"
    perplexity = metrics.get("perplexity")
    rows = [
        Row(
            f"{name} ({count(len(prompt.ids), kind)})",
            metrics.get("accuracy"),
            metrics.get("macro_f1"),
            metrics.get("loss"),
            None if evaluation.vectors else perplexity,
            own=True,
        )
    ]
    if evaluation.vectors:
        hard = (metrics.get("hard_accuracy"), None, metrics.get("hard_loss"), perplexity)
        rows.append(Row("  its nearest tokens", *hard))
    if brief:
        return rows
    if "round_trip_accuracy" in metrics:
        rows.append(Row("  its text, tokenized anew", metrics["round_trip_accuracy"]))
    if evaluation.iterate:
        soft = (metrics.get("soft_accuracy"), None, metrics.get("soft_loss"))
        rows.append(Row("  its continuous iterate", *soft))
    return rows


def baseline_rows(baselines: Mapping[str, Mapping[str, float]]) -> list[Row]:
    """The lines of what every prompt has to beat."""
    return [
        Row(name, values.get("accuracy"), values.get("macro_f1"), values.get("loss"))
        for name, values in baselines.items()
    ]


def table(rows: Sequence[Row], title: str) -> Table:
    """The rows, with losses in nats."""
    drawn = _empty_table(title, HEADINGS)
    _add(rows, drawn)
    return drawn


def part(rows: Sequence[Row], title: str | None = None) -> Table:
    """The next rows of a table that is printed as its numbers come.

    Args:
        rows: In columns of one width in every part, and without empty lines around them.
        title: Of the first part, which alone has headings.
    """
    drawn = _empty_table(title or "", HEADINGS)
    drawn.show_header, drawn.show_edge = title is not None, False
    drawn.title = drawn.title if title is not None else None
    for column, width in zip(drawn.columns, PART_WIDTHS, strict=True):
        column.width = width
    _add(rows, drawn)
    return drawn


def _add(rows: Sequence[Row], drawn: Table) -> None:
    for row in rows:
        shares = map(share, (row.accuracy, row.macro_f1, row.loss))
        cells = (*shares, large(row.perplexity))
        drawn.add_row(Text(row.name), *cells, style="bold" if row.own else None)


def measures_table(evaluation: Evaluation, title: str) -> Table:
    """The measures of a task without an accuracy: what it is compared with, then the prompt."""
    drawn = _empty_table(title, evaluation.columns)
    prompt = evaluation.prompt
    own = f"{prompt.tuner} ({count(len(prompt.ids), 'token')})"
    for name, values in [*evaluation.baselines.items(), (own, evaluation.metrics)]:
        cells = [_measure(metric, values.get(metric)) for metric in evaluation.columns.values()]
        drawn.add_row(Text(name), *cells, style="bold" if name == own else None)
    return drawn


def _empty_table(title: str, headings: Iterable[str]) -> Table:
    """A column of prompts, then one of numbers for each heading."""
    # As text: a name may hold what would be markup.
    drawn = Table(title=Text(title, "bold"), title_justify="left", box=SIMPLE_HEAD)
    drawn.add_column("prompt", no_wrap=True, overflow="ellipsis")
    for heading in headings:
        drawn.add_column(heading, justify="right", no_wrap=True)
    return drawn


def _measure(metric: str, value: float | None) -> str:
    """Perplexities have no upper end; the other measures are between 0 and 100."""
    if value is None or metric.endswith("perplexity"):
        return large(value)
    return f"{value:.1f}"


def title(evaluation: Evaluation, task: str, lm: str) -> str:
    """What was scored, on how many rows."""
    rows = ""
    if evaluation.rows is not None:
        rows = f", {scored(evaluation.rows, evaluation.of_rows)}"
    notes = [cut_to_fit(evaluation.cut)] if evaluation.cut else []
    if evaluation.left_out:
        notes.append(f"{count(evaluation.left_out, 'bad row')} of the data left out")
    noted = f" ({'; '.join(notes)})" if notes else ""
    return f"{task}, {SPLIT_OF[evaluation.stage]}{rows}{noted}, {lm}"


def scored(rows: int, of_rows: int | None) -> str:
    """How many rows were read, and which where not all were."""
    if rows >= (of_rows or 0):
        return count(rows, "row")
    which = "the longest" if rows == 1 else f"the longest {rows:,}"
    return f"{which} of {count(of_rows or 0, 'row')}"


def cut_to_fit(rows: int) -> str:
    """How many of them lost their end."""
    return f"{rows:,} cut to fit"


def show(
    evaluation: Evaluation, task: str, lm: str, run: Path | None, notes: Sequence[str | None] = ()
) -> None:
    """Print the table, the text, the sentences and the run's folder."""
    console.print()
    if evaluation.columns:
        console.print(measures_table(evaluation, title(evaluation, task, lm)))
        console.print(Text(evaluation.legend, style="dim"))
    else:
        rows = [*baseline_rows(evaluation.baselines), *prompt_rows(evaluation)]
        console.print(table(rows, title(evaluation, task, lm)))
    if not evaluation.vectors and evaluation.iterate:
        console.print(
            "The prompt in use is its tokens, so prompt and tokens agree by construction."
        )
    if evaluation.compared_rows:
        console.print(
            f"Its nearest tokens and its text were measured on {evaluation.compared_rows} of the "
            f"{evaluation.rows} rows alone (--faithfulness.rows and max_batches decide), and are "
            "not shown beside them; prompt.json has the figures."
        )
    if by := evaluation.prompt.averaged_by:
        console.print(f"It is the average that {by} keeps of the steps' prompts.")
    console.print(prompt_text(evaluation.prompt))
    if read := how_it_reads(evaluation.metrics):
        console.print(Text(read))
    if evaluation.columns:  # the table's perplexities are of rewrites
        console.print(f"Its perplexity: {large(evaluation.metrics.get('perplexity'))}.")
    console.print(Text(advice(evaluation), style="bold"))
    _end(run, [few_rows(evaluation), *notes])


def prompt_text(prompt: PromptRecord, name: str | None = None) -> Text:
    """The prompt's text, quoted, with control characters escaped."""
    which = "Text of its nearest tokens" if prompt.soft_in_use else "Text"
    which = f"{name}, {which[0].lower()}{which[1:]}" if name else which
    return Text.assemble((f"{which}: ", "dim"), repr(prompt.text))


def how_it_reads(metrics: Mapping[str, float | None]) -> str:
    """The measures that every test has of the tokens as a text; empty where there are none."""
    percentile, order = metrics.get("natural_percentile"), metrics.get("grammar")
    said = []
    if percentile is not None:
        said.append(f"{percentile:.0f} % of natural texts of its length (natural_percentile)")
    if order is not None:
        said.append(f"{order:.0%} of shuffles of its own tokens (grammar)".replace("%", " %"))
    return f"As a text it is likelier than {', and than '.join(said)}." if said else ""


def unmeasured(run: Path, notes: Sequence[str | None]) -> None:
    """Print what there is to say of a run without a validation."""
    console.print("No prompt was measured: there was no validation.")
    _end(run, notes)


def written(path: Path, what: str) -> None:
    """Print where predictions were written, and what they are of."""
    console.print(Text(f"Predictions: {short_path(path)} ({what})"), soft_wrap=True)


def _end(run: Path | None, notes: Sequence[str | None]) -> None:
    """Print sentences, and where a run's files are, each on one line whatever the width."""
    for note in filter(None, notes):
        console.print(Text(note), soft_wrap=True)
    if run is not None:
        names = [name for name in (PROMPT, PROMPTS, CONFIG, CHECKPOINTS) if (run / name).exists()]
        listed = f" ({', '.join(names)})" if names else ""
        console.print(Text(f"Files: {short_path(run)}{listed}"), soft_wrap=True)


def large(value: float | None) -> str:
    """A perplexity: three digits are all that is meant."""
    if value is None:
        return NONE
    return f"{value:.0f}" if value < 1e4 else f"{value:.1e}".replace("e+0", "e").replace("e+", "e")
