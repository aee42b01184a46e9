"""What is shown of a conversation before training."""

import logging

import lightning as L
import pytest
import torch

from lightning_prompts.callbacks.rendered import Rendered
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.tasks.classification import TextClassification
from lightning_prompts.tuners.manual import ManualPrompt
from lightning_prompts.tuners.soft import SoftPrompt
from tests.tiny import TURNS, reviews

CHAT = {"chat": {"system": "{prompt}", "user": "{text}"}}
WORDS = {"negative": "n", "positive": "P"}
START, END = TURNS


@pytest.fixture
def chat_lm(chat_folder) -> FrozenLM:
    return FrozenLM(str(chat_folder))


def shown(tuner, task, caplog: pytest.LogCaptureFixture) -> list[str]:
    trainer = L.Trainer(
        max_steps=1,
        limit_val_batches=0,
        logger=False,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_checkpointing=False,
        callbacks=[Rendered()],
    )
    with caplog.at_level(logging.INFO, "lightning_prompts.callbacks.rendered"):
        trainer.fit(tuner, task)
    return [record.getMessage() for record in caplog.records if "rendered" in record.name]


def test_the_row_and_both_cases_are_shown(chat_lm: FrozenLM, caplog):
    """The shares and probabilities against the whole model, row by row."""
    rows = list(reviews(24))
    task = TextClassification(chat_lm, CHAT, WORDS, data={"train": rows, "validation": rows[:4]})
    first, second = shown(ManualPrompt.for_task(task, text="Say it."), task, caplog)
    texts = {row["text"] for row in rows}
    before, _, after = first.partition("\n")[2].partition("[[prompt: 7 tokens 'Say it.']]")
    assert before == f"{START}system\n"
    assert after.startswith(f"{END}\n{START}user\n")
    assert after.endswith(f"{END}\n{START}assistant\n[[answer]]")
    assert after.split("user\n")[1].split(END)[0] in texts

    lines = second.splitlines()
    assert lines[0] == "Its answers over 24 training texts, before any training:"
    for line, words in zip(lines[1:], ("nP", "Np"), strict=True):
        ids = [chat_lm.encode(word)[0] for word in words]
        answered, together = [0, 0], 0.0
        for text in texts:
            said = f"{START}system\nSay it.{END}\n{START}user\n{text}{END}\n{START}assistant\n"
            inputs = torch.tensor([chat_lm.encode(said)])
            own = chat_lm.model(inputs).logits[0, -1].double().softmax(-1)[ids]
            answered[int(own.argmax())] += 1
            together += float(own.sum()) / 24
        shares = ", ".join(
            f"'{word}' {n / 24:.0%}" for word, n in zip(words, answered, strict=True)
        )
        assert line == f"  {shares}; probability of these words together {together:.2g}"


def test_vectors_have_no_text_and_plain_templates_say_nothing(chat_lm: FrozenLM, caplog):
    rows = list(reviews(8))
    data = {"train": rows, "validation": rows[:4]}
    task = TextClassification(chat_lm, CHAT, WORDS, data=data)
    first, _ = shown(SoftPrompt.for_task(task, prompt_length=3), task, caplog)
    assert f"{START}system\n[[prompt: 3 vectors]]{END}" in first
    caplog.clear()
    task = TextClassification(chat_lm, "{prompt} {text} It", WORDS, data=data)
    assert shown(SoftPrompt.for_task(task, prompt_length=3), task, caplog) == []
