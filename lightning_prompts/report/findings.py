"""What the numbers say, and what they must not be taken for, in sentences."""

from collections.abc import Iterator, Sequence
from statistics import fmean

from lightning_prompts.callbacks.baselines import CALIBRATED, MAJORITY, NO_PROMPT
from lightning_prompts.files.amounts import count
from lightning_prompts.files.stages import SPLIT_OF
from lightning_prompts.files.text import command, first_few
from lightning_prompts.report.comparison import Comparison, Problem, Setting
from lightning_prompts.report.figures.faithfulness import both_views
from lightning_prompts.report.figures.pareto import front
from lightning_prompts.report.load import Material
from lightning_prompts.report.statistics import Estimate
from lightning_prompts.report.text import interval, large
from lightning_prompts.runs.record import RunRecord

# Of the baselines those that need no prompt: a written text is one.
FREE = (MAJORITY, NO_PROMPT, CALIBRATED)
MOST = 8  # settings that a sentence names; their labels have commas themselves
TEST = command("test", "--config", "RUN/config.yaml", "--ckpt_path", "best")


def findings(comparison: Comparison, problem: Problem) -> list[str]:
    """A few sentences on one problem, each from its numbers alone."""
    scored = [(s, e) for s in problem.settings if (e := comparison.score(s)) is not None]
    if not scored:
        return []
    said = [_best(comparison, problem, scored)]
    said += _trade_off(comparison, problem)
    said += _gaps(comparison, [setting for setting, _ in scored])
    said += _no_better(comparison, problem, scored)
    return said


def warnings(
    material: Material, comparisons: Sequence[Comparison], repeated: Sequence[RunRecord]
) -> list[str]:
    """What limits the conclusions, the most important first."""
    return [
        *(text for comparison in comparisons for text in _of_comparison(comparison)),
        *_of_runs(material, repeated),
    ]


def _best(
    comparison: Comparison, problem: Problem, scored: Sequence[tuple[Setting, Estimate]]
) -> str:
    measure = comparison.measure
    setting, score = max(scored, key=lambda entry: entry[1].mean)
    shown = measure.shown(score.mean)
    equal = [s.label for s, e in scored if s is not setting and measure.shown(e.mean) == shown]
    also = f"; as high: {first_few(equal, MOST, '; ')}" if equal else ""
    over = {
        "seeds": f"95 % over {score.n} seeds",
        "rows": "95 % over rows, one value",
        "none": "one value, without an interval",
    }[score.over]
    likely = setting.perplexity(comparison.split)
    reads = "" if likely is None else f", at perplexity {large(likely.mean)}"
    return (
        f"Highest {SPLIT_OF[comparison.split]} {measure.label}: {setting.label}, "
        f"{interval(score, measure.shown)} ({over}){reads}{also}."
    )


def _trade_off(comparison: Comparison, problem: Problem) -> Iterator[str]:
    on_front = front(comparison, problem)
    if len(on_front) < 2:
        return
    parts = []
    for setting in on_front:
        x, y = setting.perplexity(comparison.split), comparison.score(setting)
        if x is not None and y is not None:
            parts.append(f"{setting.label} ({large(x.mean)}; {comparison.measure.shown(y.mean)})")
    yield (
        f"Beaten by no other mean in both perplexity and {comparison.measure.label}: "
        f"{first_few(parts, MOST)}."
    )


def _gaps(comparison: Comparison, settings: Sequence[Setting]) -> Iterator[str]:
    """Of each tuner whose vectors are in use, its best setting."""
    seen = set()
    for setting in sorted(settings, key=lambda s: -comparison.mean(s)):
        if setting.tuner in seen or not setting.vectors:
            continue
        if not (both := both_views(setting, comparison)):
            continue
        seen.add(setting.tuner)
        a, b = map(fmean, zip(*both, strict=True))
        yield (
            f"Faithfulness: the vectors of {setting.label} reach {comparison.measure.shown(a)}, "
            f"the tokens nearest to them {comparison.measure.shown(b)}."
        )


def _no_better(
    comparison: Comparison, problem: Problem, scored: Sequence[tuple[Setting, Estimate]]
) -> Iterator[str]:
    known = problem.baselines(comparison.split, comparison.measure.name)
    free = {name: known[name][1] for name in FREE if name in known}
    if not free:
        return
    name, bar = max(free.items(), key=lambda entry: entry[1])
    weak = [s.label for s, e in scored if (e.low if e.low is not None else e.mean) <= bar]
    if weak:
        yield (
            f"Not clearly above the best baseline without a prompt ({name}: "
            f"{comparison.measure.shown(bar)}): {first_few(weak, MOST, '; ')}."
        )


def _of_comparison(comparison: Comparison) -> Iterator[str]:
    named = f"{comparison.task}: " if comparison.task else ""
    runs = [record for setting in comparison.settings for record in setting.records]
    if comparison.split == "val" and any(len(run.history) > 1 for run in runs):
        yield (
            f"{named}the validation rows that chose each prompt also score it, so the numbers are "
            "too high on average, the more so the more validations there were. To score the "
            f"held-out test rows: {TEST}"
        )
    if comparison.unmeasured:
        yield (
            f"{named}{count(len(comparison.unmeasured), 'run')} without a "
            f"{SPLIT_OF[comparison.split]} score left out: {_names(comparison.unmeasured)}."
        )
    # Another seed gives the same prompt where none was learned.
    counts = {len(s.records) for s in comparison.settings if s.learned}
    if counts == {1}:
        yield f"{named}one seed a setting, so nothing is known of what another seed would give."
    elif counts and min(counts) < 3:
        which = "all" if max(counts) < 3 else "some"
        yield (
            f"{named}{which} settings have fewer than 3 seeds; an interval over 2 is wide, over 1 "
            "there is none."
        )
    rows = {run.rows.get(SPLIT_OF[comparison.split]) for run in runs} - {None}
    if len(rows) > 1:
        yield f"{named}the runs were scored on different numbers of rows, {comparison.rows}."
    late = [run for run in runs if len(run.history) > 1 and run.step == run.history[-1].step]
    learned = [run for run in runs if len(run.history) > 1]
    if late:
        yield (
            f"{named}in {len(late)} of {count(len(learned), 'run')} the last validation was the "
            "best: a longer run may be better."
        )


def _of_runs(material: Material, repeated: Sequence[RunRecord]) -> Iterator[str]:
    outcomes = {kind: n for kind, n in material.outcomes.items() if n and kind != "finished"}
    if outcomes:
        counts = ", ".join(f"{n} {kind}" for kind, n in outcomes.items())
        yield f"Not all runs are finished: {counts}; they are listed at the end."
    if other := [run for run in material.records if run.other_test]:
        yield (
            f"{count(len(other), 'test')} left out, of another prompt than the run's best one: "
            f"{_names(other)}; to test that one: {TEST}"
        )
    if repeated:
        yield (
            f"{count(len(repeated), 'run')} left out, with the settings and the seed of another "
            f"one: {_names(repeated)}."
        )


def _names(runs: Sequence[RunRecord]) -> str:
    return first_few((run.name for run in runs), 5, more="others")
