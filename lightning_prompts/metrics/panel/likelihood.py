"""How likely a text is beside natural texts of its length, and beside its own tokens shuffled."""

from collections.abc import Sequence
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from lightning_prompts.files import sentences
from lightning_prompts.files.errors import PromptError
from lightning_prompts.files.sentences import Registers
from lightning_prompts.lm.backbone import Backbone
from lightning_prompts.metrics.scrutability import row_nats, token_nats

MOST_STRETCHES = 1000  # of which a share of one half has a standard error of 1.6 points
GRAMMAR_SHUFFLES = 32
# Characters of a token, at most, in all but a few stretches; where they are too few, more are read.
CHARACTERS_A_TOKEN = 12
# Lengths up to a multiple of this are read at once: a stretch's beginning is a stretch too, and a
# search meets prompts of many lengths.
LENGTHS_AT_ONCE = 4

Stretches = tuple[list[list[int]], Tensor]
"""Token ids and nats."""
_known: "WeakKeyDictionary[Backbone, dict[object, Stretches]]" = WeakKeyDictionary()


class Unmeasured(PromptError):  # noqa: N818 - nothing is wrong
    """Why a text has no value of a measure; the panel leaves it out."""


def natural_percentile(lm: Backbone, token_ids: Sequence[int]) -> float:
    """Share of natural stretches of as many tokens that are less likely than the text, in percent.

    100 (#{s: nll(s) > nll(text)} + #{s: nll(s) = nll(text)} / 2) / #s   (ours)

    Stretches are drawn from sentences that come with the package, the same at each call: half begin
    with a sentence, half anywhere inside one, and they run on into the next sentence. All are read
    behind BOS, as the text's own perplexity is. A text of 50 is as likely as natural ones are in
    the middle; nearer to 100 it is a formula.

    Cost: one pass over up to 1,000 stretches, once for each model and four lengths in a process.
    Gamed by: repeating a token, quoting what the model knows by heart, or common words that say
    nothing; `repetition` and `grammar` stand beside it.

    Args:
        lm: Reads; the model that the token ids are of.
        token_ids: [P] The text, P at least 1.

    Returns:
        0 to 100.

    Raises:
        Unmeasured: If the text has no token, or more than the model has positions, or the model
            cannot read the sentences.
    """
    ids = readable(lm, token_ids)
    found, nats = stretches(lm, len(ids), sentences.registers())
    own = row_nats(lm, [ids])[0]
    return 100 * _share_below(ids, own, found, nats)


def grammar(lm: Backbone, token_ids: Sequence[int]) -> float:
    """Share of 32 fixed shuffles of a text's own tokens that are less likely than it.

    (#{s: nll(s) > nll(text)} + #{s: nll(s) = nll(text)} / 2) / 32   (ours)

    Whether the order of the tokens is one that the language asks for, whatever they are: 0.5 is
    chance. A shuffle that gives the same tokens counts half, so one token, or one many times, has
    0.5.

    Cost: one pass over 32 texts. Gamed by: any fluent text, whatever it says.

    Args:
        lm: Reads; the model that the token ids are of.
        token_ids: [P] The text, P at least 1.

    Returns:
        0 to 1.

    Raises:
        Unmeasured: If the text has no token, or more than the model has positions.
    """
    ids = readable(lm, token_ids)
    found = shuffles(ids, GRAMMAR_SHUFFLES)
    own, *others = row_nats(lm, [ids, *found])
    return _share_below(ids, own, found, torch.stack(others))


def shuffles(token_ids: Sequence[int], count: int) -> list[list[int]]:
    """A text's tokens in other orders, the same at each call; the first ones of any `count`.

    >>> shuffles([5, 6, 7], 3)[:2] == shuffles([5, 6, 7], 2)
    True
    """
    generator = torch.Generator().manual_seed(0)
    orders = (torch.randperm(len(token_ids), generator=generator).tolist() for _ in range(count))
    return [[token_ids[i] for i in order] for order in orders]


def readable(lm: Backbone, token_ids: Sequence[int]) -> list[int]:
    """The token ids of a text that a model can read whole.

    Raises:
        Unmeasured: If it cannot, or there are none.
    """
    ids = list(token_ids)
    if not ids:
        raise Unmeasured("the text has no token")
    if not lm.reads(ids):
        raise Unmeasured(f"{lm.label} has no row for a token of the text")
    if len(ids) > lm.max_positions:
        raise Unmeasured(
            f"the text has {len(ids)} tokens, and {lm.label} {lm.max_positions} positions"
        )
    return ids


def stretches(lm: Backbone, length: int, registers: Registers) -> Stretches:
    """Natural stretches of `length` tokens and the nats of each, float64; remembered.

    Raises:
        Unmeasured: If the model can read none.
    """
    longest = min(-(-length // LENGTHS_AT_ONCE) * LENGTHS_AT_ONCE, lm.max_positions)
    of_model = _known.setdefault(lm, {})
    key = (longest, lm.embedding_table.dtype, registers)
    if key not in of_model:
        drawn = [ids for ids in draw(lm, longest, registers) if lm.reads(ids)]
        if not drawn:
            raise Unmeasured(f"{lm.label} can read none of the sentences to compare with")
        of_model[key] = drawn, torch.stack(token_nats(lm, drawn))
    found, nats = of_model[key]
    return [ids[:length] for ids in found], nats[:, :length].sum(1)


def draw(lm: Backbone, length: int, registers: Registers) -> list[list[int]]:
    """Up to 1,000 stretches of `length` tokens, each of another sentence, the same at each call.

    Of the drawn sentences every other one is begun with, the others at one of their later tokens.
    """
    places = [(r, i) for r, register in enumerate(registers) for i in range(len(register))]
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(places), generator=generator)[:MOST_STRETCHES].tolist()
    insides = torch.rand(len(order), generator=generator, dtype=torch.float64).tolist()
    drawn = [places[i] for i in order]
    sizes = [len(ids) for ids in lm.tokenize([registers[r][i] for r, i in drawn])]
    starts = [
        1 + int(inside * (size - 1)) if turn % 2 and size > 1 else 0
        for turn, (inside, size) in enumerate(zip(insides, sizes, strict=True))
    ]
    found: dict[int, list[int]] = {}
    characters, missing = CHARACTERS_A_TOKEN * length, list(range(len(drawn)))
    while missing:
        texts = [
            _running(registers[r], i, characters) for r, i in (drawn[turn] for turn in missing)
        ]
        for turn, ids in zip(missing, lm.tokenize(texts), strict=True):
            stretch = ids[starts[turn] : starts[turn] + length]
            if len(stretch) == length:
                found[turn] = stretch
        missing, characters = [turn for turn in missing if turn not in found], 2 * characters
    return [found[turn] for turn in range(len(drawn))]


def _running(register: Sequence[str], first: int, characters: int) -> str:
    """A sentence and those after it, of so many characters beside it; after the last the first."""
    parts, more = [register[first]], 0
    while more < characters:
        parts.append(register[(first + len(parts)) % len(register)])
        more += 1 + len(parts[-1])
    return " ".join(parts)


def _share_below(ids: list[int], own: Tensor, others: list[list[int]], nats: Tensor) -> float:
    """Share of texts that are less likely than one; equal ones, also by their tokens, half."""
    equal = torch.tensor([other == ids for other in others]) | (nats == own)
    below = torch.where(equal, 0.5, (nats > own).double())
    return float(below.mean())
