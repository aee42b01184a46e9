"""Values of the panel of scrutability: what each one is, and prompts side by side."""

from collections.abc import Iterator, Mapping, Sequence

from lightning_prompts.files.amounts import NONE
from lightning_prompts.files.stages import Stage
from lightning_prompts.metrics.panel.measures import HIGH, LOGGED, LOW
from lightning_prompts.metrics.panel.token_effects import FILLER_NATS
from lightning_prompts.report.comparison import Comparison, Problem, Setting
from lightning_prompts.report.separation import LEAST, spearman, spearman_interval
from lightning_prompts.report.statistics import Estimate, estimate
from lightning_prompts.report.tables import Table
from lightning_prompts.report.text import coefficient, interval, large
from lightning_prompts.runs.record import RunRecord

# What each value is; docs/scrutability.md has the whole.
MEANINGS = {
    "perplexity": "of the text under the task's model; 1 or more",
    "round_trip": "share of the tokens that come back from the text",
    "natural_percentile": "percent of natural texts that are less likely; 50 is natural",
    "task_rank": "of the true task among eight, 1 is best",
    "task_reciprocal_rank": "1/8 to 1",
    "task_margin": "of the true task over the best other, nats a token",
    "task_margin_over_shuffled": "the same, less that of the shuffled tokens",
    "task_margin_over_answers": "the same, less that of the answer words",
    "grammar": "share of other orders that are less likely; 0.5 is chance",
    "repetition": "share of tokens that stood before",
    "real_words": "share of the words that are known ones",
    "copied_run": "longest run of tokens that stands in a training row",
    "effect_of_tokens": "largest KL of leaving one out, nats",
    "effect_of_order": "mean KL of other orders, nats",
    "filler": f"share of tokens that change less than {FILLER_NATS:g} nats",
    "simulatability": "what the prompt adds to a reader's kappa, -2 to 2",
    "simulatability_kappa": "kappa of a reader who is shown the prompt, -1 to 1",
}
ALWAYS = ("perplexity", "round_trip")  # measured without the panel
OF_PANEL = tuple(name for name in MEANINGS if name not in ALWAYS)
OVER_ROWS = tuple(name for names in LOGGED.values() for name in names)
TABLES = {
    "How likely its text is, and what it is made of": (
        *("perplexity", "natural_percentile", "grammar", "repetition", "real_words", "copied_run"),
    ),
    "What it says": tuple(name for name in MEANINGS if name.startswith("task_")),
    "What it does": OVER_ROWS,
}
NOTE = (
    "Each measure sees something else, and none is a verdict. In brackets 95 % intervals: over "
    "rows (bootstrap) of one prompt's effects and simulatability, over seeds (t) where there are "
    "several."
)


def shown(values: Mapping[str, float | None], name: str) -> str:
    """A value with its interval over rows, where there is one.

    Args:
        values: By the names that they are logged under, without a split.
        name: Of the value.
    """
    value = values.get(name)
    if value is None:
        return NONE
    low, high = values.get(f"{name}{LOW}"), values.get(f"{name}{HIGH}")
    return interval(Estimate(value, low, high, 1, "rows"), large)


def tables(comparison: Comparison, problem: Problem) -> Iterator[Table]:
    """A row for each setting, the better ones first; none where no run has a value of the panel."""
    settings = sorted(problem.settings, key=lambda s: -comparison.mean(s))
    for title, names in TABLES.items():
        columns = {
            name: [interval(_of(setting, name, comparison.split), large) for setting in settings]
            for name in names
        }
        known = [name for name, texts in columns.items() if set(texts) != {NONE}]
        if not set(known) & set(OF_PANEL):
            continue
        rows = [
            [setting.label, *(columns[name][i] for name in known)]
            for i, setting in enumerate(settings)
        ]
        heads = ["setting", *(name.replace("_", " ") for name in known)]
        notes = [f"{name.replace('_', ' ')}: {MEANINGS[name]}" for name in known]
        note = f"{'. '.join(notes)}. {NOTE}"
        label = f"{problem.label}: {title}" if problem.label else title
        yield Table(label, heads, rows, note=note)


def correlations(comparison: Comparison, problem: Problem) -> Table | None:
    """Of perplexity and of performance with each value of the panel, over prompts.

    None where no value of the panel has a rank correlation: fewer than five settings, or all equal.
    """
    of_all = {
        name: [_of(setting, name, comparison.split) for setting in problem.settings]
        for name in ("perplexity", *OF_PANEL)
    }
    others = {
        "perplexity": of_all.pop("perplexity"),
        comparison.measure.name: [comparison.score(setting) for setting in problem.settings],
    }
    rows = [
        [name.replace("_", " "), *(_rank_correlation(other, own) for other in others.values())]
        for name, own in of_all.items()
    ]
    rows = [row for row in rows if set(row[1:]) != {NONE}]
    if not rows:
        return None
    title = "Which measures order the prompts alike"
    note = (
        f"Rank correlations (Spearman) over settings, from {LEAST} on, with n; in brackets 95 % "
        "bootstrap intervals over settings. A setting is one prompt, or the mean over its seeds."
    )
    return Table(
        f"{problem.label}: {title}" if problem.label else title,
        ["measure", *(f"with {name.replace('_', ' ')}" for name in others)],
        [["perplexity", NONE, _rank_correlation(*others.values())], *rows],
        note=note,
    )


def _rank_correlation(first: Sequence[Estimate | None], second: Sequence[Estimate | None]) -> str:
    known = [(a.mean, b.mean) for a, b in zip(first, second, strict=True) if a and b]
    if len(known) < LEAST:
        return NONE
    values = list(zip(*known, strict=True))
    value, ends = spearman(*values), spearman_interval(*values)
    if value is None or ends is None:  # all values of one are equal
        return NONE
    low, high = map(coefficient, ends)
    return f"{coefficient(value)} [{low}, {high}] ({len(known)})"


def _of(setting: Setting, name: str, split: Stage) -> Estimate | None:
    """A value of a setting, with its interval over seeds, or of one seed over rows."""
    values = [value_of(record, name, split) for record in setting.records]
    found = estimate(values)
    if found is None or found.over == "seeds":
        return found
    low, high = (value_of(setting.records[0], name + end, split) for end in (LOW, HIGH))
    return found if low is None or high is None else found._replace(low=low, high=high, over="rows")


def value_of(record: RunRecord, name: str, split: Stage) -> float | None:
    """A value of a run's prompt; where rows do not matter, validation stands in for test."""
    own = record.metrics.get(f"{split}/{name}")
    on_rows = name.removesuffix(LOW).removesuffix(HIGH) in OVER_ROWS
    return own if own is not None or on_rows else record.metrics.get(f"val/{name}")
