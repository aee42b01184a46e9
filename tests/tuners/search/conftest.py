"""A small task, and losses of prompts by whole strings of tokens, one pair at a time."""

from collections.abc import Sequence
from types import SimpleNamespace

import pytest
import torch

from lightning_prompts.lm.batch import Batch, collate
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.lm.template import Template
from lightning_prompts.lm.verbalizer import Verbalizer

ROWS = [
    ("A warm and funny film", 1),
    ("Dull", 0),
    ("Fine work!", 1),
    ("No plot, no jokes", 0),
    ("Quiet, clever and kind.", 1),
    ("A mess.", 0),
    ("I loved it", 1),
]
WORDS = {"negative": " bad", "positive": " good"}
FIRST, LAST, BOTH = "{prompt} {text} It was", "{text}{prompt}", "{text}{prompt} It was"


def make_batch(lm: FrozenLM, text: str, rows: Sequence[tuple[str, int]] = ROWS) -> Batch:
    template = Template(text, lm)
    examples = [template.encode({"text": row}) for row, _ in rows]
    return collate(examples, [label for _, label in rows], range(len(rows)))


@torch.no_grad()
def losses(lm: FrozenLM, text: str, prompt: Sequence[int]) -> list[float]:
    """Of each row, in nats."""
    before, after = text.split("{prompt}")
    words = [lm.encode(word)[0] for word in WORDS.values()]
    found = []
    for row, label in ROWS:
        ids = lm.encode(before.format(text=row)) + list(prompt) + lm.encode(after.format(text=row))
        logits = lm.model(torch.tensor([ids])).logits[0, -1].double()[words]
        found.append(-logits.log_softmax(-1)[label].item())
    return found


@torch.no_grad()
def nats(lm: FrozenLM, prompt: Sequence[int]) -> float:
    """A token of the prompt by itself."""
    log_p = lm.model(torch.tensor([[lm.bos_id, *prompt]])).logits[0, :-1].double().log_softmax(-1)
    return -sum(log_p[i, token].item() for i, token in enumerate(prompt)) / len(prompt)


@pytest.fixture
def task(lm: FrozenLM) -> SimpleNamespace:
    return SimpleNamespace(
        rows=ROWS,
        verbalizer=Verbalizer(WORDS, lm),
        make_batch=make_batch,
        losses=losses,
        nats=nats,
    )
