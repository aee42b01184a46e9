"""The model card of an exported prompt: what it is of, what was measured of it, how to use it."""

from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from lightning_prompts.files.amounts import NONE, count, share
from lightning_prompts.files.escaping import visible
from lightning_prompts.files.stages import SPLIT_OF, Stage
from lightning_prompts.lm.packaged import PACKAGED
from lightning_prompts.lm.sources import find_model
from lightning_prompts.report.snippet import Format
from lightning_prompts.report.statistics import estimate
from lightning_prompts.report.text import interval, large, markdown
from lightning_prompts.runs.prompt import Prompt
from lightning_prompts.runs.record import RunRecord
from lightning_prompts.tuners.record import PromptRecord

UNKNOWN = "unknown"
# Metrics of the table, and whether each is a share of rows.
METRICS: Mapping[str, tuple[str, bool]] = {
    "accuracy": ("accuracy of the prompt in use", True),
    "hard_accuracy": ("accuracy of its tokens", True),
    "round_trip_accuracy": ("accuracy of its text, pasted and tokenized anew", True),
    "macro_f1": ("macro-F1", False),
    "loss": ("loss, nats", False),
    "perplexity": ("perplexity of its tokens", False),
    "round_trip": ("round trip: share of tokens that its text gives back", False),
    "distance_differential_cosine": ("cosine distance of vectors to their nearest tokens", False),
    "output_differential": ("output differential of vectors and tokens, logits²", False),
}
COMPARED = ("hard_accuracy", "round_trip_accuracy")


def card(prompt: Prompt, kind: Format, program: str, ran: str, licence: str | None) -> str:
    """The README.md of a folder with an exported prompt.

    Args:
        prompt: That was exported.
        kind: The format.
        program: That uses the files.
        ran: A sentence on whether it was run.
        licence: Of the prompt, as the hub writes it; not known where it is None.
    """
    record = prompt.record
    of_hub = find_model(prompt.lm.name).kind == "hub"
    head: dict[str, Any] = {
        **({"base_model": prompt.lm.name} if of_hub else {}),
        "library_name": "peft" if kind == "peft" else "transformers",
        "license": licence or UNKNOWN,
        "pipeline_tag": "text-classification",
        "tags": ["prompt-tuning", "lightning-prompts"],
    }
    vectors = record.soft_in_use
    what = count(len(prompt.embeddings), "vector" if vectors else "token")
    text = "the text of their nearest tokens" if vectors else "its text"
    parts = [
        f"---\n{yaml.safe_dump(head, sort_keys=False)}---",
        f"# A prompt of {what} for {visible(record.lm.label)}",
        f"{text[0].upper()}{text[1:]}:\n\n{_code(repr(prompt.text))}",
        *(f"**{note}**" for note in notes(prompt, kind)),
        "## Setting\n\n" + _table(("", ""), _setting(record, licence)),
        "## Measured\n\n" + _measured(record),
        f"## Use\n\n{ran}\n\n```python\n{program}```",
    ]
    return "\n\n".join(parts) + "\n"


def notes(prompt: Prompt, kind: Format) -> Iterator[str]:
    """What a user of the files has to know, a sentence each."""
    record = prompt.record
    if kind == "text" and record.soft_in_use:
        yield (
            "What was learned is vectors; this is the text of their nearest tokens, which need not "
            "act like them: see the two accuracies below."
        )
    if kind == "peft":
        before = prompt.template.encode(dict.fromkeys(prompt.template.columns, "")).before_ids
        if before:
            shown = prompt.lm.decode(before)
            yield (
                f"The first {count(len(before), 'virtual token')} of the adapter stand for "
                f"{shown!r}, which PEFT would put behind the prompt: give texts without special "
                "tokens (add_special_tokens=False)."
            )
        yield "Pad batches on the right: PEFT gives the model no positions."
    if packaged := PACKAGED.get(prompt.lm.name):
        yield from filter(None, [packaged.terms.strip("()")])
    if record.lm.quantize:
        yield (
            f"The numbers below were measured with the model quantised ({record.lm.quantize}); "
            "the program reads it whole."
        )


def _setting(record: PromptRecord, licence: str | None) -> Iterator[tuple[str, str]]:
    """What the prompt belongs to, as rows of a table."""
    lm = record.lm
    yield "language model", f"{lm.label} (`--lm.name {lm.name}`)"
    yield "revision", f"{lm.revision or NONE} (weights {lm.fingerprint})"
    if isinstance(record, RunRecord):
        yield "task", record.task or NONE
        yield "data", _data(record.data)
    yield "template", record.template_text
    for label, words in record.verbalizer.items():
        yield f"answer for {label!r}", ", ".join(map(repr, _listed(words)))
    yield "score of answers", record.answer_score
    steps = f", {count(record.step, 'step')}" if record.learned else ""
    yield "tuner", record.tuner + steps
    if isinstance(record, RunRecord):
        yield "weight of readability", f"{record.perplexity_weight:g}"
        yield "seed", str(record.seed)
        yield "versions", ", ".join(f"{k} {v}" for k, v in record.versions.items()) or NONE
    yield "licence", licence or f"{UNKNOWN}; that of the language model and of the data hold too"


def _measured(record: PromptRecord) -> str:
    """A table of metrics for each split, and which rows chose and which scored."""
    if not isinstance(record, RunRecord) or not record.metrics:
        return "Nothing is known: the prompt is of a checkpoint alone. Export the run's folder."
    return "\n\n".join([*_rows(record), *filter(None, (_split(record, s) for s in SPLIT_OF))])


def _rows(record: RunRecord) -> Iterator[str]:
    chose, scored = record.rows.get("validation"), record.rows.get("test")
    first = count(chose, "validation row") if chose else "The validation rows"
    if not record.learned:
        yield f"{first} scored this prompt; no rows of this task chose it."
    elif scored:
        yield f"{first} chose this prompt among those of its run; {count(scored, 'test row')}, "
        "which chose nothing, scored it."
    else:
        yield (
            f"{first} chose this prompt among those of its run, and also score it here, which is "
            "a little better than new rows would be: there was no test."
        )


def _split(record: RunRecord, stage: Stage) -> str | None:
    """Its metrics on one split, with 95 % intervals of what are shares of rows."""
    rows = record.rows.get(SPLIT_OF[stage])
    found = []
    for metric, (name, is_share) in METRICS.items():
        value = record.metrics.get(f"{stage}/{metric}")
        if value is None:
            continue
        known = rows
        if metric in COMPARED:
            known = int(record.metrics.get(f"{stage}/compared_rows") or rows or 0) or None
        shown = large if metric == "perplexity" else share
        found.append((name, interval(estimate([value], known if is_share else None), shown)))
    if not found:
        return None
    baselines = record.baselines if stage == "val" else record.test_baselines
    for name, values in baselines.items():
        if (value := values.get("accuracy")) is not None:
            found.append((f"accuracy of {name}", interval(estimate([value], rows), share)))
    of = f"{rows:,} rows" if rows else "rows"
    return _table((f"{SPLIT_OF[stage]}, {of}", "value [95 % interval]"), iter(found))


def _data(data: Any) -> str:
    """Where rows are from: hub id and commit, or the last part of a path, which is a machine's."""
    if not isinstance(data, Mapping) or not data.get("path"):
        return NONE
    path = str(data["path"])
    local = path.startswith(("/", "~", "."))
    parts = [path.rstrip("/").rpartition("/")[2] if local else path]
    parts += [str(data[key]) for key in ("subset", "revision", "commit") if data.get(key)]
    return ", ".join(parts)


def _listed(words: str | list[str]) -> list[str]:
    return [words] if isinstance(words, str) else words


def _table(heads: tuple[str, str], rows: Iterator[tuple[str, str]]) -> str:
    """Two columns of Markdown, whatever the texts hold."""
    lines = [heads, ("---", "---"), *((markdown(a), markdown(b)) for a, b in rows)]
    return "\n".join(f"| {first} | {second} |" for first, second in lines)


def _code(text: str) -> str:
    """A block of code, which no text in it ends: `repr` leaves no line to begin with a fence."""
    return f"```\n{text}\n```"
