"""A task, a quick trainer, and a float64 reference that shares no code with what it checks."""

import copy
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor

from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.tasks.classification import TextClassification
from lightning_prompts.tuners import ManualPrompt, PromptTuner, SoftPrompt

MakeTask = Callable[..., TextClassification]

WORDS = {"negative": " terrible", "positive": " great"}
FIRST, LAST = "{prompt} {text} It was", "{text}{prompt}"


class Reference:
    """The tiny model in float64, one row at a time, by plain concatenation."""

    def __init__(self, lm: FrozenLM) -> None:
        self.model = copy.deepcopy(lm.model).double()
        self.table = self.model.get_input_embeddings().weight.detach()
        self.tokenizer = lm.tokenizer

    def encode(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False).input_ids

    @torch.no_grad()
    def all_logits(self, embeds: Tensor) -> Tensor:
        """[T, H] to [T, V]."""
        return self.model(inputs_embeds=embeds[None].double()).logits[0]

    def answers(self, template: str, texts: list[str], prompt: Tensor) -> Tensor:
        """[B, V] logits after the template's end, with the prompt's vectors in its place."""
        return torch.stack([self.positions(template, text, prompt)[-1] for text in texts])

    def positions(self, template: str, text: str, prompt: Tensor) -> Tensor:
        """[T, V] logits at every position of one row."""
        before, after = (part.format(text=text) for part in template.split("{prompt}"))
        pieces = [self.table[self.encode(before)], prompt.double(), self.table[self.encode(after)]]
        return self.all_logits(torch.cat(pieces))

    def pasted(self, template: str, texts: list[str], prompt_text: str) -> Tensor:
        """[B, V] logits after whole strings."""
        strings = [template.format(text=text, prompt=prompt_text) for text in texts]
        return torch.stack([self.all_logits(self.table[self.encode(s)])[-1] for s in strings])

    def log_perplexity(self, token_ids: list[int]) -> float:
        """Nats per token after BOS."""
        bos = self.tokenizer.bos_token_id
        logits = self.all_logits(self.table[[bos, *token_ids]]).tolist()
        return sum(map(nats, logits, token_ids)) / len(token_ids)


def nats(logits: list[float], label: int) -> float:
    top = max(logits)
    return top + math.log(sum(math.exp(x - top) for x in logits)) - logits[label]


def loss_and_accuracy(logits: Tensor, labels: list[int]) -> tuple[float, float]:
    """Of [B, C] logits: mean nats and share of right answers, by loops."""
    rows = logits.tolist()
    right = [row.index(max(row)) == label for row, label in zip(rows, labels, strict=True)]
    return sum(map(nats, rows, labels)) / len(rows), sum(right) / len(rows)


def macro_f1(answers: list[int], labels: list[int]) -> float:
    """Mean over both classes."""
    pairs = list(zip(answers, labels, strict=True))
    shares = []
    for c in (0, 1):
        both = sum(a == c == b for a, b in pairs)
        shares.append(2 * both / sum((a == c) + (b == c) for a, b in pairs))
    return sum(shares) / 2


def read(folder: Path, split: str) -> tuple[list[str], list[int]]:
    """Texts and classes of a split."""
    lines = (folder / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return [row["text"] for row in rows], [list(WORDS).index(row["label"]) for row in rows]


def quick_trainer(**kwargs: Any) -> Trainer:
    """On one CPU, silent."""
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return Trainer(
        **{"accelerator": "cpu", "devices": 1, "num_sanity_val_steps": 0} | quiet | kwargs
    )


def learned(kind: type[SoftPrompt], task: TextClassification, length: int = 3) -> SoftPrompt:
    """A prompt well away from every token."""
    tuner = kind(task.lm, task.template, task.verbalizer, prompt_length=length)
    noise = torch.randn(tuner.prompt.shape, generator=torch.manual_seed(3))
    tuner.prompt.data += 0.3 * noise
    return tuner


def written(task: TextClassification, text: str) -> ManualPrompt:
    return ManualPrompt(task.lm, task.template, task.verbalizer, text=text)


def count_passes(tuner: PromptTuner, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that grows with every pass through the language model, by its rows."""
    passes: list[int] = []
    run = tuner.lm.answer_hidden

    def counted(prompt: Tensor, batch: Any, *tree: Any) -> Tensor:
        passes.append(len(batch["labels"]))
        return run(prompt, batch, *tree)

    monkeypatch.setattr(tuner.lm, "answer_hidden", counted)
    return passes


def validated(
    tuner: PromptTuner, task: TextClassification, *callbacks: Callback, **kwargs: Any
) -> dict[str, float]:
    """All that one validation logs."""
    trainer = quick_trainer(callbacks=list(callbacks), **kwargs)
    trainer.validate(tuner, datamodule=task, verbose=False)
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


@pytest.fixture(scope="module")
def reference(lm: FrozenLM) -> Reference:
    return Reference(lm)


@pytest.fixture
def make_task(lm: FrozenLM, review_folder: Path) -> MakeTask:
    """A review task of 24, 10 and 8 rows in evaluation batches of 4, 4 and 2."""

    def make(template: str = FIRST, **kwargs: Any) -> TextClassification:
        kwargs = {"path": str(review_folder), "batch_size": 8, "val_batch_size": 4} | kwargs
        return TextClassification(lm=lm, template=template, verbalizer=WORDS, **kwargs)

    return make
