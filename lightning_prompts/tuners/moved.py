"""Soft prompts moved to another language model without training.

Zero-shot transfer of continuous prompts (Wu et al. 2023, arXiv:2310.01691). Theirs is the idea: a
vector is described by its cosine similarities to *anchors*, tokens that both models have, and the
vector of the target model that is described most nearly so is looked for. Ours are the choices of
anchors (the most frequent shared tokens, by id), of least squares in place of a search by steps,
and of the length that a moved vector gets.

Dimensions: P prompt tokens, A anchors, V vocabulary, H hidden size of a model.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_prompts.files.errors import PromptError
from lightning_prompts.lm.frozen import FrozenLM

MOST = 5000  # anchors: several times a model's width, at seconds of a CPU
READ = 2**16  # ids whose texts are compared; byte-pair ids are about in the order of frequency
BROKEN = "\ufffd"  # in what a part of a character decodes to


@torch.no_grad()
def move_prompt(vectors: Tensor, source_rows: Tensor, target_rows: Tensor) -> Tensor:
    """Vectors of one model's space in another's, by similarities to anchors.

    v' = argmin_u |T u - S v / |v||², S and T the anchors' embeddings in both models at length 1: so
    the similarities of v' are as near as can be to being those of v, up to one factor, which no
    cosine knows. Then v' gets |v| times the ratio of the anchors' mean lengths. Where one space is
    the other rotated and scaled, so is v'.

    Args:
        vectors: [P, H_source]
        source_rows: [A, H_source] The anchors' embeddings in the source model.
        target_rows: [A, H_target] The same anchors' in the target model.

    Returns:
        [P, H_target] float32, on the host; 0 for a vector of 0.
    """
    prompt, source, target = (
        x.detach().cpu().double() for x in (vectors, source_rows, target_rows)
    )
    similarities = F.normalize(source, dim=1) @ F.normalize(prompt, dim=1).T  # (A, P)
    # By singular values, so that embeddings that do not span the space are no fault: for such ones
    # torch 2.13's "gelsy" gives a wrong solution in many calls.
    found = torch.linalg.lstsq(F.normalize(target, dim=1), similarities, driver="gelsd")
    lengths = prompt.norm(dim=1, keepdim=True) * (
        target.norm(dim=1).mean() / source.norm(dim=1).mean()
    )
    return (F.normalize(found.solution.T, dim=1) * lengths).float()


@dataclass(frozen=True)
class EmbeddedTokens:
    """What moving a prompt asks of a model, which need not stay in memory for it.

    Attributes:
        label: The model's name.
        ids: Texts that one token alone has, in the order of the tokens' ids; no special ones.
        table: [V, H] Embeddings.
    """

    label: str
    ids: Mapping[str, int]
    table: Tensor

    @classmethod
    def of(cls, lm: FrozenLM) -> Self:
        """A language model's."""
        special = set(lm.special_ids)
        # Behind another token: some tokenizers leave out a text's first space.
        (*_, before) = lm.encode("a")
        start = lm.decode([before])
        found: dict[str, int] = {}
        twice = set()
        for i in range(min(lm.vocab_size, READ)):
            text = "" if i in special else lm.decode([before, i]).removeprefix(start)
            if text in found:
                twice.add(text)
            elif text and BROKEN not in text:
                found[text] = i
        ids = {text: i for text, i in found.items() if text not in twice}
        return cls(lm.label, ids, lm.embedding_table.detach().cpu())


def moved(vectors: Tensor, source: EmbeddedTokens, target: EmbeddedTokens) -> Tensor:
    """A prompt of one language model for another.

    Args:
        vectors: [P, H_source]
        source: The model that it was learned for.
        target: The one that is to read it.

    Returns:
        [P, H_target] float32, on the host.

    Raises:
        PromptError: If the models share too few tokens to determine a vector.
    """
    anchors = list(islice((text for text in source.ids if text in target.ids), MOST))
    width = max(source.table.shape[1], target.table.shape[1])
    if len(anchors) < width:
        raise PromptError(
            f"{source.label} and {target.label} have {len(anchors)} tokens in common, which say "
            f"too little of vectors of {width} numbers; move the prompt's text instead."
        )
    rows = (each.table[[each.ids[text] for text in anchors]] for each in (source, target))
    return move_prompt(vectors, *rows)
