"""Programs that use an exported prompt without this package, and what they have to answer.

Each is plain transformers, or PEFT, and defines `probabilities(row)`. It is run on the files that
it reads before it is written into their model card.
"""

import contextlib
import io
import runpy
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from lightning_prompts.files.errors import PromptError, first_line
from lightning_prompts.files.escaping import one_line
from lightning_prompts.files.hub import offline_unless_reachable
from lightning_prompts.lm.batch import Example, collate, on_device
from lightning_prompts.lm.sources import converted_folder, find_model
from lightning_prompts.runs.prompt import Prompt

Format = Literal["peft", "text", "safetensors", "json"]
EXAMPLE = "example.py"
TEXTS = ("A warm and funny film.", "Dull, and far too long.")
CLOSE = 2e-3  # between probabilities; passes in float32 of other shapes differ by 1e-5

BEGINNING = """\
{standard}import torch
{imports}from transformers import AutoModelForCausalLM, AutoTokenizer

{name}
tokenizer = AutoTokenizer.from_pretrained(name{revision})
model = AutoModelForCausalLM.from_pretrained(name{revision}, dtype=torch.float32).eval()
{load}
template = {template!r}
answers = {answers!r}


def ids(text):
    return tokenizer(text, add_special_tokens=False).input_ids


@torch.no_grad()
def logits(row, behind=()):
    # Of the next token, and of those behind it where an answer has several.
{filled}{read}
    return found.logits[0, -1 - len(behind) :]

"""
# What the model reads, by where the prompt is.
PASTED = """\
    tokens = torch.tensor([{prefix}ids(template.format_map(row)) + list(behind)])
    found = model(input_ids=tokens)"""
JOINED = """\
    before, after = template.format_map({{**row, "prompt": "\\0"}}).split("\\0")
    pieces = {prefix}ids(before), ids(after) + list(behind)
    before, after = (embed(torch.tensor(piece, dtype=torch.long)) for piece in pieces)
    found = model(inputs_embeds=torch.cat([before, prompt, after])[None])"""
# How answers are scored.
ONE_TOKEN = """
def probabilities(row):
    # How likely each label is for a row, a mapping from column to text.
    words = [ids(word)[0] for word in answers.values()]
    return dict(zip(answers, logits(row)[0, words].softmax(0).tolist()))

"""
SEVERAL = """
def scores(row):
    # Of each label: the log-sum-exp of its answers, of each the {score} over its tokens.
    found = []
    for words in answers.values():
        each = []
        for tokens in map(ids, words):
            steps = logits(row, tokens[:-1]).log_softmax(-1)
            each.append(steps[range(len(tokens)), tokens].{score}())
        found.append(torch.stack(each).logsumexp(0))
    return torch.stack(found)


def probabilities(row):
    # How likely each label is for a row, a mapping from column to text.
    return dict(zip(answers, {scores}.softmax(0).tolist()))

"""


def snippet(prompt: Prompt, kind: Format) -> str:
    """The program that reads the files of one format.

    Args:
        prompt: That was exported.
        kind: The format.

    Raises:
        PromptError: If the template has a column that no format string can name.
    """
    record, template = prompt.record, prompt.template
    if dotted := [column for column in template.columns if "." in column]:
        raise PromptError(
            f"The column {dotted[0]!r} of the template has a dot, by which Python's format strings "
            "mean something else; rename it in data and template, and train again."
        )
    text, prefix = template.text, template.prefix_ids
    standard, imports, load = [], "", ""
    if kind == "peft":
        imports = "from peft import PeftModel\n"
        load = 'model = PeftModel.from_pretrained(model, ".")'
        text, prefix, read = text.partition("{prompt}")[2], [], PASTED
        # The adapter has what stands before the prompt; a BOS behind it is none of the text's own.
        if not template.prefix_ids and prompt.lm.prefix_ids:
            text, prefix = (
                text.removeprefix(prompt.lm.decode(prompt.lm.prefix_ids)),
                prompt.lm.prefix_ids,
            )
    elif kind == "text":
        load, read = 'prompt = open("prompt.txt", encoding="utf-8", newline="").read()', PASTED
    else:
        read = JOINED
        load = "embed = model.get_input_embeddings()\n"
        if kind == "safetensors":
            imports = "from safetensors.torch import load_file\n"
            load += 'prompt = load_file("prompt.safetensors")["prompt_embeddings"]  # [P, H]'
        else:
            standard.append("import json\n")
            load += 'prompt = json.load(open("prompt.json", encoding="utf-8"))\n'
            vectors = 'torch.tensor(prompt["embeddings"])'
            rows = 'embed(torch.tensor(prompt["ids"])).detach()'
            load += f"prompt = {vectors if record.soft_in_use else rows}  # [P, H]"
    verbalizer = prompt.verbalizer
    single = verbalizer.tree is None and all(len(each) == 1 for each in verbalizer.answers)
    answers: dict[str, Any] = dict(
        zip(verbalizer.labels, map(list, verbalizer.answers), strict=True)
    )
    plain = single and verbalizer.score != "pmi"
    if plain:
        answers = {label: words[0] for label, words in answers.items()}
    empty = '(scores(row) - scores(dict.fromkeys(row, "")))'
    scoring = (
        ONE_TOKEN
        if plain
        else SEVERAL.format(
            score="mean" if verbalizer.score == "mean" else "sum",
            scores=empty if verbalizer.score == "pmi" else "scores(row)",
        )
    )
    name, revision = _model(prompt)
    if name.startswith("name = os."):
        standard.append("import os\n")
    program = BEGINNING.format(
        standard="".join([*standard, "\n"]) if standard else "",
        imports=imports,
        name=name,
        revision=f", revision={revision!r}" if revision else "",
        load=load,
        template=text,
        answers=answers,
        filled=_filled(prompt, kind),
        read=read.format(prefix=f"{prefix} + " if prefix else ""),
    )
    row = dict.fromkeys(template.columns, TEXTS[0])
    return f"{program}{scoring}\nprint(probabilities({row!r}))\n"


def run(folder: Path, prompt: Prompt, kind: Format) -> float:
    """Run the program of a folder as a stranger would, in it, and compare its answers.

    Args:
        folder: Has the files and the program.
        prompt: That was exported.
        kind: The format.

    Returns:
        The largest difference to a probability of our own.

    Raises:
        PromptError: If it does not run, or says something else.
    """
    rows = [dict.fromkeys(prompt.template.columns, text) for text in TEXTS]
    with contextlib.chdir(folder), offline_unless_reachable(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of libraries about one another
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                probabilities = runpy.run_path(EXAMPLE)["probabilities"]
                found = [probabilities(row) for row in rows]
        except Exception as error:  # whatever the libraries raise
            raise PromptError(
                f"The program for the exported files does not run ({first_line(error)}), so "
                "nothing was written; choose another --format."
            ) from error
    expected = _pasted(prompt, rows) if kind == "text" else prompt.probabilities(rows)
    far = max(
        abs(own[label] - other[label])
        for own, other in zip(expected, found, strict=True)
        for label in own
    )
    if not far <= CLOSE:
        raise PromptError(
            f"Plain {'PEFT' if kind == 'peft' else 'transformers'} answers otherwise from the "
            f"exported files (a probability differs by {far:.2g}), so nothing was written; choose "
            "another --format."
        )
    return far


def _model(prompt: Prompt) -> tuple[str, str | None]:
    """The line that names the model, as transformers find it, and its revision on the hub."""
    source = find_model(prompt.lm.name, None)
    if source.kind == "hub":
        return f"name = {source.location!r}", prompt.lm.revision
    place = converted_folder(source) if source.kind == "gguf" else Path(source.location).absolute()
    note = f"  # {one_line(source.label)}"
    if place.is_relative_to(Path.home()):
        inside = "~/" + place.relative_to(Path.home()).as_posix()
        return f"name = os.path.expanduser({inside!r}){note}", None
    return f"name = {str(place)!r}{note}", None


def _filled(prompt: Prompt, kind: Format) -> str:
    """Lines that make a row as the template wants it."""
    parts = [
        f"{name!r}: row[{name!r}].{trim.__name__}()"
        for name, trim in prompt.template.trims.items()
        if name != "prompt"
    ]
    if kind == "text":
        trim = prompt.template.trims.get("prompt")
        parts.append('"prompt": prompt' + (f".{trim.__name__}()" if trim else ""))
    return f"    row = {{**row, {', '.join(parts)}}}\n" if parts else ""


@torch.no_grad()
def _pasted(prompt: Prompt, rows: Sequence[Mapping[str, str]]) -> list[dict[str, float]]:
    """What the text says for rows, pasted into the template."""
    scores = torch.stack([_pasted_scores(prompt, row) for row in rows])
    if prompt.verbalizer.score == "pmi":
        scores = scores - _pasted_scores(prompt, dict.fromkeys(prompt.template.columns, ""))
    labels = prompt.verbalizer.labels
    return [dict(zip(labels, row, strict=True)) for row in scores.softmax(-1).tolist()]


def _pasted_scores(prompt: Prompt, row: Mapping[str, str]) -> Tensor:
    """[C] Of one row."""
    lm, example = prompt.lm, prompt.template.encode(row)
    (ids,) = prompt.template.paste(prompt.text, [(example.before, example.after)])
    whole = collate([Example("", "", [], ids, False)], [-1], [0])
    nothing = prompt.embeddings[None, :0]
    batch = on_device(whole, nothing.device)
    return prompt.verbalizer.scores(lm, lm.answers(nothing, batch, prompt.verbalizer.tree))[0, 0]
