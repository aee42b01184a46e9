"""Writes docs/gallery.md: `python docs/gallery.py`, from gallery.yaml and gallery.json alone.

`python docs/gallery.py --measure` first measures, with the models themselves, what gallery.json
lacks; that is written after each measure, so a stopped run goes on. Without the file all is
measured: a quarter of an hour of one CPU core.
"""

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from markupsafe import escape

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent))

from lightning_prompts import FrozenLM, TaskFacts, scrutability_panel  # noqa: E402 - from above
from lightning_prompts.files.escaping import visible  # noqa: E402
from lightning_prompts.metrics.scrutability import log_perplexity  # noqa: E402
from lightning_prompts.runs.shading import scales, spaced  # noqa: E402

PAGE, PROMPTS, READINGS = (DOCS / f"gallery.{kind}" for kind in ("md", "yaml", "json"))
MODELS = {"smollm2": "SmolLM2", "gemma3-270m": "Gemma\u00a03"}
# The first for all texts and models before the second, most of whose time goes to passes over some
# thousand stretches or descriptions.
CHEAP = ("grammar", "repetition", "real_words")
COSTLY = ("natural_percentile", "task_identification")
VALUE_OF = {"task_identification": "task_rank"}
# A token that is drawn from the whole vocabulary has ln V nats: 10.8 under SmolLM2, 12.5 under
# Gemma 3. What is darkest is no likelier than that.
SURPRISE = scales([])[0]._replace(top=12.0)


class Column(NamedTuple):
    """A value of a reading: its key, what it is, and how it is written."""

    key: str
    asks: str
    range: str
    show: Callable[[float], str]

    @property
    def head(self) -> str:
        """Of its column."""
        return self.key.replace("_", " ")


COLUMNS = (
    Column(
        "perplexity",
        "how likely are the tokens? exp of the mean surprise",
        "1 up; short instructions of people have 100 to 350 under SmolLM2",
        lambda x: f"{float(f'{x:.3g}'):,.0f}",
    ),
    Column(
        "natural_percentile",
        "how many natural stretches of as many tokens are less likely?",
        "0 to 100; 50 is natural text",
        "{:.1f}".format,
    ),
    Column(
        "grammar",
        "how many shuffles of the same tokens are less likely?",
        "0 to 1; 0.5 is chance",
        "{:.2f}".format,
    ),
    Column(
        "repetition",
        "how many of the tokens stood before in it?",
        "0 to below 1",
        "{:.2f}".format,
    ),
    Column(
        "real_words",
        "how many of its words stand in the package's natural sentences?",
        "0 to 1",
        "{:.2f}".format,
    ),
    Column(
        "task_rank",
        "shown the text, where does the model put the true task among eight?",
        "1 (best) to 8, mean over three frames",
        "{:.1f}".format,
    ),
    Column(
        "task_margin",
        "by how much is the true task likelier than the best other one?",
        "nats a token, above 0 where it wins",
        "{:+.2f}".format,
    ),
)
IN_SUMMARY = [COLUMNS[i] for i in (0, 1, 2, 5)]
BEGIN = """\
# Gallery

Prompts that were learned with this project, token by token, and a few that people wrote: on two
real models and three data sets, with what each measure says of the text. The most accurate one of
SmolLM2 is half a sentence about language, the likeliest ones do not name their task, and those
that gradients found cannot be read.

**Shades and numbers.** Each token is shaded by its *surprise*, -ln p of it behind those before it,
in nats, under the model named beside it; the small number is the same. A dot is a space. Where
every token of the vocabulary is as likely as any other one, each has 10.8 nats under SmolLM2 and
12.5 under Gemma 3; from 12 on the shade is the darkest.

{legend}

**Accuracy** is copied from the page that each prompt names, with its rows. It was not measured anew
here, and rows differ, so a few hundredths between two lines mean nothing. *Recalibrated* is without
the lean between the answers, by texts without labels.
"""
SEEN = """\
- Where a search began at a written text that names its task, it found a more accurate one that does
  not: on news from 0.497 to 0.709, and from task rank 1.0 to 6.3; on questions from 0.398 to 0.539,
  and from 1.3 to 5.7.
- The two most accurate texts for film reviews behind the review have task ranks of 3.7 and 4.0, the
  written one 2.0. All three have a perfect order (grammar 1.00).
- What PEZ, GCG and the nearest tokens give is less likely than every natural stretch (natural
  percentile 0.0), in an order that hardly matters or is a bad one (grammar 0.09 to 0.56).
- One word ten times has the lowest perplexity of all (22), which natural percentile takes for the
  best text (100.0). Grammar (0.50) and repetition (0.90) do not.
"""
ASKED = """\
All are the model's own readings. It is a partial reader: the prompt may have been found because
this model makes something of it. [Scrutability](scrutability.md) has what each measure is, and
whether it is valid. A hyphen: not measured, as with Gemma 3 what takes long.

"""
END = """\
`python docs/gallery.py` writes this page from `docs/gallery.yaml`, the prompts, and
`docs/gallery.json`, the readings (float32, one thread); with `--measure` it has the models read
what the second lacks. Real words are those of the package's sentences alone, without any task's
texts. A text is tokenized anew: what a gradient found may have been other tokens of the same text,
though where a page has the perplexity of one text, the
one here agrees.
"""


@cache
def prompts() -> list[dict[str, Any]]:
    """The sections of gallery.yaml, each with its prompts."""
    return list(yaml.safe_load(PROMPTS.read_text(encoding="utf-8")))


def wanted() -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Model, text and section of each reading."""
    for model in MODELS:
        for section in prompts():
            for prompt in section["prompts"]:
                if model in prompt["under"]:
                    yield model, prompt["text"], section


def key_of(model: str, text: str, section: Mapping[str, Any]) -> str:
    """Under which a reading is kept: all that it depends on but the code."""
    return json.dumps([model, section["kind"], *section["answers"], text], ensure_ascii=False)


@torch.no_grad()
def tokens_of(lm: FrozenLM, text: str) -> dict[str, Any]:
    """A text's tokens, the nats of each, and their perplexity."""
    ids = lm.encode(text)
    nats = lm.token_nll(torch.tensor([ids]))[0]
    return {
        "tokens": lm.token_strings(ids),
        "nats": [round(value, 3) for value in nats.tolist()],
        "perplexity": float(f"{log_perplexity(nats).exp().item():.6g}"),
    }


@torch.no_grad()
def measured(
    lm: FrozenLM, text: str, section: Mapping[str, Any], measures: Sequence[str]
) -> dict[str, float]:
    """Measures of a text, without any task's texts."""
    facts = TaskFacts(section["kind"], section["answers"])
    return scrutability_panel(lm, lm.encode(text), measures, facts)


def kept() -> dict[str, Any]:
    """The readings of gallery.json."""
    return dict(json.loads(READINGS.read_text(encoding="utf-8"))) if READINGS.exists() else {}


def keep(readings: Mapping[str, Any]) -> None:
    """Write gallery.json."""
    text = json.dumps(readings, indent=1, ensure_ascii=False)
    READINGS.write_text(text + "\n", encoding="utf-8")


def measure() -> None:
    """Read what gallery.json lacks; what no text of gallery.yaml has any more is left out."""
    known = kept()
    known = {key_of(*one): known.get(key_of(*one), {}) for one in wanted()}
    load = lru_cache(maxsize=1)(FrozenLM)  # one in memory at a time
    for measures in (CHEAP, COSTLY):
        for model, text, section in wanted():
            reading = known[key_of(model, text, section)]
            if not reading:
                reading |= tokens_of(load(model), text)
            for name in measures:
                if VALUE_OF.get(name, name) not in reading:
                    found = measured(load(model), text, section, [name])
                    reading |= {key: float(f"{value:.6g}") for key, value in found.items()}
                    keep(known)
    keep(known)


def page() -> str:
    """The whole page."""
    known = kept()
    parts = [BEGIN.format(legend=legend()), "## All of them\n", summary(known)]
    parts += ["## What is seen\n", SEEN]
    parts += ["## What each measure asks\n", ASKED + asked()]
    for section in prompts():
        parts += [f"## {section['title']}\n", f"{section['task']}\n"]
        for prompt in section["prompts"]:
            parts += [f"### {prompt['title']}\n", entry(prompt, section, known)]
    return "\n".join([*parts, "## How it is made\n", END])


def legend() -> str:
    """The shades, from none to the darkest."""
    steps = [box(f"{nats}{'+' * (nats == SURPRISE.top)}", nats) for nats in range(0, 13, 3)]
    return f'<div class="tokens">\n<span>surprise, nats</span>\n{"".join(steps)}</div>\n'


def summary(known: Mapping[str, Any]) -> str:
    """A table of all prompts by task and reader, the most accurate ones first."""
    heads = ["prompt", "found by", "accuracy", "rows", *(column.head for column in IN_SUMMARY)]
    lines = line(*heads) + line(*["---"] * len(heads))
    for section in prompts():
        for model, name in MODELS.items():
            found = list(_rows(section, model, known))
            if found:
                lines += line(f"**{section['title']}, {name}**", *[""] * (len(heads) - 1))
                found.sort(key=lambda row: -row[0])
                lines += "".join(line(*cells) for _, cells in found)
    return lines


def _rows(
    section: Mapping[str, Any], model: str, known: Mapping[str, Any]
) -> Iterator[tuple[float, list[str]]]:
    """Accuracy and cells of each line of a task, as one model reads it."""
    for base in section.get("baselines", ()):
        if base["model"] == model:
            blank = [""] * len(IN_SUMMARY)
            yield base["accuracy"], [f"*{base['name']}*", "", *scored(base), *blank]
    for prompt in section["prompts"]:
        if model in prompt["under"]:
            recorded = prompt["under"][model]
            link = f"[{code(prompt['text'])}](#{anchor(prompt['title'])})"
            by = (
                prompt["by"]
                .partition(",")[0]
                .removesuffix(f" on {MODELS[model]}".replace("\u00a0", " "))
            )
            values = shown(known[key_of(model, prompt["text"], section)], IN_SUMMARY)
            yield recorded.get("accuracy", 0.0), [link, by, *scored(recorded), *values]


def asked() -> str:
    """A table of the measures."""
    lines = line("measure", "asks", "range") + line("---", "---", "---")
    return lines + "".join(line(column.head, column.asks, column.range) for column in COLUMNS)


def shown(reading: Mapping[str, Any], columns: Iterable[Column]) -> list[str]:
    """Values of a reading, a hyphen where one was not measured."""
    return [c.show(reading[c.key]) if c.key in reading else "-" for c in columns]


def scored(recorded: Mapping[str, Any]) -> tuple[str, str]:
    """Accuracy and rows, empty where there are none."""
    if "accuracy" not in recorded:
        return "", ""
    return f"{recorded['accuracy']:.3f}", f"{recorded['rows']:,}"


def entry(prompt: Mapping[str, Any], section: Mapping[str, Any], known: Mapping[str, Any]) -> str:
    """One prompt: its tokens under each model, how it reads, and its measures."""
    pages = dict.fromkeys(recorded["page"] for recorded in prompt["under"].values())
    source = " and ".join(f"[{Path(path).stem.replace('_', ' ')}]({_link(path)})" for path in pages)
    by = prompt["by"][0].upper() + prompt["by"][1:]
    text = f"{by}. From {source}.\n\n"
    rows = line("read by", "accuracy", "rows", *(column.head for column in COLUMNS))
    rows += line(*["---"] * (3 + len(COLUMNS)))
    for model, recorded in prompt["under"].items():
        reading = known[key_of(model, prompt["text"], section)]
        pairs = zip(reading["tokens"], reading["nats"], strict=True)
        boxes = "".join(box(token, nats, f"{nats:.1f}") for token, nats in pairs)
        text += f'<div class="tokens">\n<span>{MODELS[model]}</span>\n{boxes}</div>\n\n'
        values = shown(reading, COLUMNS)
        accuracy, number = scored(recorded)
        if "recalibrated" in recorded:
            accuracy += f"; recalibrated {recorded['recalibrated']:.3f}"
        rows += line(MODELS[model], accuracy, number, *values)
    note = f"\nAccuracy is {prompt['note']}.\n" if "note" in prompt else ""
    return f"{text}*{prompt['reads']}*\n\n{rows}{note}"


def box(token: str, nats: float, number: str = "") -> str:
    """A token, shaded, and its number below it, which stays where styles are taken away."""
    red, green, blue = SURPRISE.hue
    colour = f"rgba({red},{green},{blue},{SURPRISE.share(nats):.2f})"
    face, number = escape(visible(spaced(token))), f"<sub>{number}</sub>" if number else ""
    return f'<span class="token" style="background:{colour}"><code>{face}</code>{number}</span>\n'


def line(*cells: str) -> str:
    """A row of a table."""
    return f"| {' | '.join(cells)} |\n"


def code(text: str) -> str:
    """A text as code, on one line."""
    return f"`{visible(text)}`"


def anchor(title: str) -> str:
    """What a link to a heading names, here and on GitHub.

    >>> anchor("It's a total")
    'its-a-total'
    """
    kept = "".join(c for c in title.lower() if c.isalnum() or c in " -_")
    return kept.replace(" ", "-")


def _link(path: str) -> str:
    """A page of the repository, from docs/."""
    return path.removeprefix("docs/") if path.startswith("docs/") else f"../{path}"


if __name__ == "__main__":
    if "--measure" in sys.argv[1:]:
        measure()
    PAGE.write_text(page(), encoding="utf-8")
