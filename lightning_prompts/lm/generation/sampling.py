"""Sampling continuations from a frozen language model, many of each prompt and source at once.

The samples of one prompt on one source grow trees: samples that have drawn the same tokens so far
share a node, whose keys and values are computed and kept once. A node sees the prefix and its own
ancestors, by an attention mask; the cache only grows, nothing in it is moved.

Dimensions: N samples a pair of prompt and source, R trees, S samples a tree, P prompt tokens, T new
tokens, Q nodes of one depth in the widest tree, H hidden size.
"""

import re
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_prompts.files.drawing import seed_at
from lightning_prompts.files.errors import PromptError
from lightning_prompts.files.numbers import in_double
from lightning_prompts.lm.backbone import Backbone
from lightning_prompts.lm.batch import Batch, piece_order
from lightning_prompts.lm.passes.growing_rows import PlainTrees

QUOTE = '"'
SENTENCE_ENDS = ".!?"

# Samples of one tree. Larger ones share more tokens, and every token is masked for more others.
TREE_SAMPLES = 32
# Tokens whose keys and values a pass may have to keep at most: 1 GB for SmolLM2-135M.
CACHED_TOKENS = 1 << 15
# Candidates for each of the top k tokens that are found in low precision.
CANDIDATES = 4


class TransferBatch(Batch):
    """B examples of a text to rewrite.

    Keys:
        sources: The texts to rewrite, for B rows.
        references: Rewrites by people, for B rows; none where the data has none.
    """

    sources: list[str]
    references: list[list[str]]


def clean(text: str) -> str:
    """What counts of a continuation: up to the closing quote, then one sentence, in lower case.

    As published (RLPrompt, https://arxiv.org/abs/2205.12548): cut at the first `"`, then after the
    first `.`, `!` or `?`, lower-cased and without white space around it.

    >>> clean(' The food was GREAT! I will come back." she said')
    'the food was great!'
    """
    text = text.partition(QUOTE)[0]
    if end := re.search(f"[{SENTENCE_ENDS}]", text):
        text = text[: end.end()]
    return text.lower().strip()


def token_limit(source_tokens: int) -> int:
    """Most new tokens for a source of n tokens: max(1.5 n, n + 10), as published.

    >>> token_limit(8), token_limit(30)
    (18, 45)
    """
    return max(source_tokens * 3 // 2, source_tokens + 10)


def uniforms(seed: int, row: int, num_samples: int, num_tokens: int) -> Tensor:
    """[N, T] Numbers in [0, 1) that decide the samples of one source.

    They follow from (seed, row of the data) alone: the same on every rank and in every batch, and
    the same for all prompts on that source, which are so compared on equal luck.
    """
    generator = torch.Generator().manual_seed(seed_at(seed, row))
    # In float64, where rounding to 1 is out of the question.
    return torch.rand(num_samples, num_tokens, generator=generator, dtype=torch.float64)


@torch.no_grad()
def sample_texts(
    lm: Backbone,
    prompts: Tensor,
    batch: TransferBatch,
    pairs: Sequence[tuple[int, int]],
    num_samples: int,
    seed: int,
    top_k: int = 10,
    cached_tokens: int = CACHED_TOKENS,
) -> list[list[str]]:
    """Sample what the model writes after each pair's `[before | prompt | after]`.

    A sample ends with the first token that has a quote or a sentence's end in it (nothing after it
    would survive `clean`), with a special token, or at `token_limit` of its source.

    Args:
        lm: The frozen language model.
        prompts: [K, P] Token ids.
        batch: B sources in their template.
        pairs: R pairs (k, b): prompt k on source b.
        num_samples: N, samples of each pair.
        seed: Of the samples; equal seeds give equal samples, whatever else is in the batch.
        top_k: Tokens that a step may choose among.
        cached_tokens: Bound on the tokens whose keys and values are kept at once.

    Returns:
        For R pairs, N texts each, exactly as decoded; `clean` makes sentences of them.

    Raises:
        PromptError: If prompt and text leave no room to write in the model's positions.
    """
    order, lengths = piece_order(batch, prompts.shape[1])  # (B, T), (B,)
    starts = lengths.tolist()
    limits = []
    for source, start in zip(batch["sources"], starts, strict=True):
        limit = min(token_limit(len(lm.tokenize([source])[0])), lm.max_positions - start)
        if limit < 1:
            raise PromptError(
                f"Prompt and text have {start} tokens, which leaves no room to write in the "
                f"{lm.max_positions} positions of {lm.label}; lower --data.max_tokens."
            )
        limits.append(limit)
    stops = _stop_tokens(lm).to(prompts.device)
    special = set(lm.special_ids)  # they end a text and are no part of it
    rows = batch["rows"].tolist()
    num_trees = -(-num_samples // TREE_SAMPLES)  # of a pair
    shape = (num_trees, -(-num_samples // num_trees))  # the last tree may have a few too many
    texts: list[list[str]] = [[] for _ in pairs]
    for chunk in _chunks(pairs, starts, limits, num_samples, cached_tokens):
        ks, bs = (list(part) for part in zip(*(pairs[i] for i in chunk), strict=True))
        width = max(starts[b] for b in bs)
        pieces = [batch["before_ids"][bs], prompts[ks], batch["after_ids"][bs]]
        prefix = torch.cat(pieces, dim=1).gather(1, order[bs, :width])
        noise = torch.zeros(len(bs), *shape, max(limits[b] for b in bs), dtype=torch.float64)
        for place, b in enumerate(bs):
            drawn = uniforms(seed, rows[b], shape[0] * shape[1], limits[b])
            noise[place, ..., : limits[b]] = drawn.unflatten(0, shape)
        limit = torch.tensor([limits[b] for b in bs], device=prefix.device)
        noise = in_double(noise, prefix.device).to(prefix.device)
        tokens = _grow(lm, prefix, lengths[bs], noise, limit, stops, top_k)
        for i, samples in zip(chunk, tokens[:, :num_samples].tolist(), strict=True):
            texts[i] = [lm.decode([t for t in s if t >= 0 and t not in special]) for s in samples]
    return texts


def _grow(
    lm: Backbone,
    prefix: Tensor,
    lengths: Tensor,
    noise: Tensor,
    limits: Tensor,
    stops: Tensor,
    top_k: int,
) -> Tensor:
    """Grow the trees of several prefixes, a depth at a time.

    Args:
        lm: The frozen language model.
        prefix: [M, L] Token ids, right-padded.
        lengths: [M] Tokens of each prefix.
        noise: [M, trees, S, T] Numbers in [0, 1) that choose the tokens.
        limits: [M] Most new tokens after each prefix, at most T.
        stops: [V] Whether a token ends its sample.
        top_k: Tokens that a step may choose among.

    Returns:
        [M, trees * S, T] Token ids, -1 after a sample's end.
    """
    # transformers' model classes, which it extends, take a second
    from lightning_prompts.lm.generation.tree_attention import KeptTrees

    num_prefixes, copies, num_samples, num_tokens = noise.shape
    noise = noise.flatten(0, 1)  # (R, S, T)
    keeps = lm.ways.trees and int((lengths + limits).max()) <= (lm.window or lm.max_positions)
    grown = (KeptTrees if keeps else PlainTrees)(lm, prefix, lengths, copies)
    limits = limits.repeat_interleave(copies, 0)

    top_k, rough = min(top_k, lm.vocab_size), _rough_head(lm)
    trees = torch.arange(len(noise), device=prefix.device)  # those that still grow
    tokens = prefix.new_full(noise.shape, -1)
    width = 1  # Q
    # Of each node its tree and its place there, and of each sample its node's place.
    node_trees, node_places = trees, torch.zeros_like(trees)
    node = prefix.new_zeros(len(noise), num_samples)
    alive = torch.ones_like(node, dtype=torch.bool)
    for depth in range(num_tokens):
        best_shares, best_ids = _top_shares(lm, grown.hidden, top_k, rough)
        shape = (len(trees), width, top_k)
        shares, ids = best_shares.new_zeros(shape), best_ids.new_zeros(shape)
        shares[node_trees, node_places], ids[node_trees, node_places] = best_shares, best_ids
        # Each sample's token: the first whose cumulated share exceeds its number.
        own = node[..., None].expand(-1, -1, top_k)
        choice = (shares.gather(1, own) <= noise[trees, :, depth, None]).sum(-1)
        choice = choice.clamp(max=top_k - 1)  # (R, S); the last share may round below 1
        drawn = ids.gather(1, own).gather(2, choice[..., None])[..., 0]
        tokens[trees, :, depth] = torch.where(alive, drawn, -1)
        alive &= ~stops[drawn] & (depth + 1 < limits[trees, None])
        if not alive.any():
            break
        # The next depth: every (node, token) that a living sample has reached, once.
        keys = node * top_k + choice
        reached = alive.new_zeros(len(trees), shape[1] * top_k)
        reached[alive.nonzero()[:, 0], keys[alive]] = True
        growing = reached.any(1)
        if 4 * int(growing.sum()) <= 3 * len(trees):  # the others would only be padding
            kept = growing.nonzero()[:, 0]
            grown.select(kept)
            trees, alive, ids = (x[kept] for x in (trees, alive, ids))
            keys, reached = keys[kept], reached[kept]
        places = reached.cumsum(1) - 1
        node = places.gather(1, keys).clamp(min=0)
        node_trees, node_keys = reached.nonzero(as_tuple=True)
        node_places = places[node_trees, node_keys]
        width = int(node_places.max()) + 1
        inputs = prefix.new_zeros(len(trees), width)
        parents = torch.zeros_like(inputs)
        inputs[node_trees, node_places] = ids.flatten(1)[node_trees, node_keys]
        parents[node_trees, node_places] = node_keys // top_k
        grown.extend(inputs, parents, (node_trees, node_places))
    return tokens.unflatten(0, (num_prefixes, copies)).flatten(1, 2)


def _top_shares(
    lm: Backbone, hidden: Tensor, top_k: int, rough: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Cumulated probabilities among the top k next tokens, float64, and the tokens, both [M, k].

    Args:
        lm: The frozen language model.
        hidden: [M, H] Final hidden states.
        top_k: k.
        rough: [V, H] The head in low precision: finds candidates in a third of the time; the logits
            that count are float32 all the same.
    """
    if rough is None or CANDIDATES * top_k >= len(rough):
        best = lm.logits(hidden).topk(top_k)
        ids = best.indices
    else:
        bias = getattr(lm.model.get_output_embeddings(), "bias", None)
        scores = F.linear(hidden.to(rough.dtype), rough, None if bias is None else bias.to(rough))
        found = scores.topk(CANDIDATES * top_k).indices.unique()
        best = lm.logits(hidden, found).topk(top_k)
        ids = found[best.indices]
    return in_double(best.values).softmax(-1).cumsum(-1), ids


def _rough_head(lm: Backbone) -> Tensor | None:
    """[V, H] The head in autocast's precision, converted once; None without autocast."""
    weight = lm.model.get_output_embeddings().weight
    kind = weight.device.type
    return weight.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else None


def _stop_tokens(lm: Backbone) -> Tensor:
    """[V] Whether a token ends a sample: special, or with a quote or a sentence's end in it."""
    marks = set(QUOTE + SENTENCE_ENDS)
    as_bytes = {f"<0x{ord(mark):02X}>" for mark in marks}
    stops = torch.zeros(lm.vocab_size, dtype=torch.bool)
    # Punctuation stands for itself in byte-level vocabularies, or as a byte in others.
    tokens = lm.vocabulary.items()
    ends = [i for token, i in tokens if not marks.isdisjoint(token) or token in as_bytes]
    stops[[*lm.special_ids, *ends]] = True
    return stops


def _chunks(
    pairs: Sequence[tuple[int, int]],
    starts: Sequence[int],
    limits: Sequence[int],
    num_samples: int,
    cached_tokens: int,
) -> Iterator[list[int]]:
    """Indices of pairs of similar length that may be sampled at once, the longest first."""
    chunk: list[int] = []
    longest = 0
    for i in sorted(range(len(pairs)), key=lambda i: -(starts[pairs[i][1]] + limits[pairs[i][1]])):
        b = pairs[i][1]
        # The first of a chunk is (nearly) its longest: no tree of it keeps more.
        longest = max(longest, starts[b] + num_samples * limits[b])
        if chunk and (len(chunk) + 1) * longest > cached_tokens:
            yield chunk
            chunk, longest = [], starts[b] + num_samples * limits[b]
        chunk.append(i)
    if chunk:
        yield chunk
