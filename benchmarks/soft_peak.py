"""A few soft steps in a process of their own, whose peak memory is asked afterwards.

python -m benchmarks.soft_peak ours --model smollm2
python -m benchmarks.soft_peak peft --model FOLDER
"""

import argparse
import inspect
import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

WORDS = {"negative": " terrible", "positive": " great"}
LR = 1e-2


def main(args: Sequence[str] | None = None) -> None:
    """Take the steps, and say the seconds of the last and the first one's loss."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("way", choices=("ours", "recompute", "peft"))
    parser.add_argument("--model", required=True)
    parser.add_argument("--prompt", type=int, default=10)
    parser.add_argument("--text", type=int, default=32)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=3)
    given = parser.parse_args(args)
    make = peft if given.way == "peft" else ours
    prompt, step_loss = make(given)
    optimizer = torch.optim.AdamW([prompt], lr=LR, weight_decay=0.0)
    seconds, losses = [], []
    for _ in range(given.steps):
        start = time.perf_counter()
        optimizer.zero_grad()
        loss, of_words = step_loss()
        loss.backward()
        optimizer.step()
        seconds.append(time.perf_counter() - start)
        losses.append(of_words.item())
    # The first steps allocate.
    said = {"step_seconds": min(seconds[1:] or seconds), "first_loss": losses[0]}
    sys.stdout.write(json.dumps(said) + "\n")


def can_recompute() -> bool:
    """Whether the language model has an option to compute activations anew."""
    from lightning_prompts import FrozenLM

    return "recompute" in inspect.signature(FrozenLM).parameters


def random_ids(vocab_size: int, *shape: int) -> Tensor:
    """The same tokens for both ways."""
    return torch.randint(10, vocab_size, shape, generator=torch.Generator().manual_seed(0))


def ours(given: Any) -> tuple[Tensor, Callable[[], tuple[Tensor, Tensor]]]:
    """The tuner's own training step."""
    from lightning_prompts import FrozenLM, SoftPrompt, Template, Verbalizer
    from lightning_prompts.lm.batch import Example, collate

    options: dict[str, Any] = {"recompute": True} if given.way == "recompute" else {}
    lm = FrozenLM(given.model, add_bos=False, **options)
    template, words = Template("{prompt}{text}", lm), Verbalizer(WORDS, lm)
    tuner = SoftPrompt(lm, template, words, prompt_length=given.prompt)
    with torch.no_grad():
        tuner.prompt.copy_(lm.embed(random_ids(lm.vocab_size, given.prompt)))
    ids = random_ids(lm.vocab_size, given.batch, given.text).tolist()
    rows = [Example("", "", [], row, False) for row in ids]
    batch = collate(rows, [i % 2 for i in range(given.batch)], range(given.batch))

    def step_loss() -> tuple[Tensor, Tensor]:
        loss = tuner.training_step(batch, 0)
        return loss, loss.detach()

    return tuner.prompt, step_loss


def peft(given: Any) -> tuple[Tensor, Callable[[], tuple[Tensor, Tensor]]]:
    """PEFT as shipped: loss over the vocabulary, logits of all positions."""
    from peft import PromptTuningConfig, TaskType, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(given.model)
    base = AutoModelForCausalLM.from_pretrained(given.model, dtype=torch.float32)
    vocab_size = base.get_input_embeddings().weight.shape[0]
    config = PromptTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=given.prompt)
    model: Any = get_peft_model(base, config)
    prompt = model.prompt_encoder["default"].embedding.weight
    with torch.no_grad():
        ids = random_ids(vocab_size, given.prompt)
        prompt.copy_(base.get_input_embeddings().weight[ids])
    classes = torch.tensor(
        [tokenizer.encode(w, add_special_tokens=False)[0] for w in WORDS.values()]
    )
    ids = random_ids(vocab_size, given.batch, given.text)
    labels = torch.arange(given.batch) % 2
    whole = torch.cat([ids, classes[labels][:, None]], dim=1)
    targets = torch.full_like(whole, -100)
    targets[:, -1] = whole[:, -1]

    def step_loss() -> tuple[Tensor, Tensor]:
        found = model(input_ids=whole, attention_mask=torch.ones_like(whole), labels=targets)
        of_words = F.cross_entropy(found.logits[:, -2, classes].detach(), labels)
        return found.loss, of_words

    return prompt, step_loss


if __name__ == "__main__":
    main()
