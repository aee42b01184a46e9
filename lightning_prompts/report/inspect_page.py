"""One prompt looked at closely, as a page and as JSON."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from lightning_prompts.files.drawing import DRAWS
from lightning_prompts.files.text import shorten_middle
from lightning_prompts.metrics.panel.token_effects import FILLER_NATS, Change
from lightning_prompts.report import in_words, page
from lightning_prompts.report.figures.alike import dots
from lightning_prompts.report.figures.tokens import bars
from lightning_prompts.report.inspect import OTHERS, Inspection

PAGE = "inspect.html"
READING = (
    "Surprise is how unlikely a token is after those before it and BOS, under the task's model. "
    "Distances are cosine distances between a vector and a token's row of the embedding table.",
    "What a token does: it is left out, and the others are read on the same rows. KL is from the "
    "whole prompt's distribution over the answers to the changed one's, mean over rows, in nats. "
    "Of vectors the whole prompt is their nearest tokens here. Other orders are four fixed "
    "shuffles of the tokens.",
    "Recalibrated: of two answers the threshold is the median of their difference on training "
    "texts, whose labels are not looked at; of more, each answer's mean log-probability is "
    "subtracted. That supposes about equally frequent classes.",
    "Rows on which the ways to read the prompt disagree stand in the order of their difference "
    "(diff.): half the sum of the absolute differences of the answers' probabilities, 0 to 1. "
    "Beside an answer stands how likely it is.",
    "Acts alike: kappa is Cohen's, raw and recalibrated (recal.), of the answers given with the "
    "prompt in use and with the other prompt, 1 where all are equal and 0 where no more are than "
    "by chance; KL is from the prompt in use to the other, mean over rows, in nats. Their "
    f"intervals, and those of differences, are percentiles of {DRAWS:,} bootstrap draws of rows, "
    "the same for all prompts; the thresholds stay as they are. The written prompt in a difference "
    "is the one that is most alike by that measure on these same rows, which favours it. Intervals "
    "of accuracies are Wilson's. All are of 95 %.",
)


def write(found: Inspection, folder: Path) -> Path:
    """Write the numbers, the figure and the page.

    Returns:
        The page.
    """
    record = found.record
    drawn = bars(
        record.tokens,
        record.token_nats or [],
        [change.kl for change in found.effects.deletions],
        FILLER_NATS,
    )
    sections = [
        page.Section(title, [page.table(table) for table in tables])
        for title, tables in found.tables(80)
    ]
    sections[0].parts[:0] = [*page.tokens(record, found.about), *page.figure(drawn)]
    dotted = dots(found.alike) if found.alike else None
    for section in sections:
        if dotted and section.title == OTHERS:
            section.parts[:0] = page.figure(dotted)
    reading = (*READING, *[in_words.READING] * bool(found.in_words))
    sections.append(page.Section("How to read this", [page.reading(reading)]))
    title = f"Inspected: '{shorten_middle(record.text, 120)}'"
    limits = list(found.restrictions())
    lead = [f"{found.about}. {found.title}."]
    text = page.render(title, lead, list(found.findings()), limits, sections)
    written = page.write(folder / PAGE, text, drawn, numbers(found))
    if dotted:
        dotted.save(folder / page.FIGURES)
    return written


def numbers(found: Inspection) -> dict[str, Any]:
    """All of them, for JSON."""
    record, effects = found.record, found.effects
    nothing: list[Any] = [None] * len(record.ids)
    near = [[asdict(n) for n in each] for each in found.near] or nothing
    far = record.token_distances or nothing
    columns = (record.tokens, record.ids, record.token_nats or [], far, near, effects.deletions)
    return {
        "prompt": {
            "text": record.text,
            "tuner": record.tuner,
            "in_use": record.in_use,
            "model": asdict(record.lm),
            "template": record.template,
            "verbalizer": record.verbalizer,
        },
        "about": found.title,
        "rows": effects.rows,
        "calibrated_on": found.calibrated_on,
        "frequencies": found.frequencies,
        "tokens": [
            {
                **{"token": token, "id": i, "nats": nats, "distance": d, "nearest": nearest},
                "without": _numbers(change),
            }
            for token, i, nats, d, nearest, change in zip(*columns, strict=True)
        ],
        "orders": [{"ids": list(c.ids), **_numbers(c)} for c in effects.shuffles],
        "of_tokens": {"accuracy": effects.accuracy, "recalibrated": effects.recalibrated},
        "ways": [asdict(way) for way in found.ways],
        "disagreements": [asdict(row) for row in found.rows],
        "panel": found.panel,
        "alike": [asdict(each) for each in found.alike],
        "differences": [asdict(each) for each in found.differences],
        "in_words": [asdict(each) for each in found.in_words],
        "limits": list(found.restrictions()),
    }


def _numbers(change: Change) -> dict[str, float]:
    names = ("kl", "accuracy", "recalibrated")
    return {name: getattr(change, name) for name in names}
