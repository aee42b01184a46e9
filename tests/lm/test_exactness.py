"""Loss and gradient of a training step equal plain concatenation, whatever the shapes.

The reference is the model as transformers loads it, on padded whole sequences with masks.
"""

import random
import tempfile
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from benchmarks.setting import save_random_model
from lightning_prompts.lm.batch import collate
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.lm.sources import converted_folder, find_model
from lightning_prompts.lm.template import Template
from tests.lm.passes.test_reuse import rotary_folder  # noqa: F401

FIRST, LAST, AROUND = "{prompt} {text} It was", "{text}{prompt}", "{text}{prompt} It was"
ALPHABET = "abcdefghijklm nopqrstuvwxyz."


def padded_step(
    model: PreTrainedModel, rows: list[list[int]], places: list[int], prompt: Tensor, side: str
) -> Tensor:
    """[B, V] logits at each row's end, of rows with the prompt put in at `places`."""
    longest = max(map(len, rows)) + len(prompt)
    embeds, mask = [], torch.zeros(len(rows), longest, dtype=torch.long)
    table = model.get_input_embeddings().weight
    for i, (row, place) in enumerate(zip(rows, places, strict=True)):
        tokens = table[torch.tensor(row, dtype=torch.long)]
        whole = torch.cat([tokens[:place], prompt, tokens[place:]])
        gap = longest - len(whole)
        embeds.append(F.pad(whole, (0, 0, gap, 0) if side == "left" else (0, 0, 0, gap)))
        mask[i, gap if side == "left" else 0 :][: len(whole)] = 1
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    out = model(inputs_embeds=torch.stack(embeds), attention_mask=mask, position_ids=positions)
    ends = (mask * torch.arange(longest)).argmax(-1)
    return out.logits[torch.arange(len(rows)), ends]


def check(lm: FrozenLM, model: PreTrainedModel, seed: int) -> None:
    """One random batch: both losses, and both gradients to the prompt, to 1e-5 of their size."""
    draw = random.Random(seed)
    generator = torch.Generator().manual_seed(seed)
    size, num_prompt = draw.randint(1, 5), draw.choice([1, 2, 5, 9])
    template = Template(draw.choice([FIRST, LAST, AROUND]), lm)
    texts = ["".join(draw.choices(ALPHABET, k=draw.randint(1, 60))) for _ in range(size)]
    examples = [template.encode({"text": text}) for text in texts]
    batch = collate(examples, [i % 2 for i in range(size)], range(size))
    words, labels = torch.tensor([33, 50]) * lm.vocab_size // 101, batch["labels"]
    rows_of_table = torch.randint(lm.vocab_size, (num_prompt,), generator=generator)
    start = lm.embed(rows_of_table) * 1.1

    prompt = start.clone().requires_grad_()
    loss = F.cross_entropy(lm.logits(lm.answer_hidden(prompt, batch), words), labels)
    loss.backward()
    for side in ("left", "right"):
        own = start.clone().requires_grad_()
        rows = [e.before_ids + e.after_ids for e in examples]
        places = [len(e.before_ids) for e in examples]
        logits = padded_step(model, rows, places, own, side)
        expected = F.cross_entropy(logits[:, words], labels)
        expected.backward()
        assert abs(loss - expected) <= 1e-5 * expected.abs()
        assert (prompt.grad - own.grad).norm() <= 1e-5 * own.grad.norm()
        assert own.grad.norm() > 0


@pytest.mark.parametrize("attention", ["auto", "sdpa", "eager"])
@pytest.mark.parametrize("kind", ["gpt2", "rotary"])
def test_a_tiny_model(
    kind: str,
    attention: str,
    lm_folder: Path,
    rotary_folder: Path,  # noqa: F811
):
    folder = {"gpt2": lm_folder, "rotary": rotary_folder}[kind]
    lm = FrozenLM(str(folder), attn_implementation=attention, add_bos=False)
    model = AutoModelForCausalLM.from_pretrained(folder).eval().requires_grad_(False)
    for seed in range(25):
        check(lm, model, seed)


@pytest.mark.slow
def test_a_real_model():
    lm = FrozenLM("smollm2")
    folder = converted_folder(find_model("smollm2", None))
    model = AutoModelForCausalLM.from_pretrained(folder).eval().requires_grad_(False)
    for seed in range(6):
        check(lm, model, seed)


@pytest.mark.slow
def test_the_size_of_gpt2():
    """GPT-2's own layers and widths, random weights."""
    with tempfile.TemporaryDirectory() as folder:
        save_random_model(Path(folder), small=False)
        lm = FrozenLM(folder, add_bos=False)
        model = AutoModelForCausalLM.from_pretrained(folder).eval().requires_grad_(False)
    for seed in range(4):
        check(lm, model, seed)
