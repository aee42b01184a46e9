"""What a person sees: a table of prompts, the text, one sentence, where the files are."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from lightning_prompts.amounts import above, count, rounded
from lightning_prompts.callbacks.baselines import CALIBRATED, MAJORITY, NO_PROMPT
from lightning_prompts.console import console
from lightning_prompts.run_folder import CHECKPOINTS, CONFIG, PROMPT, PROMPTS
from lightning_prompts.stages import SPLIT_OF, Stage

NONE = "\N{EN DASH}"  # where a value is not defined, or was not measured


class Row(NamedTuple):
    """One line of the table; None where a value is not defined or was not measured."""

    name: str
    accuracy: float | None = None
    macro_f1: float | None = None
    loss: float | None = None
    perplexity: float | None = None
    own: bool = False
    """Whether it is the prompt in use."""


class Evaluation(NamedTuple):
    """One evaluation of one prompt.

    Args:
        prompt: As prompt.json describes it.
        metrics: By logged name without the stage.
        baselines: Metrics of what every prompt has to beat, by name.
        stage: `val` or `test`.
        rows: Rows that were scored.
        of_rows: Rows that there are; of these the longest are scored where not all are.
        cut: Those of the scored rows whose text was cut to fit.
        iterate: Whether there is a continuous iterate beside tokens in use (PEZ).
        columns: Heading to metric of the table, where the task has no accuracy.
        legend: What these headings mean.
        judged: Whether a test of such a task asks another classifier.
        saved: Whether the run's prompt.json is of this prompt.
        left_out: Bad rows of the data that were left out, of all parts where one file was cut.
    """

    prompt: Mapping[str, Any]
    metrics: Mapping[str, float | None]
    baselines: Mapping[str, Mapping[str, float]]
    stage: Stage
    rows: int | None = None
    of_rows: int | None = None
    cut: int = 0
    iterate: bool = False
    columns: Mapping[str, str] = {}
    legend: str = ""
    judged: bool = True
    saved: bool = True
    left_out: int = 0

    @property
    def vectors(self) -> bool:
        """Whether vectors rather than tokens are in use."""
        return self.prompt["in_use"] == "vectors"


def prompt_rows(evaluation: Evaluation, name: str | None = None, brief: bool = False) -> list[Row]:
    """The lines of the prompt in use and of what it turns into.

    Args:
        evaluation: Of the prompt.
        name: What to call it; by default its tuner.
        brief: Whether to show nothing more than its nearest tokens.
    """
    metrics, prompt = evaluation.metrics, evaluation.prompt
    name = name or prompt["tuner"]
    kind = "vector" if evaluation.vectors else "token"
    perplexity = metrics.get("perplexity")
    rows = [
        Row(
            f"{name} ({count(len(prompt['ids']), kind)})",
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
    drawn = _empty_table(title, ("accuracy", "macro-F1", "loss", "perplexity"))
    for row in rows:
        cells = (
            share(row.accuracy),
            share(row.macro_f1),
            share(row.loss),
            _large(row.perplexity),
        )
        drawn.add_row(Text(row.name), *cells, style="bold" if row.own else None)
    return drawn


def measures_table(evaluation: Evaluation, title: str) -> Table:
    """The measures of a task without an accuracy: what it is compared with, then the prompt."""
    drawn = _empty_table(title, evaluation.columns)
    prompt = evaluation.prompt
    own = f"{prompt['tuner']} ({count(len(prompt['ids']), 'token')})"
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
        return _large(value)
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


def advice(evaluation: Evaluation) -> str:
    """One sentence that a person can act on, from the numbers alone, as they are printed."""
    if evaluation.columns:
        return _transfer_advice(evaluation)
    metrics, rows = evaluation.metrics, evaluation.rows
    accuracy, text = metrics["accuracy"], metrics.get("round_trip_accuracy")
    hard = metrics.get("hard_accuracy") if evaluation.vectors else None
    assert accuracy is not None
    if bar := _bar(evaluation, accuracy):
        return f"It does not beat {bar}: do not use it."
    empty = evaluation.baselines.get(CALIBRATED, {}).get("accuracy")
    against = "" if empty is None else f"; no prompt, calibrated, {share(empty)}"
    ids = "the ids in prompt.json" if evaluation.saved else f"its ids, {evaluation.prompt['ids']}"
    own = "keep the vectors, not the text" if evaluation.vectors else f"use {ids}, not the text"
    if text is not None and not above(accuracy, text, rows):
        if bar := _bar(evaluation, text):
            return f"Its text, tokenized anew, does not beat {bar}: {own}."
        return f"Copy this text: it reaches {share(text)} tokenized anew{against}."
    if not evaluation.vectors:
        if text is None:
            return f"Its tokens reach {share(accuracy)}{against}; its text was not measured."
        return (
            f"Its text is not its tokens ({share(text)} tokenized anew against {share(accuracy)}): "
            f"use {ids}, do not copy the text."
        )
    if hard is not None and above(accuracy, hard, rows):
        reach = f"{share(hard)} against {share(accuracy)}"
        return f"Its nearest tokens do not act like it ({reach}): {own}."
    if text is None:
        tokens = "" if hard is None else f", its nearest tokens {share(hard)}"
        return f"Its vectors reach {share(accuracy)}{tokens}{against}; its text was not measured."
    reach = f"{share(text)} tokenized anew against {share(accuracy)}"
    if hard is None or _bar(evaluation, hard):
        return f"Its text does not act like it ({reach}): {own}."
    return (
        f"Its text does not act like it ({reach}), though its nearest tokens do ({share(hard)}): "
        f"keep the vectors or use {ids}, do not copy the text."
    )


def _bar(evaluation: Evaluation, value: float) -> str:
    """The first baseline that a share does not beat by more than chance; empty where it does."""
    for name, key in (
        ("the calibrated empty prompt", CALIBRATED),
        ("the most frequent label", MAJORITY),
    ):
        bar = evaluation.baselines.get(key, {}).get("accuracy")
        if bar is not None and not above(value, bar, evaluation.rows):
            return f"{name} by more than chance ({share(value)} against {share(bar)})"
    return ""


def _transfer_advice(evaluation: Evaluation) -> str:
    """Whether the prompt is worth more than none, by what only a test knows."""
    own, empty = evaluation.metrics, evaluation.baselines.get(NO_PROMPT, {})
    joint = own.get("joint")
    if not evaluation.judged:
        return "Only the classifier that it was trained on has judged it; set --model.reward.judge."
    if joint is None or "joint" not in empty:
        return "Its reward is of the classifier that it was trained on; `test` asks another one."
    ends = [rounded(value, 1) for value in (joint, empty["joint"])]
    against = f"joint {ends[0]:.1f} against {ends[1]:.1f}"
    if ends[0] <= ends[1]:
        return f"It does not rewrite better than no prompt ({against}): do not use it."
    return f"It rewrites better than no prompt ({against}); PPL tells how well that reads."


def convergence(
    history: Sequence[Sequence[float]], mode: str = "min", limit: str | None = "--trainer.max_steps"
) -> str | None:
    """A sentence where the last validation was the best by more than 1 % over the one before.

    Args:
        history: [step, value] of each validation.
        mode: Whether the lowest or the highest value is the best.
        limit: The option that ended the run, None where none did.
    """
    if not history:
        return None
    if len(history) == 1:
        return "Validated once, so whether it has converged is not known."
    if not _improved(history, mode, by=0.01):
        return None
    more = "" if limit is None else f"; raise {limit}"
    return f"Not converged: still improving at step {history[-1][0]:.0f}{more}."


def progress(history: Sequence[Sequence[float]], mode: str, limit: str | None) -> str:
    """As `convergence`, and what is to be said where a run has converged."""
    if said := convergence(history, mode, limit):
        return said
    if not history:
        return "Not validated."
    if _improved(history, mode):
        return "The last validation was the best, by 1 % or less."
    best = (min if mode == "min" else max)(history, key=lambda entry: entry[1])
    return f"No longer improving: the best validation was at step {best[0]:.0f}."


def _improved(history: Sequence[Sequence[float]], mode: str, by: float = 0.0) -> bool:
    """Whether the last of several values is the best, by such a share over the one before."""
    *earlier, last = (value if mode == "min" else -value for _, value in history)
    return last < min(earlier) and earlier[-1] - last > by * abs(earlier[-1])


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
    if by := evaluation.prompt.get("averaged_by"):
        console.print(f"It is the average that {by} keeps of the steps' prompts.")
    console.print(prompt_text(evaluation.prompt))
    if evaluation.columns:  # the table's perplexities are of rewrites
        console.print(f"Its perplexity: {_large(evaluation.metrics.get('perplexity'))}.")
    console.print(Text(advice(evaluation), style="bold"))
    for note in notes:
        if note:
            console.print(Text(note), soft_wrap=True)
    if run is not None:
        files(run)


def prompt_text(prompt: Mapping[str, Any], name: str | None = None) -> Text:
    """The prompt's text, quoted, with control characters escaped."""
    which = "Text of its nearest tokens" if prompt["in_use"] == "vectors" else "Text"
    which = f"{name}, {which[0].lower()}{which[1:]}" if name else which
    return Text.assemble((f"{which}: ", "dim"), repr(prompt["text"]))


def unmeasured(run: Path, notes: Sequence[str | None]) -> None:
    """Print what there is to say of a run without a validation."""
    console.print("No prompt was measured: there was no validation.")
    for note in notes:
        if note:
            console.print(Text(note), soft_wrap=True)
    files(run)


def written(path: Path, what: str) -> None:
    """Print where predictions were written, and what they are of."""
    console.print(Text(f"Predictions: {shown(path)} ({what})"), soft_wrap=True)


def files(run: Path) -> None:
    """Print where a run's files are, on one line whatever the width."""
    names = [name for name in (PROMPT, PROMPTS, CONFIG, CHECKPOINTS) if (run / name).exists()]
    listed = f" ({', '.join(names)})" if names else ""
    console.print(Text(f"Files: {shown(run)}{listed}"), soft_wrap=True)


def shown(path: Path) -> Path:
    """The path as a person would write it here."""
    path = path.absolute()
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def share(value: float | None) -> str:
    """A value between 0 and 1, or a loss, to three digits."""
    return NONE if value is None else f"{value:.3f}"


def _large(value: float | None) -> str:
    """A perplexity: three digits are all that is meant."""
    if value is None:
        return NONE
    return f"{value:.0f}" if value < 1e4 else f"{value:.1e}".replace("e+0", "e").replace("e+", "e")
