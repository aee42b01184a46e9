"""RLPrompt's reward: all prompts on all texts at once against the published loop over prompts."""

from collections.abc import Iterator

import torch
from torch import Tensor

from benchmarks.lines import Line, alternate, apart
from benchmarks.setting import PROMPT_LAST, WORDS, Setting, verbalizer, words
from lightning_prompts.lm.batch import Batch
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.lm.template import Template
from lightning_prompts.tuners.rewards import ClassificationGap

NUM_PROMPTS, PROMPT_LENGTH, NUM_TEXTS, TEXT_LENGTH = 16, 5, 32, 32
MOST_REPETITIONS = 3  # the published loop takes half a minute on two cores
PEER = "RLPrompt's released loop"
ASKED = {"cpu": 5.0, "cuda": 15.0}


def reward(setting: Setting) -> Iterator[Line]:
    """Rewards of new prompts at each repetition; float32."""
    shape = f"{NUM_PROMPTS} x {NUM_TEXTS}, T={TEXT_LENGTH}, P={PROMPT_LENGTH}, prompt last"
    where = "fp32" if setting.device == "cpu" else "fp32, GPU"
    asked = ASKED[setting.device]
    lines = {
        "kept": Line(f"RLPrompt reward, {shape}, {where}, texts kept", PEER, asked),
        "not kept": Line(f"RLPrompt reward, {shape}, {where}, texts encoded anew", PEER),
    }
    if setting.missing:
        yield from (line.not_run(setting.missing) for line in lines.values())
        return
    models = {
        "kept": setting.lm(dtype="float32"),
        "not kept": setting.lm(dtype="float32", text_cache=0.0),
    }
    lm = models["kept"]
    batch = setting.batch(lm, Template(PROMPT_LAST, lm), NUM_TEXTS, TEXT_LENGTH)
    texts, labels = [before for before, _ in batch["texts"]], batch["labels"]
    prompts = words(lm, NUM_PROMPTS, PROMPT_LENGTH).to(setting.device)
    found: dict[str, list[Tensor]] = {"published": [], "kept": [], "not kept": []}

    def renew(repetition: int) -> None:
        prompts.copy_(words(lm, NUM_PROMPTS, PROMPT_LENGTH, seed=repetition))

    ways = {"published": lambda: found["published"].append(published(lm, prompts, texts, labels))}
    for name, model in models.items():
        way = ClassificationGap()
        way.attach(model, Template(PROMPT_LAST, model), verbalizer(model))
        ways[name] = lambda name=name, way=way: found[name].append(batched(way, prompts, batch))
    # The first one warms up, and encodes the texts that are kept.
    repetitions = min(setting.repetitions, MOST_REPETITIONS)
    measured = alternate(ways, repetitions, prepare=renew)
    expected = torch.cat(found["published"])
    for name, line in lines.items():
        # float32 rounds probabilities at 1e-7, and a reward is 200 times a difference of them.
        words_of = apart(line.work, "rewards", torch.cat(found[name]), expected, 1e-4)
        yield line.result(measured["published"], measured[name], words_of)


@torch.no_grad()
def published(lm: FrozenLM, prompts: Tensor, texts: list[str], labels: Tensor) -> Tensor:
    """[K] As released: for each prompt, strings, tokens, one pass with logits of all positions."""
    class_ids = [lm.encode(word)[0] for word in WORDS.values()]
    rewards = []
    for prompt in prompts.tolist():
        strings = [text + lm.decode(prompt) for text in texts]
        inputs = lm.tokenizer(strings, padding=True, padding_side="right", return_tensors="pt")
        inputs = inputs.to(prompts.device)
        logits = lm.model(**inputs).logits  # (B, T, V)
        ends = inputs["attention_mask"].sum(1) - 1
        rows = torch.arange(len(texts), device=ends.device)
        shares = logits[rows, ends][:, class_ids].softmax(-1)
        own = shares[rows, labels]
        others = shares.scatter(1, labels[:, None], -torch.inf).amax(1)
        gap = own - others
        rewards.append(torch.where(gap > 0, 200 * gap, 180 * gap).mean())
    return torch.stack(rewards)


def batched(way: ClassificationGap, prompts: Tensor, batch: Batch) -> Tensor:
    """[K] The project's way."""
    return way(prompts, batch, seed=0, reduce=lambda sums: sums).raw
