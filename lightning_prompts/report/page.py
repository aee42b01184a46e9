"""report.html: one file that opens offline, without JavaScript, and prints."""

import base64
import functools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup, escape

from lightning_prompts.files.amounts import count
from lightning_prompts.files.atomic_files import write_json, write_text
from lightning_prompts.files.escaping import visible
from lightning_prompts.files.stages import SPLIT_OF
from lightning_prompts.files.text import shorten
from lightning_prompts.report.comparison import Comparison, Setting, perplexity
from lightning_prompts.report.figures.looks import Drawn, foremost
from lightning_prompts.report.figures.prompts import chosen
from lightning_prompts.report.tables import Table
from lightning_prompts.report.text import large, quoted
from lightning_prompts.runs.record import RunRecord
from lightning_prompts.runs.shading import Scale, scales, shaded
from lightning_prompts.tuners.record import PromptRecord

FIGURES = "figures"  # a folder beside the page
MOST_PROMPTS = 24
MOST_SEEDS = 8
# Nothing is fetched and nothing runs, whatever a prompt or a label holds.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
STYLE = Path(__file__).with_name("page.css")


@dataclass
class Section:
    """A part of the page with a place in its list of contents.

    Args:
        title: Plain text.
        parts: HTML.
    """

    title: str
    parts: list[Markup] = field(default_factory=list)


def render(
    title: str,
    lead: Sequence[str],
    found: Sequence[str],
    limits: Sequence[str],
    sections: Sequence[Section],
) -> str:
    """The whole page.

    Args:
        title: Plain text.
        lead: Paragraphs below it.
        found: Sentences of what the numbers say.
        limits: Sentences of what they must not be taken for.
        sections: The rest.
    """
    style = Markup(STYLE.read_text(encoding="utf-8"))
    return str(_macro("page")(title, lead, found, limits, sections, POLICY, style))


def write(path: Path, text: str, drawn: Drawn, numbers: Any) -> Path:
    """Write a page, its figure in a folder beside it, and its numbers as JSON under its name."""
    (path.parent / FIGURES).mkdir(parents=True, exist_ok=True)
    drawn.save(path.parent / FIGURES)
    write_text(path, text)
    write_json(path.with_suffix(".json"), numbers)
    return path


def figure(drawn: Drawn | None) -> list[Markup]:
    """A figure with its caption; nothing where there was nothing to draw."""
    if drawn is None:
        return []
    data = Markup(base64.b64encode(drawn.svg).decode())
    width = drawn.svg.partition(b'width="')[2].partition(b'pt"')[0].decode()
    return [_macro("figure")(drawn, data, f"{float(width) * 1.7:.0f}")]


def table(content: Table) -> Markup:
    """A table; rows with a first cell alone in bold are those to look at first."""
    return _macro("table")(content)


def reading(texts: Sequence[str]) -> Markup:
    """A list of sentences."""
    return _macro("reading")(texts)


def files(csv: str, markdown: str, figures: str) -> Markup:
    """What lies beside the page, by name."""
    return _macro("files")(csv, markdown, figures)


def tokens(record: PromptRecord, about: str) -> Iterator[Markup]:
    """One prompt, token by token.

    Args:
        record: Of the prompt, with what was measured of its tokens.
        about: What stands beside its text.
    """
    surprise, distance = scales([record])
    yield _macro("keys")([surprise] + [distance] * bool(record.token_distances))
    text = f"'{shorten(record.text, 400)}'"
    yield _macro("prompt")(text, about, shaded(record, surprise, distance), [])


def prompts(comparison: Comparison) -> Iterator[Markup]:
    """Each setting's best prompt, token by token, and the texts of its other seeds."""
    settings = foremost(comparison, comparison.settings, MOST_PROMPTS)
    surprise, distance = scales([chosen(setting, comparison) for setting in settings])
    far = any(chosen(setting, comparison).token_distances for setting in settings)
    yield _macro("keys")([surprise] + [distance] * far)
    second = "; the second number, shaded on its own, is the cosine distance of its vector to it"
    several = any(len(setting.records) > 1 for setting in settings)
    best = "Of each setting the seed with the lowest validation objective. "
    yield _macro("note")(
        f"{best * several}Each token is shaded by its surprise under the task's model, in nats, "
        "which stands below it"
        f"{second * far}. A dot is a space."
    )
    for setting in settings:
        yield _prompt(comparison, setting, surprise, distance)
    if len(settings) < len(comparison.settings):
        left = count(len(comparison.settings) - len(settings), "setting")
        yield _macro("note")(
            f"In results.csv are the prompts of {left} more, of each tuner those that score lowest."
        )


def _prompt(comparison: Comparison, setting: Setting, surprise: Scale, distance: Scale) -> Markup:
    best = chosen(setting, comparison)
    # Equal texts may stand for different vectors.
    alike: dict[tuple[str, str], list[RunRecord]] = {}
    for run in setting.records:
        alike.setdefault((run.text, _numbers(comparison, run)), []).append(run)
    others = [
        (f"{_seeds(runs)} ({numbers})", escape(shorten(quoted(text), 400)))
        for (text, numbers), runs in list(alike.items())[: MOST_SEEDS + 1]
        if (text, numbers) != (best.text, _numbers(comparison, best))
    ]
    kind = "nearest tokens of its vectors" if setting.vectors else "tokens in use"
    seed = f"seed {best.seed}; " if setting.learned or len(setting.records) > 1 else ""
    about = f"{seed}{_numbers(comparison, best)}; {kind}"
    tokens = shaded(best, surprise, distance)
    return _macro("prompt")(setting.label, about, tokens, others)


def _seeds(runs: Sequence[RunRecord]) -> str:
    return f"seed{'s' * (len(runs) > 1)} {', '.join(str(run.seed) for run in runs)}"


def _numbers(comparison: Comparison, run: RunRecord) -> str:
    measure, split = comparison.measure, comparison.split
    score = measure.shown(run.metrics.get(f"{split}/{measure.name}"))
    return f"{SPLIT_OF[split]} {measure.label} {score}, perplexity {large(perplexity(run, split))}"


def _macro(name: str) -> Callable[..., Markup]:
    """A part of the template."""
    found: Callable[..., Markup] = getattr(_template().module, name)
    return found


@functools.cache
def _template() -> Template:
    """Whatever is put into it is data: escaped, and before that made visible."""

    def finalize(value: Any) -> Any:
        return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value

    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, finalize=finalize
    )
    environment.filters["settings"] = settings
    return environment.get_template("page.html")


def settings(text: str) -> Markup:
    """A text whose short settings each stay on a line: `λ = 5` is not broken at its sign.

    >>> settings("PEZ, λ = <5, text = ...")
    Markup('PEZ, <span class=setting>λ = &lt;5,</span> <span class=setting>text = ...</span>')
    """
    parts = re.split(r"((?<!\S)\S{1,20} = \S{1,16}(?!\S))", visible(text))
    kept = Markup("<span class=setting>{}</span>")
    return Markup("").join(kept.format(part) if i % 2 else part for i, part in enumerate(parts))
