"""Answers of several tokens: where their tokens are read, and what a class of answers scores.

Dimensions: K prompts, B examples, H hidden size, V vocabulary, C classes, W answers of all classes,
M beginnings of answers, N = M + 1 places at which a token of an answer is read.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_prompts.lm.backbone import Backbone
from lightning_prompts.lm.batch import Batch, picked

Ids = tuple[int, ...]
AnswerScore = Literal["sum", "mean", "pmi"]

# Logits of as many rows at a time as fit in 64 MiB of float32.
LOGITS_AT_ONCE = 2**24
# Rows of a head in 16 bits that are widened at a time.
HEAD_ROWS = 2**13


class AnswerTree:
    """The beginnings of answers, each once: what stands behind a row where a later token is read.

    Place 0 is the row itself, where all answers begin; the others are its `beginnings`.

    Args:
        answers: Token ids of each, some of them of several tokens.
    """

    def __init__(self, answers: Sequence[Ids]) -> None:
        found = (ids[:end] for ids in answers for end in range(1, len(ids)))
        self.beginnings = sorted(dict.fromkeys(found), key=len)
        self.depth = len(self.beginnings[-1])
        """Tokens of the longest beginning."""
        self.places = {ids: place for place, ids in enumerate([(), *self.beginnings])}

    @property
    def num_tokens(self) -> int:
        """M, the tokens that are read behind each row."""
        return len(self.beginnings)

    @property
    def tokens(self) -> list[int]:
        """[M] The last token of each beginning."""
        return [ids[-1] for ids in self.beginnings]

    @property
    def depths(self) -> list[int]:
        """[M] Tokens of each beginning."""
        return [len(ids) for ids in self.beginnings]

    @cached_property
    def seen(self) -> Tensor:
        """[M, M] Whether a beginning (row) goes on from another, or is it."""
        ends = range(1, self.depth + 1)
        pairs = [
            (place - 1, self.places[ids[:end]] - 1)
            for ids, place in self.places.items()
            for end in ends
            if end <= len(ids)
        ]
        seen = torch.zeros(self.num_tokens, self.num_tokens, dtype=torch.bool)
        seen[tuple(torch.tensor(pairs).T)] = True
        return seen

    def rows(self, batch: Batch) -> Batch:
        """Each example N times: itself, then with each beginning behind it.

        Args:
            batch: B examples.

        Returns:
            B N rows, those of an example side by side.
        """
        return _behind(batch, list(self.places), self.depth)

    @cached_property
    def leaves(self) -> list[Ids]:
        """The L beginnings that no other one goes on from."""
        inner = {ids[:-1] for ids in self.beginnings}
        return [ids for ids in self.beginnings if ids not in inner]

    def leaf_rows(self, batch: Batch) -> Batch:
        """Each example L times, with each leaf behind it, read at the row's end and from there on.

        Args:
            batch: B examples.

        Returns:
            B L rows, those of an example side by side, with `back` [B L, D + 1].
        """
        back = [
            [max(0, len(ids) - taken) for taken in range(self.depth + 1)] for ids in self.leaves
        ]
        found = _behind(batch, self.leaves, self.depth)
        found["back"] = torch.tensor(back, device=found["rows"].device).repeat(
            len(batch["rows"]), 1
        )
        return found

    def of_leaves(self, hidden: Tensor) -> Tensor:
        """[K, B L, D + 1, H] states of `leaf_rows` to [K, B, N, H]."""
        leaves = self.leaves
        places = [
            (next(i for i, leaf in enumerate(leaves) if leaf[: len(ids)] == ids), len(ids))
            for ids in self.places
        ]
        leaf, taken = torch.tensor(places, device=hidden.device).T
        return hidden.unflatten(1, (-1, len(leaves)))[:, :, leaf, taken]


def _behind(batch: Batch, tails: Sequence[Ids], depth: int) -> Batch:
    """Each example as often as there are tails of up to `depth` tokens, with each behind it."""
    device, num_rows = batch["after_ids"].device, len(batch["rows"])
    lengths = [len(ids) for ids in tails]
    padded = [[*ids, *[0] * (depth - len(ids))] for ids in tails]
    slots = batch["after_lengths"][:, None, None] + torch.arange(depth, device=device)
    after = F.pad(batch["after_ids"], (0, depth))[:, None].repeat(1, len(tails), 1)
    added = torch.tensor(padded, device=device).expand(num_rows, -1, -1)
    after.scatter_(2, slots.expand(-1, len(tails), -1), added)
    repeated = picked(batch, [row for row in range(num_rows) for _ in tails])
    own = {
        "after_ids": after.flatten(0, 1),
        "after_lengths": (
            batch["after_lengths"][:, None] + torch.tensor(lengths, device=device)
        ).flatten(),
        "num_tokens": batch["num_tokens"] + depth,
        "num_real_tokens": len(tails) * batch["num_real_tokens"] + num_rows * sum(lengths),
    }
    return cast(Batch, {**repeated, **own})


class AnswerScores:
    """Scores of classes, from the hidden states at which the tokens of their answers are read.

    The score of an answer is the sum (`mean`: the mean) of its tokens' log-probabilities over the
    whole vocabulary; that of a class the log-sum-exp of its answers'. Where all answers are of one
    token the logits of these are taken for it: they differ from it by what all classes share.

    Args:
        classes: Token ids of each class's answers.
        score: How tokens make a score; `pmi` is `sum` here, less what is subtracted elsewhere.
    """

    def __init__(self, classes: Sequence[Sequence[Ids]], score: AnswerScore) -> None:
        answers = [ids for of_class in classes for ids in of_class]
        self.tree = AnswerTree(answers) if max(map(len, answers)) > 1 else None
        steps: dict[tuple[Ids, int], int] = {}  # a token after a beginning
        paths = [
            [steps.setdefault((ids[:i], token), len(steps)) for i, token in enumerate(ids)]
            for ids in answers
        ]
        self.token_ids = [token for _, token in steps]
        """[S] The tokens that are scored; where each class has one answer of one token, theirs."""
        self._places = [self.tree.places[ids] if self.tree else 0 for ids, _ in steps]
        self._paths = _filled(paths, len(steps))
        self._lengths = [len(ids) for ids in answers] if score == "mean" else None
        of_classes, start = [], 0
        for of_class in classes:
            of_classes.append(list(range(start, start + len(of_class))))
            start += len(of_class)
        self._classes = _filled(of_classes, start) if start > len(classes) else None

    def __call__(self, lm: Backbone, hidden: Tensor, token_ids: Tensor | None = None) -> Tensor:
        """Class scores, float32 or wider.

        Args:
            lm: The frozen language model.
            hidden: [..., H] where all answers are of one token, else [..., N, H].
            token_ids: `self.token_ids`, where they are on the device already.

        Returns:
            [..., C]
        """
        device = hidden.device
        ids = torch.tensor(self.token_ids, device=device) if token_ids is None else token_ids
        if self.tree is None:
            scores = lm.logits(hidden, ids)  # (..., W)
        else:
            steps = self._log_probabilities(lm, hidden, ids)  # (..., S)
            paths = torch.tensor(self._paths, device=device)
            scores = F.pad(steps, (0, 1))[..., paths].sum(-1)
            if self._lengths is not None:
                scores = scores / torch.tensor(self._lengths, device=device)
        if self._classes is None:
            return scores
        classes = torch.tensor(self._classes, device=device)
        return F.pad(scores, (0, 1), value=-torch.inf)[..., classes].logsumexp(-1)

    def _log_probabilities(self, lm: Backbone, hidden: Tensor, ids: Tensor) -> Tensor:
        """[..., N, H] to [..., S] of each token after its beginning."""
        rows = max(1, LOGITS_AT_ONCE // (hidden.shape[-2] * lm.vocab_size))
        steps = torch.arange(len(ids), device=ids.device)
        places = torch.tensor(self._places, device=ids.device)
        parts = [
            lm.logits(part, ids)[:, places, steps] - _log_normaliser(lm, part)[:, places]
            for part in hidden.flatten(0, -3).split(rows)
        ]
        return torch.cat(parts).unflatten(0, hidden.shape[:-2])


def _log_normaliser(lm: Backbone, hidden: Tensor) -> Tensor:
    """[...] Log-sum-exp of all logits, float32 or wider; of a head in 16 bits its rows widened."""
    head = lm.ends.output.weight
    if head.dtype.itemsize > 2 or lm.ends.tail:
        return lm.logits(hidden).logsumexp(-1)
    some = torch.arange(len(head), device=hidden.device).split(HEAD_ROWS)
    return torch.stack([lm.logits(hidden, ids).logsumexp(-1) for ids in some]).logsumexp(0)


def _filled(rows: Sequence[Sequence[int]], fill: int) -> list[list[int]]:
    """Rows of one length."""
    longest = max(map(len, rows))
    return [[*row, *[fill] * (longest - len(row))] for row in rows]
