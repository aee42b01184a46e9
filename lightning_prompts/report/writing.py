"""A report put together and written: the page, the figures, the tables."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from markupsafe import Markup

from lightning_prompts.files.amounts import count
from lightning_prompts.files.atomic_files import write_json
from lightning_prompts.files.errors import PromptError
from lightning_prompts.files.text import short_path
from lightning_prompts.report import page, ratings, tables
from lightning_prompts.report import panel as panels
from lightning_prompts.report.comparison import Comparison, Problem, compare
from lightning_prompts.report.figures.budgets import budgets, outcomes
from lightning_prompts.report.figures.faithfulness import faithfulness
from lightning_prompts.report.figures.looks import Drawn
from lightning_prompts.report.figures.pareto import pareto
from lightning_prompts.report.figures.prompts import prompts
from lightning_prompts.report.figures.training import equal_compute, training
from lightning_prompts.report.findings import findings, warnings
from lightning_prompts.report.load import Material, load
from lightning_prompts.report.page import FIGURES, Section
from lightning_prompts.report.paired import pairs
from lightning_prompts.report.ratings import Ratings
from lightning_prompts.report.text import markdown

PAGE, CSV, MARKDOWN = "report.html", "results.csv", "results.md"
MOST_ROWS = 40
READING = (
    "Perplexity is that of the prompt's tokens (of a soft prompt, the tokens nearest to its "
    "vectors) under the task's own language model unless a scorer was named. Low perplexity means "
    "likely text, not an explanation.",
    "An interval over seeds says where the mean of many seeds would lie, on these very rows; it is "
    "a t interval and assumes that seeds scatter normally. One over rows says what other rows of "
    "the kind would have given, for this very prompt.",
    "Majority answers the most frequent label; no prompt is the template with nothing in the "
    "prompt's place; calibrated subtracts each label's mean log-probability over training texts. A "
    "prompt that does not beat the last has only learned which label is frequent.",
    "A setting is on the Pareto front if no other setting's mean is better in perplexity or in "
    "performance and as good in the other; with few seeds its neighbours may belong there as well.",
)


# Of each comparison, by the names of their files.
Figures = dict[str, Drawn | None]
DRAW: dict[str, Callable[[Comparison, str], Drawn | None]] = {
    "pareto": pareto,
    "faithfulness": faithfulness,
    "training": training,
    "equal_compute": equal_compute,
    "prompts": prompts,
    "budgets": budgets,
}


def write_report(
    paths: Sequence[str],
    folder: Path,
    title: str | None = None,
    rated: Ratings | None = None,
    names: Mapping[str, str] | None = None,
) -> Path:
    """Write the page, the figures and the tables.

    Args:
        paths: As on the command line.
        folder: Where to write; files of an earlier report are replaced.
        title: Of the page; by default the names of what it is of.
        rated: What people say of these prompts.
        names: What to call runs, by their paths; by default what their tuners call themselves.

    Returns:
        The page.
    """
    material = load(paths)
    called = {str(short_path(Path(path))): name for path, name in (names or {}).items()}
    for record in material.records:
        record.label = called.get(record.name, record.label)
    comparisons, repeated = compare(material.records)
    comparisons = [c for c in comparisons if c.problems]
    if not comparisons:
        raise PromptError(
            f"{', '.join(paths)}: no run has an accuracy, a joint score or a reward; validate one "
            "first."
        )
    starts = _names(comparisons)
    drawn: list[Figures] = [
        {name: draw(comparison, start + name) for name, draw in DRAW.items()}
        for comparison, start in zip(comparisons, starts, strict=True)
    ]
    ended = outcomes(material.outcomes, "outcomes") if material.unfinished else None
    limits = warnings(material, comparisons, repeated)
    found = [text for c in comparisons for p in c.problems for text in _found(c, p, comparisons)]
    sections = [
        section
        for comparison, figures in zip(comparisons, drawn, strict=True)
        for section in _sections(comparison, figures, several=len(comparisons) > 1)
    ]
    if rated is not None:
        sections.append(_ratings(rated))
    sections += _ending(material, ended)
    title = title or material.title
    text = page.render(title, _lead(material, comparisons), found, limits, sections)
    try:
        (folder / FIGURES).mkdir(parents=True, exist_ok=True)
        every = [figure for figures in drawn for figure in figures.values()]
        for figure in filter(None, [*every, ended]):
            figure.save(folder / FIGURES)
        tables.write(folder / PAGE, text)
        tables.write(folder / CSV, tables.to_csv(comparisons, repeated, material.unfinished))
        tables.write(folder / MARKDOWN, _markdown(title, comparisons, found, limits))
        if rated is not None:
            write_json(folder / ratings.JSON, rated.numbers())
    except OSError as error:
        raise PromptError(
            f"{folder}: cannot be written ({error.strerror}); give another folder with --output."
        ) from error
    return folder / PAGE


def _names(comparisons: Sequence[Comparison]) -> list[str]:
    """A beginning for each comparison's files; none where there is one comparison."""
    if len(comparisons) == 1:
        return [""]
    return [f"{i + 1}-{_slug(comparison.task)}-" for i, comparison in enumerate(comparisons)]


def _slug(text: str) -> str:
    return "".join(c if c.isascii() and c.isalnum() else "_" for c in text)[:40]


def _lead(material: Material, comparisons: Sequence[Comparison]) -> list[str]:
    runs = sum(len(s.records) for c in comparisons for s in c.settings)
    settings = sum(len(c.settings) for c in comparisons)
    of = "; ".join(f"{c.task} with {c.lm}, scored on {c.rows}" for c in comparisons)
    counts = f"{count(runs, 'run')} of {count(settings, 'setting')}"
    return [*dict.fromkeys(material.descriptions), f"{counts}: {of}."]


def _found(comparison: Comparison, problem: Problem, of: Sequence[Comparison]) -> list[str]:
    """The findings, under the name of what they are of where there is more than one."""
    names = [comparison.task] if len(of) > 1 else []
    names += [problem.label] if problem.label else []
    start = f"{', '.join(names)}: " if names else ""
    return [start + text for text in findings(comparison, problem)]


def _sections(comparison: Comparison, figures: Figures, several: bool) -> list[Section]:
    start = f"{comparison.task}, {comparison.lm}: " if several else ""

    def named(title: str) -> str:
        return f"{start}{title[0].lower()}{title[1:]}" if start else title

    drawn = {name: page.figure(figure) for name, figure in figures.items()}
    settings, compared = [], []
    panel: list[Markup] = []
    for problem in comparison.problems:
        settings.append(page.table(tables.results(comparison, problem, MOST_ROWS)))
        if found := pairs(comparison, problem):
            content = tables.differences(found, comparison)
            content.title = problem.label
            compared.append(page.table(content))
        panel += map(page.table, panels.tables(comparison, problem))
        if (alike := panels.correlations(comparison, problem)) is not None:
            panel.append(page.table(alike))
    sections = {
        "Trade-off": drawn["pareto"] + settings,
        "Faithfulness": drawn["faithfulness"],
        "Differences": compared,
        "Panel of scrutability": panel,
        "Training": drawn["training"] + drawn["equal_compute"],
        "Prompts": list(page.prompts(comparison)),
        "Budgets": drawn["budgets"],
    }
    return [Section(named(title), parts) for title, parts in sections.items() if parts]


def _ratings(found: Ratings) -> Section:
    parts = [page.reading(list(found.findings())), *map(page.table, found.tables(80))]
    if (said := ratings.comments(found)) is not None:
        parts.append(page.table(said))
    return Section("Ratings by people", [*parts, page.reading(ratings.READING)])


def _ending(material: Material, ended: Drawn | None) -> list[Section]:
    sections = []
    if material.unfinished:
        parts = [*page.figure(ended), page.table(tables.failures(material.unfinished))]
        sections.append(Section("Runs that did not finish", parts))
    parts = [page.reading(READING), page.files(CSV, MARKDOWN, FIGURES)]
    return [*sections, Section("How to read this", parts)]


def _markdown(
    title: str, comparisons: Sequence[Comparison], found: Sequence[str], limits: Sequence[str]
) -> str:
    """The tables and the sentences, to paste into a README."""
    parts = [f"# {markdown(title)}"]
    for comparison in comparisons:
        parts.append(f"## {markdown(f'{comparison.task}, {comparison.lm}')}")
        parts.append(markdown(f"Scored on {comparison.rows}."))
        for problem in comparison.problems:
            content = tables.results(comparison, problem)
            parts += [f"### {markdown(problem.label)}"] if problem.label else []
            parts += [tables.to_markdown(content), markdown(content.note)]
            if pairs_found := pairs(comparison, problem):
                content = tables.differences(pairs_found, comparison)
                parts += [tables.to_markdown(content), markdown(content.note)]
    for name, texts in (("What the numbers say", found), ("What limits them", limits)):
        if texts:
            parts += [f"## {name}", "\n".join(f"- {markdown(text)}" for text in texts)]
    return "\n\n".join(parts) + "\n"
