"""What a conversation became, and how the answer words stand in it, before any training."""

import logging
from collections.abc import Sequence
from typing import cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from lightning_prompts.callbacks.base import EvaluationCallback, task_of
from lightning_prompts.files.amounts import count
from lightning_prompts.files.escaping import visible
from lightning_prompts.files.text import shorten_middle
from lightning_prompts.lm.backbone import Backbone
from lightning_prompts.lm.class_scores import class_scores
from lightning_prompts.tasks.base import PromptTask
from lightning_prompts.tuners.base import PromptTuner

log = logging.getLogger(__name__)

ROWS = 32
LONGEST = 1200  # characters of a row


class Rendered(Callback):
    """Says where a conversation's parts stand and how its answer words do; else nothing.

    At the start of `fit`: one row as the model reads it, from the first special token to where it
    answers, and over 32 training texts the probability of the answer words and what each would be
    answered, as they are given and with their first letter in the other case: an assistant that
    begins with a capital says little with the small one, and may lean the other way.
    """

    @torch.no_grad()
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log both."""
        tuner, task = cast(PromptTuner, pl_module), task_of(trainer)
        if task is None or not tuner.template.is_chat:
            return
        if trainer.is_global_zero:
            log.info("%s", shown_row(tuner, task))
        if tuner.classifies:
            lines = answers_shown(trainer, tuner, task)  # a pass of all processes
            if trainer.is_global_zero:
                log.info("%s", "\n".join(lines))


def shown_row(tuner: PromptTuner, task: PromptTask) -> str:
    """A text of middling length as it is read, the prompt and the answer marked."""
    texts = [pair for batch in task.calibration_batches(ROWS) for pair in batch["texts"]]
    row = shorten_middle(marked(tuner, *texts[len(texts) // 2]), LONGEST)
    return f"The conversation as {tuner.lm.label} reads it:\n{row}"


def marked(tuner: PromptTuner, before: str, after: str) -> str:
    """A row as it is read, the prompt and the answer marked."""
    ids = tuner.hard_prompt().tolist()
    prompt = count(len(ids), "vector" if tuner.soft_in_use else "token")
    if not tuner.soft_in_use:
        prompt += f" '{visible(tuner.lm.decode(ids))}'"
    bos = tuner.lm.decode(tuner.lm.prefix_ids)
    return f"{bos}{before}[[prompt: {prompt}]]{after}[[answer]]"


def answers_shown(trainer: Trainer, tuner: PromptTuner, task: PromptTask) -> list[str]:
    """How likely the answer words are with the present prompt, in both cases, in lines."""
    if tuner.verbalizer.tree is not None:
        return _phrases_shown(trainer, tuner, task)
    words = [word for answers in tuner.verbalizer.answers for word in answers]
    cases = [words, [_other_case(word) for word in words]]
    ids = [_tokens(each, tuner.lm) for each in cases]
    known = [(each, found) for each, found in zip(cases, ids, strict=True) if found is not None]
    if not known:
        return []
    states = []
    for batch in task.calibration_batches(ROWS):
        with EvaluationCallback.precision(trainer):
            moved = trainer.strategy.batch_to_device(batch)
            states.append(tuner.answer_hidden(tuner.prompt_embeddings(), moved))
    probabilities = tuner.lm.logits(torch.cat(states)).softmax(-1)  # (B, V)
    lines = [f"Its answers over {count(len(probabilities), 'training text')}, before any training:"]
    for each, found in known:
        own = probabilities[:, found]
        answered = own.argmax(-1).bincount(minlength=len(found)) / len(own)
        said = ", ".join(
            f"{word!r} {share:.0%}" for word, share in zip(each, answered.tolist(), strict=True)
        )
        lines.append(f"  {said}; probability of these words together {own.sum(-1).mean():.2g}")
    return lines


def _phrases_shown(trainer: Trainer, tuner: PromptTuner, task: PromptTask) -> list[str]:
    """What would be answered of answers of several tokens, as they are given, in lines."""
    states = []
    for batch in task.calibration_batches(ROWS):
        with EvaluationCallback.precision(trainer):
            prompt, moved = tuner.prompt_embeddings()[None], trainer.strategy.batch_to_device(batch)
            parts = tuner.lm, tuner.template, tuner.verbalizer
            states.append(class_scores(*parts, prompt, moved)[0])
    answered = torch.cat(states).argmax(-1).tolist()
    said = ", ".join(
        f"{' or '.join(map(repr, answers))} {answered.count(label) / len(answered):.0%}"
        for label, answers in enumerate(tuner.verbalizer.answers)
    )
    rows = count(len(answered), "training text")
    return [f"Its answers over {rows}, before any training:", f"  {said}"]


def _other_case(word: str) -> str:
    """The word with its first letter in the other case."""
    at = next((i for i, letter in enumerate(word) if letter.isalpha()), 0)
    return word[:at] + word[at : at + 1].swapcase() + word[at + 1 :]


def _tokens(words: Sequence[str], lm: Backbone) -> Tensor | None:
    """[C] The token of each word; None where one is not a single token, or two share one."""
    rows = lm.tokenize(words)
    ids = [row[0] for row in rows if len(row) == 1]
    if len(set(ids)) < len(rows) or not lm.reads(ids):
        return None
    return torch.tensor(ids, device=lm.embedding_table.device)
