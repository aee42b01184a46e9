"""The tables of a report, as plain texts that a page, a Markdown file or a CSV file escapes."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_prompts.files.amounts import count, rounded
from lightning_prompts.files.stages import SPLIT_OF
from lightning_prompts.report.comparison import Comparison, Problem, of_split
from lightning_prompts.report.figures.pareto import front
from lightning_prompts.report.load import Unfinished
from lightning_prompts.report.paired import Pair
from lightning_prompts.report.statistics import Estimate
from lightning_prompts.report.text import MINUS, NONE, cell, markdown, quoted
from lightning_prompts.runs.record import RunRecord

ON_FRONT = "\N{BLACK CIRCLE}"


@dataclass
class Table:
    """Rows of texts under heads.

    Args:
        title: What it shows.
        heads: Of the columns.
        rows: A text for each head.
        texts: How many columns from the left are texts; the rest are numbers.
        strong: Rows to look at first.
        note: How to read it.
    """

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    texts: int = 1
    strong: frozenset[int] = frozenset()
    note: str = ""


def results(comparison: Comparison, problem: Problem, most: int | None = None) -> Table:
    """A row for each setting, those of the front marked, then what every prompt has to beat.

    Args:
        comparison: That the problem is of.
        problem: Whose settings.
        most: At most so many settings, the better ones; None for all.
    """
    measure, split = comparison.measure, comparison.split
    unit = measure.label
    best = {id(s) for s in front(comparison, problem)}
    settings = sorted(problem.settings, key=lambda s: -_mean(comparison.score(s)))
    shown = settings[:most]
    # Beside the rows that score, those that chose the prompts, where they are others.
    chose: dict[str, list[str]] = {}
    if split != "val":
        validated = [s.estimate(measure.name, "val") for s in shown]
        chose[f"validation {unit}"] = [measure.shown(_or_none(value)) for value in validated]
    columns = {
        "seeds": [str(len(s.records)) for s in shown],
        f"{SPLIT_OF[split]} {unit}": [interval(comparison.score(s), measure.shown) for s in shown],
        **chose,
        "its nearest tokens": [
            measure.shown(_or_none(s.estimate(f"hard_{measure.name}", split))) if s.vectors else ""
            for s in shown
        ],
        "its text, pasted": [
            measure.shown(_or_none(s.estimate(f"round_trip_{measure.name}", split))) for s in shown
        ],
        "perplexity": [interval(s.perplexity(split), large) for s in shown],
    }
    for head in [h for h, texts in columns.items() if set(texts) <= {"", NONE}]:
        del columns[head]
    names = [(f"{ON_FRONT} " if id(s) in best else "") + s.label for s in shown]
    rows = [[name, *texts] for name, *texts in zip(names, *columns.values(), strict=True)]
    for name, (low, high) in problem.baselines(split, measure.name).items():
        ends = dict.fromkeys((measure.shown(low), measure.shown(high)))
        rows.append([name, "", " to ".join(ends), *[""] * (len(columns) - 2)])
    note = f"{ON_FRONT} on the Pareto front. " if best else ""
    if any("[" in text for head in columns for text in columns[head]):
        note += "In brackets 95 % intervals, over seeds (t) or, with one value, over rows (Wilson)."
    if left := len(settings) - len(shown):
        note += f" Not shown, in results.csv: {count(left, 'setting')}, the lower ones."
    strong = frozenset(i for i, s in enumerate(shown) if id(s) in best)
    return Table(problem.label, ["setting", *columns], rows, 1, strong, note)


def differences(pairs: Sequence[Pair], comparison: Comparison) -> Table:
    """A row for each pair of settings."""
    measure = comparison.measure
    rows = []
    for pair in pairs:
        seeds = pair.over_seeds
        rows.append(
            [
                pair.first.label,
                pair.second.label,
                signed(pair.difference, measure.top),
                NONE
                if seeds is None
                else f"{signed(seeds.low, measure.top)} to {signed(seeds.high, measure.top)}",
                str(pair.seeds),
                NONE if pair.p_seeds is None else probability(pair.p_seeds),
                _counts(pair),
                NONE if pair.p_rows is None else probability(pair.p_rows),
                NONE if pair.likelier is None else f"{large(pair.likelier)}",
            ]
        )
    heads = [
        *("first", "second", "difference", "95 % over seeds", "seeds", "p, seeds"),
        *("rows only one got right", "p, rows", "perplexity ratio"),
    ]
    note = (
        "First less second, on the same seeds. Over seeds: paired t interval and test, from two "
        "common seeds on. Over rows: McNemar's exact test in each seed (rows that only the first : "
        "only the second answered right), the largest of the seeds' p. Both p are adjusted for the "
        "number of all pairs of settings (Holm). The ratio is of geometric mean perplexities."
    )
    return Table("Pairs of settings on the same seeds", heads, rows, 2, note=note)


def _counts(pair: Pair, most: int = 3) -> str:
    """Of each seed, on how many rows only the first, and only the second, was right."""
    seeds = "; ".join(f"{m.first} : {m.second}" for m in pair.over_rows[:most])
    more = len(pair.over_rows) - most
    return (f"{seeds} and {count(more, 'more seed')}" if more > 0 else seeds) or NONE


def failures(unfinished: Sequence[Unfinished], most: int = 50) -> Table:
    """A row for each run that has nothing to compare."""
    rows = [
        [run.name, run.outcome, run.settings, run.reason or NONE, large(run.seconds)]
        for run in unfinished[:most]
    ]
    more = len(unfinished) - len(rows)
    note = f"In results.csv: {count(more, 'more run', 'more runs')}." if more else ""
    return Table("", ["run", "outcome", "settings", "reason", "seconds"], rows, 4, note=note)


def to_markdown(table: Table) -> str:
    """As Markdown, its texts escaped."""
    rule = ["---"] * table.texts + ["---:"] * (len(table.heads) - table.texts)
    lines = [[markdown(head) for head in table.heads], rule]
    lines += [[markdown(text) for text in row] for row in table.rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def to_csv(
    comparisons: Iterable[Comparison],
    repeated: Iterable[RunRecord],
    unfinished: Iterable[Unfinished],
) -> str:
    """A row for each run, with everything that was measured; no text is a formula."""
    rows: list[dict[str, Any]] = []
    for comparison in comparisons:
        for problem in comparison.problems:
            for setting in problem.settings:
                rows += [_run_row(run, setting.label, problem.label) for run in setting.records]
        rows += [_run_row(run, "", "", "not measured") for run in comparison.unmeasured]
    rows += [_run_row(run, "", "", "repeated") for run in repeated]
    for run in unfinished:
        rows.append(
            {
                "run": cell(run.name),
                "outcome": run.outcome,
                "setting": cell(run.settings),
                "seconds": run.seconds,
                "reason": cell(run.reason),
            }
        )
    first = list(dict.fromkeys(key for row in rows for key in row if "/" not in key))
    metrics = sorted({key for row in rows for key in row if "/" in key})
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, [*first, *metrics], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def interval(found: Estimate | None, shown: Any) -> str:
    """A mean with its interval in brackets."""
    if found is None:
        return NONE
    if found.low is None or found.high is None:
        return str(shown(found.mean))
    return f"{shown(found.mean)} [{shown(found.low)}, {shown(found.high)}]"


def large(value: float | None) -> str:
    """A perplexity, a ratio or seconds: three digits are all that is meant.

    >>> [large(v) for v in (0.034, 12.34, 215.2, 123456.0, 5.3e6)]
    ['0.034', '12.3', '215', '123,000', '5.3e6']
    """
    if value is None:
        return NONE
    if value >= 1e6:
        return f"{value:.1e}".replace("e+0", "e").replace("e+", "e")
    rounded = float(f"{value:.3g}")
    return f"{rounded:,.0f}" if rounded >= 100 else f"{rounded:g}"


def signed(value: float, top: float) -> str:
    """A difference of shares, or of values up to 100, with its sign."""
    digits = 3 if top == 1 else 1
    # What rounds to nothing has no sign.
    shown = f"{value:+.{digits}f}" if rounded(value, digits) else f"{0:.{digits}f}"
    return shown.replace("-", MINUS)


def probability(p: float) -> str:
    """A p value."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _run_row(
    run: RunRecord, setting: str, problem: str, outcome: str = "finished"
) -> dict[str, Any]:
    baselines: Mapping[str, float] = {
        f"{split}/{name}/{metric}": value
        for split in SPLIT_OF
        for name, values in of_split(run, split).items()
        for metric, value in values.items()
    }
    return {
        "run": cell(run.name),
        "outcome": outcome,
        "setting": cell(setting),
        "problem": cell(problem),
        "tuner": cell(run.tuner),
        "task": cell(run.task),
        "lm": cell(run.lm.label),
        "template": quoted(run.template),
        "perplexity_weight": run.perplexity_weight,
        "seed": run.seed,
        "in_use": "vectors" if run.soft_in_use else "tokens",
        "best_step": run.step,
        "steps": run.steps,
        "seconds": round(run.seconds, 1),
        "forward_tokens": run.forward_tokens,
        "text": quoted(run.text),
        "ids": " ".join(map(str, run.ids)),
        "validation_rows": run.rows.get("validation"),
        "test_rows": run.rows.get("test"),
        "reason": "",
        **run.metrics,
        **baselines,
    }


def _mean(found: Estimate | None) -> float:
    return float("-inf") if found is None else found.mean


def _or_none(found: Estimate | None) -> float | None:
    return None if found is None else found.mean


def write(path: Path, text: str) -> None:
    """Write a text file, the same on every machine."""
    path.write_text(text, encoding="utf-8", newline="\n")
