"""A GCG step behind a long text: its gradient and its candidates' losses, against nanoGCG's."""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import GPT2LMHeadModel

from benchmarks.installed import not_installed
from benchmarks.lines import Line, alternate, apart
from benchmarks.setting import PROMPT_LAST, WORDS, Setting, verbalizer, words
from lightning_prompts.lm.batch import Batch
from lightning_prompts.lm.template import Template
from lightning_prompts.tuners import SoftPrompt
from lightning_prompts.tuners.search.candidates import first_order

CANDIDATES, PROMPT_LENGTH, TEXT_LENGTH, TOP = 64, 10, 128, 256
PEER = "nanoGCG, use_prefix_cache=False (fails under transformers 5)"
MOST_REPETITIONS = 3  # each of theirs takes many seconds on two cores


def gcg(setting: Setting) -> Iterator[Line]:
    """One text, prompt last, one target word; float32."""
    shape = f"{CANDIDATES} candidates, P={PROMPT_LENGTH}, T={TEXT_LENGTH}, B=1"
    where = "fp32" if setting.device == "cpu" else "fp32, GPU"
    asked = 8.0 if setting.device == "cpu" else None
    line = Line(f"GCG step, {shape}, prompt last, {where}", PEER, asked)
    if why_not := setting.missing or not_installed(["nanogcg"]):
        yield line.not_run(why_not)
        return
    lm = setting.lm(dtype="float32")
    template = Template(PROMPT_LAST, lm)
    tuner = SoftPrompt(lm, template, verbalizer(lm), prompt_length=PROMPT_LENGTH)
    tuner.to(setting.device)
    batch = setting.batch(lm, template, 1, TEXT_LENGTH)
    prompt = words(lm, PROMPT_LENGTH, seed=1).to(setting.device)
    candidates = edits(prompt, words(lm, CANDIDATES, seed=2).to(setting.device))
    peer = nano(setting, batch, tuner)

    def theirs() -> tuple[Tensor, Tensor]:
        gradient = peer.compute_token_gradient(prompt[None])[0]  # (P, V)
        (-gradient).topk(min(TOP, lm.vocab_size))
        return gradient, losses_of(peer, candidates)

    def ours() -> tuple[Tensor, Tensor]:
        gradient = gradient_of(tuner, prompt, batch, in_vocabulary=False)
        first_order(gradient, lm.embedding_table).topk(min(TOP, lm.vocab_size))
        return gradient, scores(tuner, candidates, batch, in_vocabulary=False)

    # The peer's loss for both; the fall by each token is what the gradient says of one-hot rows.
    gradient, losses = theirs()
    falls = -first_order(gradient_of(tuner, prompt, batch, in_vocabulary=True), lm.embedding_table)
    same = [
        apart(line.work, "gradient at the tokens", falls, gradient, 1e-4),
        apart(line.work, "losses", scores(tuner, candidates, batch, True), losses, 1e-5),
    ]
    repetitions = min(setting.repetitions, MOST_REPETITIONS)
    measured = alternate({"theirs": theirs, "ours": ours}, repetitions)
    yield line.result(measured["theirs"], measured["ours"], ", ".join(same))


def edits(prompt: Tensor, tokens: Tensor) -> Tensor:
    """[K, P] The prompt with one token replaced, place by place, by K tokens."""
    found = prompt.repeat(len(tokens), 1)
    places = torch.arange(len(tokens), device=prompt.device) % len(prompt)
    found[torch.arange(len(tokens), device=prompt.device), places] = tokens
    return found


def gradient_of(tuner: SoftPrompt, prompt: Tensor, batch: Batch, in_vocabulary: bool) -> Tensor:
    """[P, H] Of the loss over the vocabulary, or over the verbalizer's words as guided search."""
    rows = tuner.lm.embed(prompt).detach().requires_grad_()
    hidden = tuner.answer_hidden(rows, batch)
    return torch.autograd.grad(nats(tuner, hidden, batch, in_vocabulary).sum(), rows)[0]


@torch.no_grad()
def scores(tuner: SoftPrompt, prompts: Tensor, batch: Batch, in_vocabulary: bool) -> Tensor:
    """[K] The same loss of K prompts."""
    hidden = tuner.lm.answers(prompts, batch, tuner.verbalizer.tree)[:, 0]  # (K, H)
    return nats(tuner, hidden, batch, in_vocabulary)


def nats(tuner: SoftPrompt, hidden: Tensor, batch: Batch, in_vocabulary: bool) -> Tensor:
    """[K] Losses of the one row's answer at hidden states [K, H]."""
    label = batch["labels"].expand(len(hidden))
    if in_vocabulary:
        return F.cross_entropy(tuner.lm.logits(hidden), tuner.class_ids[label], reduction="none")
    return F.cross_entropy(tuner.class_logits(hidden), label, reduction="none")


def nano(setting: Setting, batch: Batch, tuner: SoftPrompt) -> Any:
    """NanoGCG on the same weights, with what its `run` would have made of text and target."""
    import logging

    from nanogcg.gcg import GCG, GCGConfig

    logging.getLogger("nanogcg").setLevel(logging.ERROR)
    model = GPT2LMHeadModel.from_pretrained(setting.folder, dtype=torch.float32)
    model = model.to(setting.device).eval().requires_grad_(False)
    config = GCGConfig(
        search_width=CANDIDATES, topk=TOP, use_prefix_cache=False, allow_non_ascii=True
    )
    tokenizer = tuner.lm.tokenizer
    chat = tokenizer.chat_template
    peer = GCG(model, tokenizer, config)
    tokenizer.chat_template = chat  # it sets one where there is none
    (length,) = batch["before_lengths"].tolist()
    target = tokenizer.encode(WORDS["negative"], add_special_tokens=False)
    peer.target_ids = torch.tensor([target], device=setting.device)
    embed = model.get_input_embeddings()
    peer.before_embeds = embed(batch["before_ids"][:, :length])
    peer.after_embeds = peer.before_embeds[:, :0]
    peer.target_embeds = embed(peer.target_ids)
    return peer


def losses_of(peer: Any, candidates: Tensor) -> Tensor:
    """[K] As its `run` computes them: all candidates behind copies of the text, in one pass."""
    from nanogcg.utils import find_executable_batch_size

    count = len(candidates)
    with torch.no_grad():
        parts = [
            peer.before_embeds.repeat(count, 1, 1),
            peer.embedding_layer(candidates),
            peer.after_embeds.repeat(count, 1, 1),
            peer.target_embeds.repeat(count, 1, 1),
        ]
        compute = find_executable_batch_size(peer.compute_candidates_loss, count)
        return compute(torch.cat(parts, dim=1))
