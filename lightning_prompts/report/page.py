"""report.html: one file that opens offline, without JavaScript, and prints."""

import base64
import html
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lightning_prompts.files.amounts import count
from lightning_prompts.files.stages import SPLIT_OF
from lightning_prompts.report.comparison import Comparison, Setting, perplexity
from lightning_prompts.report.figures.looks import Drawn, foremost
from lightning_prompts.report.figures.prompts import chosen
from lightning_prompts.report.shading import Scale, scales, spaced
from lightning_prompts.report.tables import Table, large
from lightning_prompts.report.text import page as escaped
from lightning_prompts.report.text import quoted, shorten
from lightning_prompts.runs.record import RunRecord

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
    parts: list[str] = field(default_factory=list)


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
    style = STYLE.read_text(encoding="utf-8")
    links = "".join(
        f'<a href="#s{i}">{escaped(section.title)}</a>' for i, section in enumerate(sections)
    )
    body = "\n".join(
        f'<section>\n<h2 id="s{i}">{escaped(section.title)}</h2>\n'
        + "\n".join(section.parts)
        + "\n</section>"
        for i, section in enumerate(sections)
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escaped(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        f"<h1>{escaped(title)}</h1>\n"
        + "".join(f'<p class="lead">{escaped(text)}</p>\n' for text in lead)
        + sentences("What the numbers say", found)
        + sentences("What limits them", limits, "warn")
        + f"<nav>{links}</nav>\n{body}\n</body>\n</html>\n"
    )


def sentences(title: str, texts: Sequence[str], kind: str = "") -> str:
    """A box of sentences; nothing where there are none."""
    if not texts:
        return ""
    items = "".join(f"<li>{escaped(text)}</li>" for text in texts)
    return f'<aside class="box {kind}"><h3>{escaped(title)}</h3><ul>{items}</ul></aside>\n'


def figure(drawn: Drawn | None) -> list[str]:
    """A figure with its caption; nothing where there was nothing to draw."""
    if drawn is None:
        return []
    data = base64.b64encode(drawn.svg).decode()
    width = drawn.svg.partition(b'width="')[2].partition(b'pt"')[0].decode()
    return [
        f'<figure id="{escaped(drawn.name)}">'
        f'<img src="data:image/svg+xml;base64,{data}" style="width:{float(width) * 1.7:.0f}px" '
        f'alt="{escaped(f"{drawn.title}. {drawn.caption}")}">'
        f"<figcaption><b>{escaped(drawn.title)}.</b> {escaped(drawn.caption)}</figcaption></figure>"
    ]


def table(content: Table) -> str:
    """A table; rows with a first cell alone in bold are those to look at first."""

    def cells(texts: Sequence[str], tag: str) -> str:
        return "".join(
            f"<{tag}{_scope(tag)}{'' if i < content.texts else ' class=n'}>{escaped(text)}</{tag}>"
            for i, text in enumerate(texts)
        )

    rows = "".join(
        f"<tr{' class=strong' if i in content.strong else ''}>{cells(row, 'td')}</tr>\n"
        for i, row in enumerate(content.rows)
    )
    caption = f"<caption>{escaped(content.title)}</caption>" if content.title else ""
    note = f'<p class="note">{escaped(content.note)}</p>' if content.note else ""
    return (
        f'<div class="wide"><table>{caption}<thead><tr>{cells(content.heads, "th")}</tr></thead>\n'
        f"<tbody>\n{rows}</tbody></table></div>{note}"
    )


def prompts(comparison: Comparison) -> Iterator[str]:
    """Each setting's best prompt, token by token, and the texts of its other seeds."""
    settings = foremost(comparison, comparison.settings, MOST_PROMPTS)
    surprise, distance = scales([chosen(setting, comparison) for setting in settings])
    far = any(chosen(setting, comparison).token_distances for setting in settings)
    keys = [surprise] + [distance] * far
    yield "<p>" + "".join(map(_key, keys)) + "</p>"
    yield (
        '<p class="note">Of each setting the seed with the lowest validation objective. Each token '
        "is shaded by its surprise under the task's model, in nats, which stands below it"
        + (
            "; the second number, shaded on its own, is the cosine distance of its vector to it"
            * far
        )
        + ". A dot is a space.</p>"
    )
    for setting in settings:
        yield _prompt(comparison, setting, surprise, distance)
    if len(settings) < len(comparison.settings):
        left = count(len(comparison.settings) - len(settings), "setting")
        yield (
            f'<p class="note">In results.csv are the prompts of {left} more, of each tuner those '
            "that score lowest.</p>"
        )


def _prompt(comparison: Comparison, setting: Setting, surprise: Scale, distance: Scale) -> str:
    best = chosen(setting, comparison)
    tokens = "".join(_tokens(best, surprise, distance))
    # Equal texts may stand for different vectors.
    alike: dict[tuple[str, str], list[RunRecord]] = {}
    for run in setting.records:
        alike.setdefault((run.text, _numbers(comparison, run)), []).append(run)
    items = "".join(
        f"<li>{_seeds(runs)} ({numbers}): "
        f"<code>{html.escape(shorten(quoted(text), 400))}</code></li>"
        for (text, numbers), runs in list(alike.items())[: MOST_SEEDS + 1]
        if (text, numbers) != (best.text, _numbers(comparison, best))
    )
    kind = "nearest tokens of its vectors" if setting.vectors else "tokens in use"
    return (
        f'<div class="prompt"><h4>{escaped(setting.label)} <span>seed {best.seed}; '
        f"{_numbers(comparison, best)}; {kind}</span></h4>"
        f'<div class="tokens">{tokens}</div>'
        + (f'<ul class="seeds">{items}</ul>' if items else "")
        + "</div>"
    )


def _seeds(runs: Sequence[RunRecord]) -> str:
    return f"seed{'s' * (len(runs) > 1)} {', '.join(str(run.seed) for run in runs)}"


def _tokens(run: RunRecord, surprise: Scale, distance: Scale) -> Iterable[str]:
    nats, far = run.token_nats or [], run.token_distances or []
    for i, token in enumerate(run.tokens):
        parts, face = [], "#ffffff"
        if i < len(nats):
            face = surprise.shade(nats[i])
            parts.append(f"<small>{nats[i]:.1f}</small>")
        if i < len(far):
            shade = distance.shade(far[i])
            face = face if nats else shade
            parts.append(f'<small style="background:{shade}">{far[i]:.2f}</small>')
        yield (
            f'<span class="token"><b style="background:{face}">{escaped(spaced(token))}</b>'
            f"{''.join(parts)}</span>"
        )


def _numbers(comparison: Comparison, run: RunRecord) -> str:
    measure, split = comparison.measure, comparison.split
    score = measure.shown(run.metrics.get(f"{split}/{measure.name}"))
    return f"{SPLIT_OF[split]} {measure.label} {score}, perplexity {large(perplexity(run, split))}"


def _key(scale: Scale) -> str:
    ends = f"{scale.shade(0)}, {scale.shade(scale.top)}"
    return (
        f'<span class="key">{scale.label} ({scale.unit}) 0 '
        f'<i style="background:linear-gradient(to right, {ends})"></i> {scale.top:.3g}</span>'
    )


def _scope(tag: str) -> str:
    return " scope=col" if tag == "th" else ""
