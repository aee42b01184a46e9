"""A frozen causal language model as all else reads it: tokens, vectors, one pass, logits."""

import hashlib
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_prompts.lm.ends import Ends
from lightning_prompts.lm.kernels import use_fast_kernels
from lightning_prompts.lm.known_tokens import find_ends, find_special, refuse_unread
from lightning_prompts.lm.nearest import EmbeddingIndex
from lightning_prompts.lm.quantised import parts_of
from lightning_prompts.lm.ways import Ways, local_window

if TYPE_CHECKING:
    from transformers import DynamicCache

# Of each parameter's numbers; a sample, because a model of gigabytes would take minutes.
SAMPLED = 64
Layers = list[tuple[Tensor, Tensor]]
"""Keys and values of each layer, [B, heads, T, d]."""


class Backbone(nn.Module):
    """A causal language model with every parameter frozen, always in eval mode, and its tokenizer.

    Dimensions: K rows, P prompt tokens, T tokens, V vocabulary, H hidden size, S width
    of final states (H in all but a few models), C classes.

    Args:
        model: Of transformers; it is changed in place: frozen, in eval mode, with faster kernels.
        tokenizer: Of the model.
        label: The model's name, for tables and messages.
        add_bos: Whether task inputs begin with the BOS token; `auto` does what the tokenizer does.

    Attributes:
        ends: What it reads for a token, and how it makes logits of its final states.
        ways: What of its states may be reused; all of it until `check_ways` has looked.
        window: Tokens that a layer with a local window sees, None where all layers see all.

    Raises:
        PromptError: If it is not causal, or reads embeddings or makes logits in an unknown way.
    """

    def __init__(
        self, model: Any, tokenizer: Any, label: str, add_bos: Literal["auto"] | bool
    ) -> None:
        super().__init__()
        self.model, self.tokenizer, self.label = model, tokenizer, label
        self._index: EmbeddingIndex | None = None
        self.ends = Ends(model, f"{label} ({model.config.model_type})")
        use_fast_kernels(model)
        # Texts are cut after they are tokenized; the tokenizer would warn of each long one.
        tokenizer.model_max_length = 1 << 62
        model.requires_grad_(False)
        self.eval()
        config = model.config.get_text_config()
        self.max_positions: int = getattr(config, "max_position_embeddings", 1 << 30)
        self.window = local_window(config)
        self.vocab_size, self.hidden_size = self.embedding_table.shape
        self.bos_id, self.eos_id = find_ends(tokenizer, self.vocab_size, label)
        if add_bos == "auto":
            add_bos = tokenizer("a").input_ids[:1] == [self.bos_id]
        self.prefix_ids: list[int] = [self.bos_id] if add_bos else []
        self.special_ids = find_special(tokenizer, self.vocab_size)
        self.ways = Ways()
        self.ends.check(self.bos_id)
        self.state_size = self.ends.state_size

    def train(self, mode: bool = True) -> "Backbone":
        """Stay in eval mode whatever is asked: dropout would blur the frozen model."""
        return super().train(False)

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
        """[V, H] Input embeddings as the model reads them, one row a token, in its own scale."""
        return self.ends.table

    @property
    def index(self) -> EmbeddingIndex:
        """The embedding table prepared for nearest-token searches, once a device."""
        table = self.embedding_table
        if self._index is None or self._index.table.data_ptr() != table.data_ptr():
            self._index = EmbeddingIndex(table)
        return self._index

    def embed(self, token_ids: Tensor) -> Tensor:
        """[...] token ids to [..., H] rows of the embedding table."""
        if self.ends.scales:  # by the model's own call, which the compiler can trace
            return self.ends.input(token_ids)
        return F.embedding(token_ids, self.embedding_table)

    # ---- forward

    @property
    def body(self) -> Any:
        """The model without its head; the first of what it returns is the final hidden states."""
        return self.ends.body

    def states(self, embeds: Tensor) -> Tensor:
        """[K, T, H] vectors to final hidden states; nobody asks for the pass's keys and values.

        Without a cache transformers looks for packed sequences, and waits for the device; but a
        model that keeps other states may write over them, where a gradient needs them.
        """
        if not self.ways.continued:
            return self.body(inputs_embeds=embeds, use_cache=False)[0]
        return self.body(inputs_embeds=embeds, past_key_values=whole_cache(), use_cache=True)[0]

    def logits(self, hidden: Tensor, token_ids: Tensor | None = None) -> Tensor:
        """Next-token logits in float32 at least, of all tokens or of `token_ids` alone.

        Args:
            hidden: [..., H] Final hidden states.
            token_ids: [C] Rows of the head to compute, e.g. a verbalizer's.

        Returns:
            [..., V], or [..., C] with `token_ids`.
        """
        return self.ends.logits(hidden, token_ids)

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
            logits_KVP = self.logits(self.states(inputs)).transpose(1, 2)
            return F.cross_entropy(logits_KVP, token_ids, reduction="none")

    # ---- identity

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hex digits of the architecture and a sample of the weights.

        A moved or re-converted copy keeps it, another model or revision does not.
        """
        # torchao's weights are the same whether activations are rounded or not.
        scheme = getattr(getattr(self.model.config, "quantization_config", None), "quant_type", "")
        scheme = type(scheme).__name__ if scheme else ""
        return weights_digest(self.model, self._kind + scheme)[:16]

    @cached_property
    def kin(self) -> str:
        """Sixteen hex digits of what quantisation leaves as it is: embeddings, norms and biases.

        A model has it in common with its quantised copies.
        """
        table = self.model.get_input_embeddings().weight
        kept = (p for p in self.model.parameters() if p is table or p.ndim < 2)
        return _digest(kept, self._kind)[:16]

    @property
    def _kind(self) -> str:
        return f"{self.model.config.model_type}{self.vocab_size}"


def weights_digest(model: nn.Module, kind: str) -> str:
    """Hex digits of a kind of model and a sample of its weights.

    Rounded to bfloat16 first, so that float32 and bfloat16 weights agree; float16 rounds otherwise.
    """
    return _digest(model.parameters(), kind)


def _digest(parameters: Iterable[Tensor], kind: str) -> str:
    digest = hashlib.sha256(kind.encode())
    for part in (part for parameter in parameters for part in parts_of(parameter)):
        numbers = part.detach().flatten()[:SAMPLED].to("cpu", torch.bfloat16)
        digest.update(numbers.view(torch.int16).numpy().tobytes())
    return digest.hexdigest()


def whole_cache(layers: Layers | None = None) -> "DynamicCache":
    """A cache that keeps every position, whatever windows the model has; masks know of those."""
    from transformers import DynamicCache

    return DynamicCache(layers)
