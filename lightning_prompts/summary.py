"""What a person sees: a table of prompts, the text, one sentence, where the files are."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

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
        cut: Rows whose text was cut to fit.
        iterate: Whether there is a continuous iterate beside tokens in use (PEZ).
        columns: Heading to metric of the table, where the task has no accuracy.
        legend: What these headings mean.
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
    kind = "vectors" if evaluation.vectors else "tokens"
    perplexity = metrics.get("perplexity")
    rows = [
        Row(
            f"{name} ({len(prompt['ids'])} {kind})",
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
    own = f"{prompt['tuner']} ({len(prompt['ids'])} tokens)"
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
    rows = "" if evaluation.rows is None else f", {evaluation.rows:,} rows"
    if evaluation.rows and evaluation.rows < (evaluation.of_rows or 0):
        rows = f", the longest {evaluation.rows:,} of {evaluation.of_rows:,} rows"
    cut = f" ({evaluation.cut:,} cut to fit)" if evaluation.cut else ""
    return f"{task}, {SPLIT_OF[evaluation.stage]}{rows}{cut}, {lm}"


def advice(evaluation: Evaluation) -> str:
    """One sentence that a person can act on, from the numbers alone."""
    metrics = evaluation.metrics
    if evaluation.columns:
        return _transfer_advice(evaluation)
    accuracy, text = metrics["accuracy"], metrics.get("round_trip_accuracy")
    assert accuracy is not None
    empty = evaluation.baselines.get(CALIBRATED, {}).get("accuracy")
    for name, bar in (
        ("the calibrated empty prompt", empty),
        ("the most frequent label", evaluation.baselines.get(MAJORITY, {}).get("accuracy")),
    ):
        if bar is not None and accuracy <= bar + standard_error(bar, evaluation.rows):
            return (
                f"It does not beat {name} by more than chance ({share(accuracy)} against "
                f"{share(bar)}): do not use it."
            )
    against = "" if empty is None else f"; no prompt, calibrated, {share(empty)}"
    margin = standard_error(accuracy, evaluation.rows)
    if text is not None and text >= accuracy - margin:
        return f"Copy this text: it reaches {share(text)} tokenized anew{against}."
    if evaluation.vectors:
        hard = metrics.get("hard_accuracy")
        reach = "" if hard is None else f" ({share(hard)} against {share(accuracy)})"
        return f"Its nearest tokens do not act like it{reach}: keep the vectors, not the text."
    if text is None:
        return f"Its tokens reach {share(accuracy)}{against}; its text was not measured."
    return (
        f"Its text is not its tokens ({share(text)} tokenized anew against {share(accuracy)}): "
        "use the ids in prompt.json, do not copy the text."
    )


def _transfer_advice(evaluation: Evaluation) -> str:
    """Whether the prompt is worth more than none, by what only a test knows."""
    own, empty = evaluation.metrics, evaluation.baselines.get(NO_PROMPT, {})
    joint = own.get("joint")
    if evaluation.stage == "test" and joint is None:
        return "Only the classifier that it was trained on has judged it; set --model.reward.judge."
    if joint is None or "joint" not in empty:
        return "Its reward is of the classifier that it was trained on; `test` asks another one."
    against = f"joint {joint:.1f} against {empty['joint']:.1f}"
    if joint <= empty["joint"]:
        return f"It does not rewrite better than no prompt ({against}): do not use it."
    return f"It rewrites better than no prompt ({against}); PPL tells how well that reads."


def convergence(history: Sequence[Sequence[float]], mode: str = "min") -> str | None:
    """A sentence where the last validation was the best by more than 1 % over the one before.

    Args:
        history: [step, value] of each validation.
        mode: Whether the lowest or the highest value is the best.
    """
    if not history:
        return None
    if len(history) == 1:
        return "Validated once, so whether it has converged is not known."
    (_, before), (step, last) = history[-2], history[-1]
    sign = 1 if mode == "min" else -1
    best = min(sign * value for _, value in history[:-1])
    if sign * last < best and sign * (before - last) > 0.01 * abs(before):
        return f"Not converged: still improving at step {step:g}; raise --trainer.max_steps."
    return None


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
        console.print("The prompt in use is its tokens, so the two agree by construction.")
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


def written(path: Path | None) -> None:
    """Print where a result was written."""
    console.print(Text(f"Predictions: {path and shown(path)}"), soft_wrap=True)


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


def standard_error(share: float, rows: int | None) -> float:
    """Standard error of a share of n rows; 0 where n is not known."""
    return math.sqrt(share * (1 - share) / rows) if rows else 0.0
