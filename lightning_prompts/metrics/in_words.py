"""A prompt in the model's own words: its states in a sentence that asks what it is.

After InSPEcT (Ramati et al. 2024, arXiv:2410.11660), itself after Patchscopes (Ghandeharioun et al.
2024, arXiv:2401.06102): hidden states of a soft prompt at one layer stand in for placeholders in a
description at another layer, and the model goes on. Ours are the frames, the lists of words, the
small grid of layers, and the controls, which take their best over the same grid.

Dimensions: P prompt tokens, H hidden size, S prompts, A layers.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from statistics import fmean
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from lightning_prompts.lm.backbone import Backbone
from lightning_prompts.lm.passes.blocks import continued, num_blocks, states_at
from lightning_prompts.metrics.panel.frames import DESCRIPTIONS, TaskKind

Kind = Literal["prompt", "nearest tokens", "run", "random"]
PLACEHOLDER = " x"  # one for each vector
WRITTEN = 16  # tokens of a description
RANDOM = 5
EMPTY = {"a", "an", "another", "the", "which", "what", "whether", "how", "or", "is"}
EMPTY |= {"about", "for", "in", "into", "of", "to"}


class Frame(NamedTuple):
    """What stands around the placeholders. Fixed, and without a word that is looked for."""

    before: str
    after: str


FRAMES = (
    Frame("", ": this text is about"),
    Frame("Bread: food made of flour. Paris: a city in France. Hammer: a tool for nails.", ":"),
    Frame('The instruction "', '" tells you to'),
)


@dataclass(frozen=True)
class Description:
    """What the model wrote of one prompt.

    Attributes:
        frame: Which of the frames, from 0.
        taken: Layer that the prompt's states are of.
        put: Layer that they stand at.
        text: Up to the end of text.
        named: Words of the lists that it has.
    """

    frame: int
    taken: int
    put: int
    text: str
    named: tuple[str, ...]


class Source(NamedTuple):
    """A prompt to be read out: [P, H] vectors."""

    kind: Kind
    name: str
    vectors: Tensor


@dataclass
class Readout:
    """All that was written of one prompt.

    Attributes:
        best: By list of words, the largest share of them that one description has, 0 to 1.
        named_any: Share of the descriptions that have a word of any list.
    """

    kind: Kind
    name: str
    best: dict[str, float]
    named_any: float
    descriptions: list[Description] = field(repr=False)


def task_words(
    answers: Sequence[str], labels: Sequence[str], kind: TaskKind | None
) -> dict[str, list[str]]:
    """The words that are looked for, by list; a list without a word is left out.

    Args:
        answers: Of the verbalizer.
        labels: Names of the classes.
        kind: Of the task; its description's words count but for those that say nothing.
    """
    lists = {
        "answers": _words(" ".join(answers)),
        "classes": _words(" ".join(labels).replace("_", " ")),
        "description": _words(DESCRIPTIONS[kind] if kind else ""),
    }
    return {
        name: found
        for name, words in lists.items()
        if (found := list(dict.fromkeys(word for word in words if word not in EMPTY)))
    }


def grid(depth: int) -> tuple[list[int], list[int]]:
    """Layers that states are taken from, and those that they are put to.

    >>> grid(30)
    ([0, 7, 15, 22, 30], [0, 7, 15, 22])
    """
    taken = sorted({depth * part // 4 for part in range(5)})
    return taken, taken[:-1]


def random_like(vectors: Tensor) -> Iterator[Source]:
    """Controls: random directions of the same norms, the same at each call."""
    generator = torch.Generator().manual_seed(0)
    for number in range(RANDOM):
        drawn = torch.randn(vectors.shape, generator=generator).to(vectors)
        norms = vectors.norm(dim=-1, keepdim=True) / drawn.norm(dim=-1, keepdim=True)
        yield Source("random", f"random vectors {number + 1}", drawn * norms)


def in_words(
    lm: Backbone, sources: Sequence[Source], words: Mapping[str, Sequence[str]]
) -> list[Readout]:
    """Read prompts out: every frame and every pair of layers, the same for each.

    Each prompt is read behind BOS, and so is each frame.

    Cost: of a prompt 5 x 4 x 3 short texts of 16 tokens. Gamed by: nothing that a search could aim
    at cheaply; but of 60 descriptions the best is taken, so only the distance to the controls says
    something.

    Args:
        lm: The frozen language model.
        sources: S prompts, which may be of different lengths.
        words: By list.

    Returns:
        One for each, in their order.

    Raises:
        PromptError: If the model's blocks are not found, or a prompt is too long.
    """
    taken, put = grid(num_blocks(lm))
    found: dict[int, list[Description]] = {i: [] for i in range(len(sources))}
    places = sorted(found, key=lambda i: len(sources[i].vectors))
    for _, group in groupby(places, key=lambda i: len(sources[i].vectors)):
        same = list(group)
        vectors = torch.stack([sources[i].vectors for i in same]).to(lm.embedding_table)
        begin = lm.embedding_table[lm.bos_id].expand(len(same), 1, -1)
        states = states_at(lm, torch.cat([begin, vectors], 1), taken)[:, :, 1:]  # (A, S, P, H)
        for number, frame in enumerate(FRAMES):
            embeds, start = _around(lm, frame, vectors.shape[1])
            rows = embeds.expand(len(taken) * len(same), -1, -1)
            for layer in put:
                ids = continued(lm, rows, states.flatten(0, 1), start, layer, WRITTEN)
                for row, written in enumerate(ids.tolist()):
                    at, who = divmod(row, len(same))
                    text = _text(lm, written)
                    named = tuple(_named(text, words))
                    found[same[who]].append(Description(number, taken[at], layer, text, named))
    return [_readout(source, found[i], words) for i, source in enumerate(sources)]


def _around(lm: Backbone, frame: Frame, length: int) -> tuple[Tensor, int]:
    """[T, H] A frame with as many placeholders, and where the first of them stands."""
    before = [lm.bos_id, *lm.encode(frame.before)]
    held = lm.encode(PLACEHOLDER)[-1:] * length
    ids = torch.tensor([*before, *held, *lm.encode(frame.after)], device=lm.embedding_table.device)
    return lm.embed(ids), len(before)


def _readout(
    source: Source, found: list[Description], words: Mapping[str, Sequence[str]]
) -> Readout:
    best = {
        name: max(len({*d.named} & {*some}) / len(some) for d in found)
        for name, some in words.items()
    }
    return Readout(source.kind, source.name, best, fmean(bool(d.named) for d in found), found)


def _text(lm: Backbone, ids: Sequence[int]) -> str:
    ends = (i for i, token in enumerate(ids) if token == lm.eos_id)
    return lm.decode(ids[: next(ends, len(ids))])


def _named(text: str, words: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Words of the lists that a text has, each once; a plural's s does not count."""
    has = {*_words(text)}
    for word in dict.fromkeys(word for some in words.values() for word in some):
        if word in has or f"{word}s" in has:
            yield word


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W\d_]+", text.casefold())
