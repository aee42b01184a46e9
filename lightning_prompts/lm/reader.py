"""A language model reads prompts with a batch of token pieces, by one of four passes."""

from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from lightning_prompts.files.errors import PromptError
from lightning_prompts.lm.answers import AnswerTree
from lightning_prompts.lm.backbone import Backbone
from lightning_prompts.lm.batch import Batch, on_device
from lightning_prompts.lm.passes.choice import ReuseChoice
from lightning_prompts.lm.passes.compiled import CompiledPasses
from lightning_prompts.lm.passes.masks import takes_block_masks
from lightning_prompts.lm.passes.recompute import recomputed
from lightning_prompts.lm.passes.reuse import (
    concatenated,
    encode_texts,
    last_token,
    prompts_first,
    texts_first,
)
from lightning_prompts.lm.passes.text_cache import TextCache


class PromptReader(Backbone):
    """What a frozen language model computes of prompts and rows.

    Dimensions: B examples, K prompts, P prompt tokens, H hidden size, N places of answers.
    """

    reuse_prompt: Literal["auto"] | bool
    """Whether what rows share is encoded once."""
    text_cache: TextCache
    """Keys and values of texts."""
    recompute: bool = False
    """Whether activations are made again in the backward pass."""
    is_sharded: bool = False
    """Whether the blocks are divided over processes, which then have to pass them together."""
    _reuse_choice: ReuseChoice
    _compiled: CompiledPasses | None

    def answer_hidden(self, prompt: Tensor, batch: Batch, tree: AnswerTree | None = None) -> Tensor:
        """Final hidden state at the position whose next token is the answer.

        Args:
            prompt: [P, H] Prompt embeddings, P may be 0.
            batch: B examples as token pieces.
            tree: Beginnings of answers of several tokens, which are read behind each row as well.

        Returns:
            [B, H]; with a tree [B, N, H], the same first and then those behind the beginnings.

        Raises:
            PromptError: If prompt, text and answer are longer than the model's positions.
        """
        return self.answers(prompt[None], batch, tree)[0]

    def answers(self, prompts: Tensor, batch: Batch, tree: AnswerTree | None = None) -> Tensor:
        """`answer_hidden` of K prompts at once.

        What rows share is encoded once: each prompt where it comes first, each text where it does;
        and answers are read behind the keys and values of their row. Where the model cannot do
        that, each answer makes its row a row more; in a compiled pass each beginning of one.

        Args:
            prompts: [K, P, H] Prompt embeddings, or [K, P] token ids; those that begin alike are
                then read together as far as they do, where the text comes first. P may be 0.
            batch: B examples as token pieces.
            tree: Beginnings of answers of several tokens.

        Returns:
            [K, B, H], or [K, B, N, H].

        Raises:
            PromptError: If prompt, text and answer are longer than the model's positions.
        """
        num_tokens = batch["num_tokens"] + prompts.shape[1] + (0 if tree is None else tree.depth)
        if num_tokens > self.max_positions:
            raise PromptError(
                f"Prompt and text have {num_tokens} tokens but {self.label} has "
                f"{self.max_positions} positions; lower --model.prompt_length or --data.max_tokens."
            )
        reuse = self._reuses(prompts, batch, tree)
        again = self.recompute and self._compiled is None and not self.is_sharded
        if again and prompts.requires_grad and torch.is_grad_enabled():
            return recomputed(partial(self._answers, reuse=reuse, tree=tree), prompts, batch)
        return self._answers(prompts, batch, reuse, tree)

    def read_texts(self, batch: Batch) -> None:
        """Encode what stands before the prompt ahead of passes over its parts, which find it kept.

        Texts are encoded in blocks of one shape, which a whole batch fills better than a few rows.
        """
        kept = self.reuse_prompt is not False and self.text_cache.gib > 0 and not self.is_sharded
        if not (kept and self.ways.texts_first):
            return
        if batch["before_ids"].shape[1] and not batch["shared_before"]:
            self.text_cache(self, batch)

    @property
    def compiles(self) -> bool:
        """Whether passes are compiled."""
        return self._compiled is not None

    def warm_up(
        self, prompt: Tensor, batches: Sequence[Batch], tree: AnswerTree | None = None
    ) -> None:
        """Compile what training will ask for, where `compile` is on; its progress is logged.

        Args:
            prompt: [P, H] The prompt in use, with its gradient.
            batches: On any device, one of each length at least.
            tree: Beginnings of answers of several tokens.
        """
        if self._compiled is None or not batches:
            return
        if tree is not None:
            batches = [tree.rows(batch) for batch in batches]
        reuse = self._reuses(prompt[None], on_device(batches[0], prompt.device))
        self._compiled.warm_up(prompt[None], batches, reuse and self.ways.prompts_first)

    def agreed(self, yes: bool) -> bool:
        """Whether all processes say so, where a pass of one is a pass of all; else what is given.

        They have to take the same way through a model that is divided over them.
        """
        if not self.is_sharded:
            return yes
        answer = torch.tensor(int(yes), device=self.embedding_table.device)
        torch.distributed.all_reduce(answer, torch.distributed.ReduceOp.MIN)
        return bool(answer)

    def _reuses(self, prompts: Tensor, batch: Batch, tree: AnswerTree | None = None) -> bool:
        if self.is_sharded:
            # A gradient that comes back through keys alone would find a block's weights given back.
            return self.reuse_prompt is not False and not torch.is_grad_enabled()
        if self.reuse_prompt == "auto" and self.ways.prompts_first:
            return self._reuse_choice(partial(self._answers, tree=tree), prompts, batch)
        return self.reuse_prompt is not False

    def _answers(
        self, prompts: Tensor, batch: Batch, reuse: bool, tree: AnswerTree | None = None
    ) -> Tensor:
        behind = reuse and takes_block_masks(self) and not self.is_sharded
        if tree is not None and self._compiled is not None:
            rows = self._answers(prompts, tree.rows(batch), reuse)
            return rows.unflatten(1, (len(batch["rows"]), -1))
        if tree is not None and not behind:
            return tree.of_leaves(self._answers(prompts, tree.leaf_rows(batch), reuse))
        if self._compiled is not None:
            hidden = self._compiled(prompts, batch, reuse and self.ways.prompts_first)
            if hidden is not None:
                return hidden
        num_prompt, num_before = prompts.shape[1], batch["before_ids"].shape[1]
        # The answer is read at a token that is not shared, or at the prompt's last.
        first = batch["shared_before"] and batch["min_after"] > 0 and num_before + num_prompt > 0
        if reuse and self.ways.prompts_first and self.agreed(first):
            embeds = prompts if prompts.ndim == 3 else self.embed(prompts)
            return prompts_first(self, embeds, batch, tree)
        # Texts are kept by each process for itself, so a model that is divided reads them anew.
        texts = reuse and self.ways.texts_first and not self.is_sharded
        if texts and num_before and (num_prompt or batch["min_after"]):
            keep = self.text_cache.gib > 0
            states = self.text_cache(self, batch) if keep else encode_texts(self, batch)
            return texts_first(self, prompts, batch, states, tree)
        # Without a prompt too, where texts are kept for those that come behind them.
        if texts and num_before and min(batch["before_sizes"]) and self.text_cache.gib > 0:
            shorter, states = last_token(batch, self.text_cache(self, batch))
            return texts_first(self, prompts, shorter, states, tree)
        embeds = prompts if prompts.ndim == 3 else self.embed(prompts)
        return concatenated(self, embeds, batch, tree)
