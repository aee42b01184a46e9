"""Initial prompts: from the vocabulary, a text, the model, the verbalizer, or an earlier run.

Each one *produces* [P, H] vectors; where they sit among the text is the template's business.
"""

import json
import logging
import pickle
from abc import ABC, abstractmethod
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_prompts.files.errors import PromptError
from lightning_prompts.files.option_types import ChecksOptions, Count, Length, Positive, require
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.lm.verbalizer import Verbalizer
from lightning_prompts.tuners.moved import EmbeddedTokens, moved
from lightning_prompts.tuners.record import LMRecord, current
from lightning_prompts.tuners.vectors import TENSORS, Vectors, fitting_rows, read_vectors

log = logging.getLogger(__name__)

# Under this key a checkpoint says what its prompt belongs to.
RECORD = "lightning_prompts"
# What reading a damaged or foreign file raises.
UNREADABLE = (
    *(OSError, KeyError, TypeError, ValueError, IndexError, AttributeError),
    *(RuntimeError, EOFError, pickle.UnpicklingError),
)


class PromptInit(ChecksOptions, ABC):
    """Makes the first [P, H] of a prompt."""

    def __call__(
        self, lm: FrozenLM, verbalizer: Verbalizer, prompt_length: int | None, seed: int
    ) -> Tensor:
        """Initial prompt embeddings.

        Args:
            lm: Whose embedding table to draw from.
            verbalizer: The task's answer words.
            prompt_length: P, or None for the initialiser's own length.
            seed: Of whatever is drawn.

        Returns:
            [P, H] float32.

        Raises:
            PromptError: If the length is missing or does not fit.
        """
        require("prompt_length", prompt_length, Length)
        rows = self.rows(lm, verbalizer, prompt_length, seed).detach().float().clone()
        wanted = len(rows) if prompt_length is None else prompt_length
        if not len(rows):
            raise PromptError("The initial prompt is empty; name one with a token at least.")
        # Shorter sources are repeated and longer ones cut, as PEFT does with its text start.
        return rows.repeat(-(-wanted // len(rows)), 1)[:wanted]

    @abstractmethod
    def rows(
        self, lm: FrozenLM, verbalizer: Verbalizer, prompt_length: int | None, seed: int
    ) -> Tensor:
        """[n, H] for any n >= 1."""


class FromVocabulary(PromptInit):
    """Embeddings of tokens drawn from the vocabulary (Lester et al. 2021, arXiv:2104.08691).

    Args:
        top: Draw from the first `top` ids only: byte-pair ids are ordered by frequency.
    """

    def __init__(self, top: Count | None = 5000) -> None:
        self.top = top

    def rows(
        self, lm: FrozenLM, verbalizer: Verbalizer, prompt_length: int | None, seed: int
    ) -> Tensor:
        """[P, H] rows of the table, special tokens left out."""
        if prompt_length is None:
            raise PromptError("Set --model.prompt_length: the vocabulary has no length of its own.")
        special = set(lm.special_ids)
        allowed = [i for i in range(lm.vocab_size) if i not in special][: self.top]
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randint(len(allowed), (prompt_length,), generator=generator)
        return lm.embed(torch.tensor(allowed)[drawn])


class FromText(PromptInit):
    """Embeddings of a text's tokens.

    Args:
        text: A leading space matters: it is part of the first token.
    """

    def __init__(self, text: str) -> None:
        self.text = text

    def rows(
        self, lm: FrozenLM, verbalizer: Verbalizer, prompt_length: int | None, seed: int
    ) -> Tensor:
        """[n, H] for a text of n tokens."""
        return lm.embed(text_ids(self.text, lm))


class FromModel(PromptInit):
    """Embeddings of what the language model itself writes after a text, e.g. an instruction.

    Args:
        text: What it continues, for example "Instruction for the reviewer:"; BOS stands before it.
        top_k: Each token is drawn from so many likeliest ones, by the run's seed.
        temperature: Of their probabilities; near 0 it writes the likeliest.
    """

    def __init__(self, text: str, top_k: Count = 50, temperature: Positive = 1.0) -> None:
        self.text, self.top_k, self.temperature = text, top_k, temperature

    @torch.no_grad()
    def rows(
        self, lm: FrozenLM, verbalizer: Verbalizer, prompt_length: int | None, seed: int
    ) -> Tensor:
        """[P, H] rows of the tokens that it wrote; no special token is among them."""
        if prompt_length is None:
            raise PromptError("Set --model.prompt_length: the model could go on for ever.")
        ids = [lm.bos_id]
        ids += lm.encode(self.text, "--model.init.text") if self.text else []
        start = len(ids)
        if start + prompt_length > lm.max_positions:
            raise PromptError(
                f"--model.init.text and the prompt have {start + prompt_length} tokens but "
                f"{lm.label} has {lm.max_positions} positions; shorten the text."
            )
        generator = torch.Generator().manual_seed(seed)
        special = torch.tensor(lm.special_ids)
        most = min(self.top_k, lm.vocab_size - len(special))
        for _ in range(prompt_length):
            # Without a cache of its own: a prompt is short and written once.
            inputs = lm.embed(torch.tensor([ids]))
            hidden = lm.states(inputs)
            logits = lm.logits(hidden[0, -1]).index_fill(0, special, -torch.inf)
            best = logits.topk(most)
            weights = (best.values.double() / self.temperature).softmax(-1)
            ids.append(int(best.indices[torch.multinomial(weights, 1, generator=generator)]))
        return lm.embed(torch.tensor(ids[start:]))


class FromVerbalizer(PromptInit):
    """Embeddings of the answers' tokens, one after another (Lester et al.'s class labels)."""

    def rows(
        self, lm: FrozenLM, verbalizer: Verbalizer, prompt_length: int | None, seed: int
    ) -> Tensor:
        """[n, H] for n tokens of all answers together."""
        answers = [ids for of_class in verbalizer.tokens for ids in of_class]
        return lm.embed(torch.tensor([i for ids in answers for i in ids]))


class FromCheckpoint(PromptInit):
    """The prompt of an earlier run: vectors from a `.ckpt`, tokens from a `prompt.json`.

    Or one that was learned elsewhere: an adapter of PEFT, or a tensor in a file. Vectors of another
    language model are moved to this one without training (arXiv:2310.01691), where the file says
    which model that is and it can be read.

    Args:
        path: A checkpoint, or a `prompt.json` of the same language model; the folder of an adapter,
            or a file of tensors (.safetensors, .pt).
    """

    def __init__(self, path: str) -> None:
        self.path = path

    def rows(
        self, lm: FrozenLM, verbalizer: Verbalizer, prompt_length: int | None, seed: int
    ) -> Tensor:
        """[n, H] for a prompt of n tokens."""
        path = Path(self.path).expanduser()
        if path.is_dir() or path.suffix in TENSORS:
            return fitting_rows(self._moved_adapter(read_vectors(self.path), lm), self.path, lm)
        if not path.is_file():
            raise PromptError(
                f"Initial prompt {path}: no such file; give a .ckpt or a prompt.json."
            )
        try:
            if path.suffix == ".json":
                record = current(json.loads(path.read_text(encoding="utf-8")))
                found = {"token_ids": torch.tensor(record["ids"])}
            else:
                saved: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
                record, found = current(saved[RECORD]), saved["state_dict"]
            made_for = LMRecord(**record["lm"])
            own = made_for.fits(LMRecord.of(lm))
            rows = found.get("prompt")
            if rows is None and own:
                rows = lm.embed(found["token_ids"])
        except UNREADABLE as error:
            raise PromptError(
                f"{path} is damaged, or lightning-prompts did not write it."
            ) from error
        if own and rows is not None:
            return rows
        other = (
            f"{path} is a prompt for {made_for.label} (weights {made_for.fingerprint}), not for "
            f"{lm.label} ({lm.fingerprint}); set --lm.name to the model that it was trained with"
        )
        if rows is None:
            raise PromptError(f"{other}.")
        try:
            return self._moved(rows, source_of(made_for), lm)
        except PromptError as error:
            raise PromptError(f"{other}; its vectors cannot be moved: {error}") from error

    def _moved(self, rows: Tensor, source: EmbeddedTokens, lm: FrozenLM) -> Tensor:
        found = moved(rows, source, EmbeddedTokens.of(lm))
        log.info(
            "%s is of %s: the start for %s is its vectors, moved by the tokens that both have.",
            *(self.path, source.label, lm.label),
        )
        return found

    def _moved_adapter(self, found: Vectors, lm: FrozenLM) -> Vectors:
        """Vectors of another width, moved where the adapter names its model."""
        if found.rows.shape[1] == lm.hidden_size or found.base is None:
            return found
        try:
            source = source_of(LMRecord(found.base, name=found.base))
        except PromptError:
            return found  # which is refused for its width
        rows = found.rows[1:] if found.bos_first else found.rows
        return replace(found, rows=self._moved(rows, source, lm), bos_first=False)


def source_of(made_for: LMRecord) -> EmbeddedTokens:
    """The tokens of the language model that a prompt was made for, which is read for it.

    Raises:
        PromptError: If it cannot be read, or is not any more what it was.
    """
    source = FrozenLM(made_for.name, made_for.revision, quantize=made_for.quantize)
    if made_for.fingerprint and not made_for.fits(LMRecord.of(source)):
        raise PromptError(
            f"{made_for.name} has other weights now ({source.fingerprint}) than it was learned for "
            f"({made_for.fingerprint}); put those back."
        )
    return EmbeddedTokens.of(source)


def text_ids(text: str, lm: FrozenLM) -> Tensor:
    """[n] Token ids of a prompt's text.

    Raises:
        PromptError: If the text is empty, or needs a token that the model does not have.
    """
    ids = lm.encode(text, "The prompt's text")
    if not ids:
        raise PromptError(
            "The prompt's text is empty; give one, for example --model.text 'Review:'."
        )
    return torch.tensor(ids)
