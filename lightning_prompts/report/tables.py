"""The tables of a report, as plain texts that a page, a Markdown file or a CSV file escapes."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_prompts.files.amounts import NONE, count
from lightning_prompts.files.stages import SPLIT_OF, Stage
from lightning_prompts.files.text import first_few
from lightning_prompts.report.comparison import Comparison, Problem, of_split
from lightning_prompts.report.figures.pareto import front
from lightning_prompts.report.load import Unfinished
from lightning_prompts.report.paired import Pair
from lightning_prompts.report.text import (
    cell,
    interval,
    large,
    markdown,
    probability,
    quoted,
    signed,
)
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
    settings = sorted(problem.settings, key=lambda s: -comparison.mean(s))
    shown = settings[:most]

    def means(metric: str, split: Stage) -> list[str]:
        known = [s.estimate(f"{metric}{measure.name}", split) for s in shown]
        return [measure.shown(None if each is None else each.mean) for each in known]

    columns = {
        "seeds": [str(len(s.records)) for s in shown] if any(s.learned for s in shown) else [],
        f"{SPLIT_OF[split]} {unit}": [interval(comparison.score(s), measure.shown) for s in shown],
    }
    if split != "val":  # beside the rows that score those that chose the prompts
        columns[f"validation {unit}"] = means("", "val")
    tokens = zip(shown, means("hard_", split), strict=True)
    columns |= {
        "its nearest tokens": [text if setting.vectors else "" for setting, text in tokens],
        "its text, pasted": means("round_trip_", split),
        "perplexity": [interval(s.perplexity(split), large) for s in shown],
    }
    for head in [h for h, texts in columns.items() if set(texts) <= {"", NONE}]:
        del columns[head]
    names = [(f"{ON_FRONT} " if id(s) in best else "") + s.label for s in shown]
    rows = [[name, *texts] for name, *texts in zip(names, *columns.values(), strict=True)]
    for name, (low, high) in problem.baselines(split, measure.name).items():
        ends = dict.fromkeys((measure.shown(low), measure.shown(high)))
        before = [""] * ("seeds" in columns)
        rest = [""] * (len(columns) - len(before) - 1)
        rows.append([name, *before, " to ".join(ends), *rest])
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
        over_seeds = NONE
        if (found := pair.over_seeds) is not None:
            over_seeds = " to ".join(signed(end, measure.top) for end in (found.low, found.high))
        row = {
            "first": pair.first.label,
            "second": pair.second.label,
            "difference": signed(pair.difference, measure.top),
            "95 % over seeds": over_seeds,
            "seeds": str(pair.seeds),
            "p, seeds": probability(pair.p_seeds),
            "rows only one got right": _counts(pair),
            "p, rows": probability(pair.p_rows),
            "perplexity ratio": large(pair.likelier),
        }
        rows.append(row)
    note = (
        "First less second, on the same seeds. Over seeds: paired t interval and test, from two "
        "common seeds on. Over rows: McNemar's exact test in each seed (rows that only the first : "
        "only the second answered right), the largest of the seeds' p. Both p are adjusted for the "
        "number of all pairs of settings (Holm). The ratio is of geometric mean perplexities."
    )
    texts = [list(row.values()) for row in rows]
    return Table("Pairs of settings on the same seeds", list(rows[0]), texts, 2, note=note)


def _counts(pair: Pair, most: int = 3) -> str:
    """Of each seed, on how many rows only the first, and only the second, was right."""
    more = count(len(pair.over_rows) - most, "more seed")
    seeds = (f"{test.first} : {test.second}" for test in pair.over_rows)
    return first_few(seeds, most, "; ", more) or NONE


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
    for left in unfinished:
        named = {"run": cell(left.name), "outcome": left.outcome, "setting": cell(left.settings)}
        rows.append({**named, "seconds": left.seconds, "reason": cell(left.reason)})
    first = list(dict.fromkeys(key for row in rows for key in row if "/" not in key))
    metrics = sorted({key for row in rows for key in row if "/" in key})
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, [*first, *metrics], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


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
        "template": quoted(run.template_text),
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


def write(path: Path, text: str) -> None:
    """Write a text file, the same on every machine."""
    path.write_text(text, encoding="utf-8", newline="\n")
