"""The table of docs/models.md: every causal type of transformers, built tiny and read.

`python -m tests.lm.types_table` writes it anew, in a few minutes; a slow test compares it.
"""

import gc
import shutil
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from torch import Tensor
from transformers import AutoModelForCausalLM
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from lightning_prompts.files.errors import PromptError
from lightning_prompts.lm.batch import Batch, collate
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.lm.template import Template
from tests.model_types import save_type

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "models.md"
BEGIN, END = "<!-- types of models -->", "<!-- end of types -->"
TEXTS = ["A warm and funny film.", "Dull.", "No plot, no jokes"]
FIRST, LAST = "{prompt} {text} It was", "{text}{prompt}"
EXACT = 1e-5  # of the largest logit or gradient
# xLSTM computes in bfloat16, by the length of what it reads; Jamba adds up its states in an order
# that follows from it.
ROUNDED = {"xlstm": 0.02, "jamba": 2e-5}
VARIANTS = ("falcon (ALiBi)",)
# Not text alone: their language models are types of their own where they can be had alone.
SHELLS = (
    *("dots3_note", "emu3", "fuyu", "gemma3", "gemma3n", "gemma4", "gemma4_assistant"),
    *("gemma4_unified", "gemma4_unified_assistant", "git", "got_ocr2", "llama4", "mllama"),
    *("moss_transcribe_diarize", "musicgen", "musicgen_melody", "phi4_multimodal", "qwen3_5"),
    *("qwen3_5_moe", "qwen4_exp"),
)
# Decoders of models that read their text with an encoder.
DECODERS = (
    *("bart", "bigbird_pegasus", "blenderbot", "blenderbot-small", "marian", "mbart", "mvp"),
    *("pegasus", "plbart", "prophetnet", "trocr", "whisper"),
)
NO_GRADIENTS = "concatenated, no gradients"
WAYS = ("reused", "reused, concatenated", "concatenated", NO_GRADIENTS)


class Read(NamedTuple):
    """How a type is read.

    Attributes:
        how: One of `WAYS`, or `refused`, or `failed`.
        why: The sentence of a refusal, or what failed.
    """

    how: str
    why: str = ""


def text_types() -> list[str]:
    """The causal types of text that transformers knows, and variants of them."""
    known = {*MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, *VARIANTS}
    return sorted(known - {*SHELLS, *DECODERS})


def read_type(kind: str, tokenizer: Path, folder: Path) -> Read:
    """Build a type tiny, read it, and compare both orders with the model's own logits.

    Args:
        kind: Of `text_types`.
        tokenizer: A folder of a tiny model.
        folder: Where the model is saved.
    """
    try:
        save_type(kind, tokenizer, folder)
    except Exception as error:  # a size that it wants otherwise
        return Read("failed", f"cannot be built tiny: {type(error).__name__}")
    try:
        lm = FrozenLM(str(folder))
    except PromptError as error:
        return Read("refused", str(error).partition(") ")[2].partition("; use another")[0])
    exact = ROUNDED.get(kind, EXACT)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    try:
        for text in (FIRST, LAST):
            if (error := _logits_apart(lm, model, text)) > exact:
                return Read("failed", f"logits are {error:.1g} off, with {text}")
            if not lm.gradients or exact > 2 * EXACT:
                continue
            if (error := _gradients_apart(lm, model, text)) > 10 * exact:
                return Read("failed", f"gradients are {error:.1g} off, with {text}")
    except RuntimeError as error:  # a size that its own attention wants otherwise
        return Read("failed", f"cannot be built tiny: {error}")
    first, last = lm.ways.prompts_first, lm.ways.texts_first
    if not lm.gradients:
        return Read(NO_GRADIENTS)
    return Read(WAYS[0] if first and last else WAYS[1] if first else WAYS[2])


def read_all(tokenizer: Path, kinds: list[str]) -> Iterator[tuple[str, Read]]:
    """Each type and how it is read, one after another."""
    for kind in kinds:
        folder = Path(tempfile.mkdtemp())
        try:
            yield kind, read_type(kind, tokenizer, folder)
        finally:
            shutil.rmtree(folder)
            gc.collect()


def table(found: dict[str, Read]) -> str:
    """What docs/models.md says of the types."""
    by_way: dict[str, list[str]] = defaultdict(list)
    for kind, read in found.items():
        by_way[read.how].append(kind)
    works = sum(len(by_way[way]) for way in WAYS)
    lines = [
        f"Of {len(found)} causal types of text in transformers {transformers.__version__}, built",
        f"tiny with random weights (windows of 6 tokens), {works} work: in both orders of prompt",
        f"and text they give the logits of the model's own pass over whole rows to {EXACT:.0e} of",
        "the largest in float32 (Jamba to 2e-05, and xLSTM, which computes in bfloat16, to 0.02),",
        "and its gradients where there are any.",
        "",
        "| how | | model types |",
        "| --- | --- | --- |",
        *(f"| {way} | {len(by_way[way])} | {', '.join(by_way[way])} |" for way in WAYS),
        "",
        "The others, with what is said of them:",
        "",
        "| model type | why not |",
        "| --- | --- |",
        *(f"| {kind} | {read.why} |" for kind, read in found.items() if read.how not in WAYS),
        "",
        f"Not tried: models of more than text ({', '.join(SHELLS)}), whose language models stand "
        f"above where they can be had alone, and decoders of models with an encoder "
        f"({', '.join(DECODERS)}).",
    ]
    return "\n".join(lines)


def documented() -> str:
    """The table as it stands in the document."""
    return DOCUMENT.read_text(encoding="utf-8").partition(BEGIN + "\n")[2].partition("\n" + END)[0]


def one_by_one(lm: FrozenLM, prompts: Tensor, text: str, model: Any = None) -> Tensor:
    """[K, B, V] The model's own logits of whole rows, one at a time, without cache or padding.

    Args:
        lm: Gives the tokenizer.
        prompts: [K, P, H]
        text: The template.
        model: In place of that of `lm`, which has kernels of ours.
    """
    model = lm.model if model is None else model
    before, after = text.split("{prompt}")
    rows = []
    for prompt in prompts:
        for value in TEXTS:
            ids = [lm.encode(piece.format(text=value)) for piece in (before, after)]
            ends = [lm.embed(torch.tensor(piece, dtype=torch.long)) for piece in ids]
            row = torch.cat([ends[0], prompt, ends[1]])[None]
            rows.append(model(inputs_embeds=row, use_cache=False).logits[0, -1].float())
    return torch.stack(rows).unflatten(0, (len(prompts), len(TEXTS)))


def make_batch(lm: FrozenLM, text: str) -> Batch:
    """The texts in a template."""
    examples = [Template(text, lm).encode({"text": t}) for t in TEXTS]
    return collate(examples, [0] * len(TEXTS), range(len(TEXTS)))


def apart(got: Tensor, expected: Tensor) -> float:
    """Largest difference, as a share of the largest number."""
    return float((got - expected).abs().max() / expected.abs().max())


def prompt_ids(count: int) -> Tensor:
    """[K, 3] Of which half begin alike."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 101, (count, 3), generator=generator)
    ids[: count // 2, 0] = 7
    return ids


@torch.no_grad()
def _logits_apart(lm: FrozenLM, model: Any, text: str) -> float:
    """Of token ids and of vectors that are no tokens, whose logits have to differ from theirs."""
    ids, batch = prompt_ids(2), make_batch(lm, text)
    rows = lm.embed(ids)
    between = 0.7 * rows + 0.3 * rows.flip(1)
    expected = one_by_one(lm, torch.cat([rows, between]), text, model)
    if apart(expected[0], expected[1]) < 0.01:
        return torch.inf  # a model that hardly tells prompts apart would prove nothing
    got = torch.cat([lm.logits(lm.answers(prompts, batch)) for prompts in (ids, between)])
    return apart(got, expected)


def _gradients_apart(lm: FrozenLM, model: Any, text: str) -> float:
    own, reference = (lm.embed(prompt_ids(1)).requires_grad_() for _ in range(2))
    lm.logits(lm.answers(own, make_batch(lm, text)))[..., 9].sum().backward()
    one_by_one(lm, reference, text, model)[..., 9].sum().backward()
    assert own.grad is not None
    assert reference.grad is not None
    return apart(own.grad, reference.grad) if reference.grad.abs().max() > 0 else torch.inf


def main() -> None:
    """Write the table into the document."""
    from tests.tiny import save_model

    with tempfile.TemporaryDirectory() as folder:
        save_model(Path(folder))
        found = {}
        for kind, read in read_all(Path(folder), sys.argv[1:] or text_types()):
            found[kind] = read
            print(f"{kind}: {' '.join(read)}", flush=True)  # noqa: T201
    if not sys.argv[1:]:
        before, _, rest = DOCUMENT.read_text(encoding="utf-8").partition(BEGIN + "\n")
        behind = rest.partition(END)[2]
        text = f"{before}{BEGIN}\n{table(found)}\n{END}{behind}"
        DOCUMENT.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
