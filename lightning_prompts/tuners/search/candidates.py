"""Candidates: edits of the best prompts, with new tokens that the gradient or the model proposes.

The gradient's are those of HotFlip (Ebrahimi et al. 2018, arXiv:1712.06751), AutoPrompt (Shin et
al. 2020, arXiv:2010.15980) and GCG (Zou et al. 2023, arXiv:2307.15043); proposals of the language
model itself are an idea of AutoDAN (Zhu et al. 2023, arXiv:2310.15140). Swaps and deletions are
among the edits of GrIPS (Prasad et al. 2022, arXiv:2203.07281).

Dimensions: K prompts, P prompt tokens, V vocabulary, H hidden size, k tokens to choose among.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_prompts.files.errors import PromptError
from lightning_prompts.files.numbers import wide
from lightning_prompts.files.option_types import Count, NotNegative, Positive, Share, require_fields
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.tuners.search.allowed import Allowed, Ids

# Draws for each candidate that is wanted, before fewer have to do.
ATTEMPTS = 20
KINDS = ("substitute", "substitute_two", "insert", "delete", "swap")


@dataclass
class EditSettings:
    """How candidates are made.

    Args:
        proposals: Share of edits whose new tokens the language model proposes, from its own
            distribution after BOS and the prompt's left context; the others take those of the
            gradient. 0 is GCG and AutoPrompt, 1 needs no gradient.
        gradient_top_k: The gradient's best tokens for a position, of which one is drawn evenly.
        model_top_k: The model's likeliest tokens, of which one is drawn by its probability.
        temperature: Of these probabilities; above 1 rarer ones come more often.
        substitute: Relative frequency of edits that replace one token.
        substitute_two: The same for two tokens at once.
        insert: The same for one more token, where the length may grow.
        delete: The same for one token fewer, where it may shrink.
        swap: The same for two tokens that change places.
    """

    proposals: Share = 0.5
    gradient_top_k: Count = 256
    model_top_k: Count = 64
    temperature: Positive = 1.0
    substitute: NotNegative = 4.0
    substitute_two: NotNegative = 2.0
    insert: NotNegative = 1.0
    delete: NotNegative = 1.0
    swap: NotNegative = 1.0

    def __post_init__(self) -> None:
        require_fields(self)

    def check(self) -> None:
        """Not when it is made: there the command line's parser would bury what is raised.

        Raises:
            PromptError: If no edit would replace a token.
        """
        if not self.substitute + self.substitute_two > 0:
            raise PromptError(
                "--model.edits.substitute and substitute_two are both 0, so that no token would "
                "ever be replaced; give one of them more than 0."
            )


class Choice(NamedTuple):
    """Tokens to draw from, for each of n places.

    Attributes:
        ids: [n, k]
        weights: [n, k] Relative frequencies, positive.
    """

    ids: Tensor
    weights: Tensor


def first_order(gradient: Tensor, table: Tensor) -> Tensor:
    """Fall of the loss for each token at each position, to first order and up to a constant.

    A token v in place of z_i changes the loss by g_i (E_v - E_zi); of that, -g_i E_v depends on v.

    Args:
        gradient: [P, H] Of the loss, at the prompt's embeddings.
        table: [V, H] Token embeddings.

    Returns:
        [P, V] float32; larger is better, nats where the loss is in nats.
    """
    with torch.autocast(gradient.device.type, enabled=False):
        return -(wide(gradient) @ wide(table).T)


@torch.no_grad()
def next_logits(lm: FrozenLM, token_ids: Tensor) -> Tensor:
    """The model's logits for what follows BOS and each beginning of K prompts, none and whole too.

    Args:
        lm: The frozen language model.
        token_ids: [K, P]

    Returns:
        [K, P + 1, V] float32; place i follows the first i tokens.
    """
    with torch.autocast(token_ids.device.type, enabled=False):
        bos = token_ids.new_full((len(token_ids), 1), lm.bos_id)
        inputs = lm.embed(torch.cat([bos, token_ids], dim=1))  # (K, P + 1, H)
        return lm.logits(lm.states(inputs))


class Proposer:
    """Draws edits of a beam.

    Args:
        lm: The frozen language model.
        beam: Prompts, the best first. The model's proposals go to any of them, the gradient's to
            the first, whose gradient it is.
        gradient: [P, H] Of the task's loss at the first prompt's embeddings; None where `proposals`
            is 1.
        settings: See `EditSettings`.
        allowed: Which tokens and prompts may be.
        lengths: Fewest and most tokens of a candidate.
        written: What the model would write in prompts of earlier beams; this beam's take its place.
    """

    def __init__(
        self,
        lm: FrozenLM,
        beam: Sequence[Ids],
        gradient: Tensor | None,
        settings: EditSettings,
        allowed: Allowed,
        lengths: tuple[int, int],
        written: dict[Ids, Choice] | None = None,
    ) -> None:
        self.beam, self.settings, self.allowed, self.lengths = beam, settings, allowed, lengths
        self.num_tokens = 0
        """Tokens that the model read for its proposals, in this step or an earlier one."""
        device = lm.embedding_table.device
        banned = ~allowed.mask.to(device)
        most = len(allowed.ids)
        self._gradient: Choice | None = None
        if settings.proposals < 1:
            assert gradient is not None, "the gradient's share of the edits needs a gradient"
            falls = first_order(gradient, lm.embedding_table).masked_fill_(banned, -torch.inf)
            ids = falls.topk(min(settings.gradient_top_k, most)).indices.cpu()
            self._gradient = Choice(ids, torch.ones(ids.shape))
        self._model: list[Choice] = []
        written = {} if written is None else written
        for prompt in beam if settings.proposals > 0 else ():
            self.num_tokens += len(prompt) + 1
            if prompt in written:
                self._model.append(written[prompt])
                continue
            logits = next_logits(lm, torch.tensor([prompt], device=device))[0]
            best = logits.masked_fill_(banned, -torch.inf).topk(min(settings.model_top_k, most))
            # float64: at a low temperature the rarest would otherwise have no weight at all.
            weights = (best.values.double().cpu() / settings.temperature).softmax(-1)
            self._model.append(Choice(best.indices.cpu(), weights))
        parts = [choice.weights for choice in self._model]
        parts += [] if gradient is None else [gradient]
        self.finite = all(bool(part.isfinite().all()) for part in parts)
        """Whether proposals can be drawn: a loss of the beam's that is no number leaves none."""
        written.clear()
        written.update(zip(beam, self._model, strict=False))  # nothing where none was asked for

    def draw(self, count: int, generator: torch.Generator) -> list[Ids]:
        """Distinct prompts that are not in the beam and may be kept, `count` or fewer.

        Args:
            count: How many are wanted.
            generator: Of all draws, on the host.
        """
        found: dict[Ids, None] = {}
        for _ in range(ATTEMPTS * count):
            if len(found) == count:
                break
            edited = self._edit(generator)
            new = edited not in found and edited not in self.beam
            if new and self.allowed.keeps(edited):
                found[edited] = None
        return list(found)

    def _edit(self, generator: torch.Generator) -> Ids:
        """One edit of one prompt, which may give the same prompt again."""
        from_model = float(torch.rand((), generator=generator)) < self.settings.proposals
        k = _below(len(self.beam), generator) if from_model else 0
        prompt = list(self.beam[k])
        source = self._model[k] if from_model else self._gradient
        assert source is not None

        def token(place: int) -> int:
            # The gradient has no place behind the last token: the nearest stands in for it.
            place = min(place, len(source.ids) - 1)
            drawn = torch.multinomial(source.weights[place], 1, generator=generator)
            return int(source.ids[place, drawn])

        kind = self._kind(len(prompt), generator)
        _EDITS[kind](prompt, token, generator)
        return tuple(prompt)

    def _kind(self, length: int, generator: torch.Generator) -> str:
        """A kind of edit that a prompt of this length can have."""
        fewest, most = self.lengths
        possible = {
            "substitute": True,
            "substitute_two": length > 1,
            "insert": length < most,
            "delete": length > fewest,
            "swap": length > 1,
        }
        weights = torch.tensor(
            [getattr(self.settings, kind) * possible[kind] for kind in KINDS], dtype=torch.float64
        )
        if not weights.any():  # only pairs are wanted, and there is one token
            return "substitute"
        return KINDS[int(torch.multinomial(weights, 1, generator=generator))]


Draw = Callable[[int], int]


def _substitute(prompt: list[int], token: Draw, generator: torch.Generator) -> None:
    place = _below(len(prompt), generator)
    prompt[place] = token(place)


def _substitute_two(prompt: list[int], token: Draw, generator: torch.Generator) -> None:
    for place in _two_places(prompt, generator):
        prompt[place] = token(place)


def _insert(prompt: list[int], token: Draw, generator: torch.Generator) -> None:
    place = _below(len(prompt) + 1, generator)
    prompt.insert(place, token(place))


def _delete(prompt: list[int], token: Draw, generator: torch.Generator) -> None:
    del prompt[_below(len(prompt), generator)]


def _swap(prompt: list[int], token: Draw, generator: torch.Generator) -> None:
    i, j = _two_places(prompt, generator)
    prompt[i], prompt[j] = prompt[j], prompt[i]


_EDITS: dict[str, Callable[[list[int], Draw, torch.Generator], None]] = dict(
    zip(KINDS, (_substitute, _substitute_two, _insert, _delete, _swap), strict=True)
)


def _below(n: int, generator: torch.Generator) -> int:
    """An integer from 0 to n - 1."""
    return int(torch.randint(n, (1,), generator=generator))


def _two_places(prompt: list[int], generator: torch.Generator) -> list[int]:
    """Two distinct places."""
    places: list[int] = torch.randperm(len(prompt), generator=generator)[:2].tolist()
    return places
