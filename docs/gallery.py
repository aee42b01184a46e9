"""Writes docs/gallery.md: `python docs/gallery.py`, from gallery.yaml and gallery.json alone.

`python docs/gallery.py --measure` first reads, with the models themselves, the texts that
gallery.json lacks; it is written after each text, so a stopped run goes on. Without that file all
are read: some minutes of one CPU core.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

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
MODELS = {"smollm2": "SmolLM2", "gemma3-270m": "Gemma 3"}
MEASURES = ("natural_percentile", "grammar", "repetition", "real_words", "task_identification")
# A token that is drawn from the whole vocabulary has ln V nats: 10.8 under SmolLM2, 12.5 under
# Gemma 3. What is darkest is no likelier than that.
SURPRISE = scales([])[0]._replace(top=12.0)
# Of a reading: its key, the head of its column, and how it is written.
COLUMNS = (
    ("perplexity", "perplexity", lambda x: f"{float(f'{x:.3g}'):,.0f}"),
    ("natural_percentile", "natural percentile", "{:.1f}".format),
    ("grammar", "grammar", "{:.2f}".format),
    ("repetition", "repetition", "{:.2f}".format),
    ("real_words", "real words", "{:.2f}".format),
    ("task_rank", "task rank", "{:.1f}".format),
    ("task_margin", "task margin", "{:+.2f}".format),
)
IN_SUMMARY = ("perplexity", "natural_percentile", "grammar", "task_rank")
BEGIN = """\
# Gallery

Prompts that were learned with this project, token by token, and a few that people wrote: on two real models and three
data sets, with what each measure says of the text. The best of them is half a sentence about language, the likeliest
one says nothing, and most of those that gradients found cannot be read.

**Shades and numbers.** Each token is shaded by its *surprise*, -ln p of it behind those before it, in nats, under the
model named beside it; the small number is the same. A dot is a space. A token drawn blindly from the whole vocabulary
has 10.8 nats under SmolLM2 and 12.5 under Gemma 3 in a model that knows nothing; from 12 on the shade is the darkest.

{legend}

**Measures**, all by the model itself, which is a partial reader: the prompt may have been found because this model makes
something of it ([what each is, and whether it is valid](scrutability.md)).

| measure | asks | range |
| --- | --- | --- |
| perplexity | how likely are the tokens? exp of the mean surprise | 1 up; short instructions of people have 100 to 350 under SmolLM2 |
| natural percentile | how many natural stretches of as many tokens are less likely? | 0 to 100; 50 is natural text |
| grammar | how many shuffles of the same tokens are less likely? | 0 to 1; 0.5 is chance |
| repetition | how many tokens stood before in it? | 0 to below 1 |
| real words | how many words stand in the package's natural sentences? | 0 to 1 |
| task rank | shown the text, where does the model put the true task among eight? | 1 (best) to 8, mean over three frames |
| task margin | by how much is the true task likelier than the best other one? | nats a token, above 0 where it wins |

**Accuracy** is copied from the page that each prompt names, with its rows; it was not measured anew here, and rows differ,
so a few hundredths between two lines mean nothing. *Recalibrated* is without the lean to one answer, by texts without
labels.
"""
END = """\
`python docs/gallery.py` writes this page from `docs/gallery.yaml`, the prompts, and `docs/gallery.json`, the readings;
with `--measure` it has the models read what the second lacks. A text is tokenized anew here: what a gradient found may
have been other tokens of the same text.
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


def read(lm: FrozenLM, text: str, section: Mapping[str, Any]) -> dict[str, Any]:
    """A text's tokens, the nats of each, and its measures, all by one model."""
    ids = lm.encode(text)
    nats = lm.token_nll(torch.tensor([ids]))[0]
    facts = TaskFacts(section["kind"], section["answers"])
    panel = scrutability_panel(lm, ids, MEASURES, facts)
    found = {"perplexity": log_perplexity(nats).exp().item(), **panel}
    return {
        "tokens": lm.token_strings(ids),
        "nats": [round(value, 3) for value in nats.tolist()],
        **{name: float(f"{value:.6g}") for name, value in found.items()},
    }


def kept() -> dict[str, Any]:
    """The readings of gallery.json."""
    return dict(json.loads(READINGS.read_text(encoding="utf-8"))) if READINGS.exists() else {}


@torch.no_grad()
def measure() -> None:
    """Read what gallery.json lacks, and leave out what it need not have any more."""
    known = kept()
    found, lms = {}, {}
    for model, text, section in wanted():
        key = key_of(model, text, section)
        if key not in known:
            lm = lms.setdefault(model, None) or FrozenLM(model)
            lms = {model: lm}  # one at a time in memory
            known[key] = read(lm, text, section)
        found[key] = known[key]
        content = json.dumps(known | found, indent=1, ensure_ascii=False)
        READINGS.write_text(content + "\n", encoding="utf-8")
    READINGS.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def page() -> str:
    """The whole page."""
    known = kept()
    parts = [BEGIN.format(legend=legend()), "## All of them\n", summary(known)]
    for section in prompts():
        parts += [f"## {section['title']}\n", f"{section['task']}\n"]
        for prompt in section["prompts"]:
            parts += [f"### {prompt['title']}\n", entry(prompt, section, known)]
    return "\n".join([*parts, "## How it is made\n", END])


def legend() -> str:
    """The shades, from none to the darkest."""
    steps = [box(f"{nats:.0f}", float(nats)) for nats in range(0, 13, 2)]
    return f'<div class="tokens key">\n{"".join(steps)}<span>nats, 12 and more</span>\n</div>\n'


def summary(known: Mapping[str, Any]) -> str:
    """A table of all prompts, the most accurate ones of a task first."""
    heads = [head for key, head, _ in COLUMNS if key in IN_SUMMARY]
    lines = line("prompt", "found by", "read by", "accuracy", "rows", *heads)
    lines += line(*["---"] * (5 + len(heads)))
    for section in prompts():
        lines += line(f"**{section['title']}**", *[""] * (4 + len(heads)))
        for accuracy, cells in sorted(_rows(section, known), key=lambda row: -row[0]):
            shown = f"{accuracy:.3f}" if accuracy else ""
            lines += line(*cells[:3], shown, *cells[3:])
    return lines


def _rows(
    section: Mapping[str, Any], known: Mapping[str, Any]
) -> Iterator[tuple[float, list[str]]]:
    """Accuracy, and the other cells, of each line of a task."""
    blank = [""] * len(IN_SUMMARY)
    for base in section.get("baselines", ()):
        cells = [f"*{base['name']}*", "", MODELS[base["model"]], f"{base['rows']:,}", *blank]
        yield base["accuracy"], cells
    for prompt in section["prompts"]:
        link = f"[{code(prompt['text'])}](#{anchor(prompt['title'])})"
        for model, recorded in prompt["under"].items():
            reading = known[key_of(model, prompt["text"], section)]
            rows = f"{recorded['rows']:,}" if "rows" in recorded else ""
            by = prompt["by"].partition(",")[0]
            values = [show(reading[key]) for key, _, show in COLUMNS if key in IN_SUMMARY]
            yield recorded.get("accuracy", 0.0), [link, by, MODELS[model], rows, *values]


def entry(prompt: Mapping[str, Any], section: Mapping[str, Any], known: Mapping[str, Any]) -> str:
    """One prompt: its tokens under each model, how it reads, and its measures."""
    pages = dict.fromkeys(recorded["page"] for recorded in prompt["under"].values())
    source = " and ".join(f"[{Path(path).stem}]({_link(path)})" for path in pages)
    by = prompt["by"][0].upper() + prompt["by"][1:]
    text = f"{by}. From {source}.\n\n"
    rows = line("read by", "accuracy", "rows", *(head for _, head, _ in COLUMNS))
    rows += line(*["---"] * (3 + len(COLUMNS)))
    for model, recorded in prompt["under"].items():
        reading = known[key_of(model, prompt["text"], section)]
        boxes = "".join(map(box, reading["tokens"], reading["nats"]))
        text += f'<div class="tokens">\n<span>{MODELS[model]}</span>\n{boxes}</div>\n\n'
        values = [show(reading[key]) for key, _, show in COLUMNS]
        given = f"{recorded['rows']:,}" if "rows" in recorded else ""
        rows += line(MODELS[model], _accuracy(recorded), given, *values)
    note = f"\nAccuracy is {prompt['note']}.\n" if "note" in prompt else ""
    return f"{text}*{prompt['reads']}*\n\n{rows}{note}"


def _accuracy(recorded: Mapping[str, Any]) -> str:
    if "accuracy" not in recorded:
        return ""
    found = f"{recorded['accuracy']:.3f}"
    again = recorded.get("recalibrated")
    return f"{found}; recalibrated {again:.3f}" if again else found


def box(token: str, nats: float) -> str:
    """A token, shaded; where styles are taken away its number still stands below it."""
    red, green, blue = SURPRISE.hue
    colour = f"rgba({red},{green},{blue},{SURPRISE.share(nats):.2f})"
    shown, number = escape(visible(spaced(token))), f"<sub>{nats:.1f}</sub>"
    return f'<span class="token" style="background:{colour}"><code>{shown}</code>{number}</span>\n'


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
