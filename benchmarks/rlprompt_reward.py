"""How much faster is RLPrompt's batched reward than the published way, prompt by prompt?

Both score the same 16 prompts of 5 tokens, placed last, on the same 32 texts of 32 tokens, in
float32, with a language model of GPT-2's shape (124M parameters) and random weights: no download,
and speed does not depend on the weights. Runs alternate in one process.

    python benchmarks/rlprompt_reward.py
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import transformers
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from lightning_prompts.language_model import FrozenLM
from lightning_prompts.rewards import ClassificationGap
from lightning_prompts.template import Batch, Template, collate
from lightning_prompts.verbalizer import Verbalizer

NUM_PROMPTS, PROMPT_LENGTH, NUM_TEXTS, TEXT_LENGTH = 16, 5, 32, 32
END = "<|endoftext|>"
WORDS = {"negative": " w1", "positive": " w2"}
FIRST_WORD = 10  # of texts and prompts, apart from the verbalizer's
RESULTS = Path(__file__).with_name("results.md")


class Timing(NamedTuple):
    """Seconds of each repetition."""

    seconds: list[float]

    @property
    def median(self) -> float:
        """Median in seconds."""
        return statistics.median(self.seconds)

    def __str__(self) -> str:
        return f"{self.median:.2f} ({min(self.seconds):.2f} to {max(self.seconds):.2f})"


def main(args: Sequence[str] | None = None) -> None:
    """Measure, print a table and write it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=3, help="of each way (default: 3)")
    parser.add_argument("--small", action="store_true", help="a tiny model, to try the script")
    parser.add_argument("--output", type=Path, default=RESULTS, help=f"default: {RESULTS.name}")
    given = parser.parse_args(args)
    transformers.utils.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        save_random_model(Path(folder), given.small)
        lm = FrozenLM(folder, add_bos=False)
    report = measure(lm, given.repetitions)
    given.output.write_text(report, encoding="utf-8")
    sys.stdout.write(report)


def save_random_model(folder: Path, small: bool) -> None:
    """GPT-2 with random weights, and a tokenizer for which every word of its own is one token."""
    size = {"vocab_size": 500, "n_embd": 32, "n_layer": 2, "n_head": 2} if small else {}
    config = GPT2Config(**size, bos_token_id=0, eos_token_id=0)
    vocabulary = {END: 0} | {f" w{i}": i for i in range(1, config.vocab_size)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=END))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r" w\d+"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    special = {"bos_token": END, "eos_token": END, "unk_token": END, "pad_token": END}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    torch.manual_seed(0)
    GPT2LMHeadModel(config).save_pretrained(folder)


def measure(lm: FrozenLM, repetitions: int) -> str:
    """Time all ways in turn on new prompts each time; a report in Markdown."""
    generator = torch.Generator().manual_seed(0)

    def words(*shape: int) -> Tensor:
        return torch.randint(FIRST_WORD, lm.vocab_size, shape, generator=generator)

    texts = [lm.decode(ids) for ids in words(NUM_TEXTS, TEXT_LENGTH).tolist()]
    labels = [i % 2 for i in range(NUM_TEXTS)]
    template, verbalizer = Template("{text}{prompt}", lm), Verbalizer(WORDS, lm)
    batch = collate([template.encode({"text": t}) for t in texts], labels, range(NUM_TEXTS))
    kept, not_kept = ClassificationGap(), ClassificationGap(text_cache=0)
    for reward in (kept, not_kept):
        reward.attach(lm, template, verbalizer)
    ways: dict[str, Callable[[Tensor], Tensor]] = {
        "published: prompt by prompt": lambda prompts: published(lm, prompts, texts, labels),
        "batched, texts encoded at each step": lambda prompts: batched(not_kept, prompts, batch),
        "batched, texts kept (as in training)": lambda prompts: batched(kept, prompts, batch),
    }
    timings: dict[str, Timing] = {name: Timing([]) for name in ways}
    apart, spread = 0.0, 0.0
    for repetition in range(repetitions + 1):
        prompts, rewards = words(NUM_PROMPTS, PROMPT_LENGTH), []
        for name, way in ways.items():
            start = time.perf_counter()
            rewards.append(way(prompts))
            if repetition > 0:  # the first one warms up, and encodes the texts that are kept
                timings[name].seconds.append(time.perf_counter() - start)
        apart = max(apart, *(float((r - rewards[0]).abs().max()) for r in rewards[1:]))
        spread = max(spread, float(rewards[0].std()))
    # In probabilities, of which a reward is 200 times; float32 rounds at 1e-7.
    if apart / 200 > 1e-5:
        raise SystemExit(f"The rewards differ by {apart:.3g}: the ways do not compute the same.")
    return table(lm, timings, apart, spread)


def published(lm: FrozenLM, prompts: Tensor, texts: list[str], labels: list[int]) -> Tensor:
    """[K] As released: for each prompt, strings, tokens, one pass with logits of all positions."""
    class_ids = [lm.encode(word)[0] for word in WORDS.values()]
    rewards = []
    for prompt in prompts.tolist():
        strings = [text + lm.decode(prompt) for text in texts]
        inputs = lm.tokenizer(strings, padding=True, padding_side="right", return_tensors="pt")
        with torch.no_grad():
            logits = lm.model(**inputs).logits  # (B, T, V)
        ends = inputs["attention_mask"].sum(1) - 1
        answers = logits[torch.arange(len(texts)), ends]
        shares = answers[:, class_ids].softmax(-1)
        own = shares[torch.arange(len(texts)), labels]
        others = shares.scatter(1, torch.tensor(labels)[:, None], -torch.inf).amax(1)
        gap = own - others
        rewards.append(torch.where(gap > 0, 200 * gap, 180 * gap).mean())
    return torch.stack(rewards)


def batched(reward: ClassificationGap, prompts: Tensor, batch: Batch) -> Tensor:
    """[K] The project's way."""
    return reward(prompts, batch, seed=0, reduce=lambda sums: sums).raw


def table(lm: FrozenLM, timings: dict[str, Timing], apart: float, spread: float) -> str:
    """The report."""
    parameters = sum(p.numel() for p in lm.model.parameters()) / 1e6
    reference = next(iter(timings.values()))
    count = len(reference.seconds)
    lines = [
        "# RLPrompt's reward: batched against prompt by prompt",
        "",
        f"{NUM_PROMPTS} prompts of {PROMPT_LENGTH} tokens, placed last, on {NUM_TEXTS} texts of "
        f"{TEXT_LENGTH} tokens; GPT-2 of {parameters:.3g}M parameters with random weights, "
        "float32.",
        f"Median of {count} alternating repetitions in one process, the fastest and the slowest in "
        "brackets.",
        f"{os.cpu_count()} cores, {torch.get_num_threads()} threads, torch {torch.__version__}, "
        f"transformers {transformers.__version__}.",
        "",
        "| way | seconds a step | times as fast |",
        "| --- | --- | --- |",
    ]
    for name, timing in timings.items():
        lines.append(f"| {name} | {timing} | {reference.median / timing.median:.1f} |")
    lines += [
        "",
        f"The same rewards: they differ by at most {apart:.1g}, where their standard deviation "
        f"over the prompts is {spread:.2g}.",
        "",
        "Written by `make bench`.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
