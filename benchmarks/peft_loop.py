"""Prompt tuning of a sentiment task with PEFT as its documentation has it: a plain loop.

It imports nothing of the project. It says an object of JSON for each validation: the step, the
seconds since the process began, and the share of right answers.

python -m benchmarks.peft_loop --model FOLDER --data FOLDER --steps 100 --every 20
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

STARTED = time.perf_counter()
WORDS = (" terrible", " great")
LR, WARM_UP, FINAL, CLIP = 0.01, 20, 0.1, 1.0  # those of configs/tuner/soft.yaml


def main(args: Sequence[str] | None = None) -> None:
    """Train, and validate every few steps."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--every", type=int, default=20)
    parser.add_argument("--prompt", type=int, default=10)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--val-batch", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--enough", type=float, default=2.0, help="accuracy that ends it")
    given = parser.parse_args(args)

    import torch
    from peft import PromptTuningConfig, TaskType, get_peft_model
    from torch.utils.data import DataLoader
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(given.seed)
    tokenizer = AutoTokenizer.from_pretrained(given.model)
    base = AutoModelForCausalLM.from_pretrained(given.model, dtype=torch.float32)
    config = PromptTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=given.prompt)
    model: Any = get_peft_model(base, config)
    weight = model.prompt_encoder["default"].embedding.weight
    with torch.no_grad():  # drawn from the vocabulary
        table = base.get_input_embeddings().weight
        weight.copy_(table[torch.randint(len(table), (given.prompt,))])
    (answers,) = zip(
        *(tokenizer.encode(word, add_special_tokens=False) for word in WORDS), strict=True
    )
    classes = torch.tensor(answers)

    def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Right-padded to the longest; the answer is the last token, and the only label."""
        ids = [[*tokenizer.encode(f" {r['text']} It was"), answers[int(r["label"])]] for r in rows]
        longest = max(map(len, ids))
        batch = {
            "input_ids": torch.tensor([row + [0] * (longest - len(row)) for row in ids]),
            "attention_mask": torch.tensor(
                [[1] * len(row) + [0] * (longest - len(row)) for row in ids]
            ),
            "at": torch.tensor([len(row) - 1 for row in ids]),
            "classes": torch.tensor([int(r["label"]) for r in rows]),
        }
        labels = torch.full_like(batch["input_ids"], -100)
        rows_at = torch.arange(len(ids)), batch["at"]
        labels[rows_at] = batch["input_ids"][rows_at]
        return {**batch, "labels": labels}

    train = read_rows(given.data / "train.jsonl")
    held_out = read_rows(given.data / "validation.jsonl")
    loader = DataLoader(train, given.batch, shuffle=True, drop_last=True, collate_fn=collate)
    val_loader = DataLoader(held_out, given.val_batch, collate_fn=collate)
    optimizer = torch.optim.AdamW([weight], lr=LR, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step, given.steps))

    @torch.no_grad()
    def accuracy() -> float:
        model.eval()
        right = 0
        for batch in val_loader:
            logits = model(
                input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]
            ).logits
            # What says the answer stands one before it, behind the prompt.
            at = given.prompt + batch["at"] - 1
            scores = logits[torch.arange(len(at)), at][:, classes]
            right += int((scores.argmax(-1) == batch["classes"]).sum())
        model.train()
        return right / len(held_out)

    model.train()
    for step, batch in enumerate(endless(loader), start=1):
        keys = ("input_ids", "attention_mask", "labels")
        loss = model(**{key: batch[key] for key in keys}).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_([weight], CLIP)
        optimizer.step()
        schedule.step()
        if step % given.every and step != given.steps:
            continue
        found = accuracy()
        say(step=step, seconds=time.perf_counter() - STARTED, accuracy=found, loss=loss.item())
        if step == given.steps or found >= given.enough:
            return


def read_rows(path: Path) -> list[dict[str, Any]]:
    """All rows of a JSON-lines file."""
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def endless(loader: Any) -> Iterator[Any]:
    """One epoch after another."""
    while True:
        yield from loader


def rate(step: int, steps: int) -> float:
    """Share of the learning rate: a short warm-up, then a straight line."""
    if step < WARM_UP:
        return (step + 1) / WARM_UP
    return FINAL + (1 - FINAL) * max(0.0, (steps - step) / max(1, steps - WARM_UP))


def say(**values: float) -> None:
    """Write an object of JSON on a line."""
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
