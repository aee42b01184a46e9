"""How much of a text's content another text keeps: BERTScore, rescaled.

Zhang et al. 2020, "BERTScore" (https://arxiv.org/abs/1904.09675), rescaled as in section 5 of it.
"""

import contextlib
import hashlib
import json
from collections.abc import Sequence
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_prompts.files import reviews
from lightning_prompts.files.atomic_files import write_json
from lightning_prompts.lm.backbone import Backbone, weights_digest
from lightning_prompts.lm.features import hidden_states, num_layers, resolve_layer, text_states
from lightning_prompts.lm.known_tokens import refuse_unread
from lightning_prompts.lm.loading import load_encoder
from lightning_prompts.lm.sources import cache_folder

# Encoder to its layer and the mean F1 of random pairs there, from bert-score's released file
# rescale_baseline/en/roberta-large.tsv.
PUBLISHED = {"roberta-large": (17, 0.83122575), "FacebookAI/roberta-large": (17, 0.83122575)}
# Shares of the depth. Encoders: near what bert-score found best for most (17 of 24, 9 of 12).
ENCODER_LAYER, LM_LAYER = 0.7, 0.5
# Random pairs behind a baseline that was not published.
PAIRS = 1000


class ContentScore:
    """Content that outputs share with their sources, 0 to 100.

    100 max(0, (F1 - b) / (1 - b)), F1 of BERTScore and b the mean F1 of random pairs: without b
    anything has an F1 near 0.9, and more so under a causal model. A causal model sees only what is
    left of a token, so its middle layer stands in where there is no encoder.

    Args:
        lm: The task's frozen language model: the encoder where none is named; gives the device.
        encoder: A Hugging Face encoder by hub id or local folder, e.g. `roberta-large`.
        layer: Layers of the encoder to run: a number, or a share below 1; by default the published
            one, else the middle of a language model and 0.7 of an encoder.
        sentences: Where b is computed, what the pairs are drawn from; by default the package's
            reviews.

    Raises:
        PromptError: If the encoder cannot be reached or read, or has no such layer.
    """

    def __init__(
        self,
        lm: Backbone,
        encoder: str | None = None,
        layer: float | None = None,
        sentences: Sequence[str] | None = None,
    ) -> None:
        self.lm, self.name = lm, encoder or lm.label
        self._sentences = sentences
        self._published: float | None = None
        if encoder is None:
            self.model, self._tokenizer = lm.body, None
            self.layer = resolve_layer(layer, num_layers(self.model), LM_LAYER)
            return
        self.model, self._tokenizer = load_encoder(encoder)
        default, published = PUBLISHED.get(encoder, (ENCODER_LAYER, None))
        self.layer = resolve_layer(default if layer is None else layer, num_layers(self.model))
        if self.layer == default:
            self._published = published

    @torch.no_grad()
    def __call__(self, outputs: Sequence[str], sources: Sequence[str]) -> Tensor:
        """Content of each output, under the caller's autocast; equal pairs are scored once.

        Args:
            outputs: N texts.
            sources: N texts, what each output was made from.

        Returns:
            [N] 0 to 100, float32; 0 where either text is empty.
        """
        pairs = list(zip(outputs, sources, strict=True))
        whole = dict.fromkeys(p for p in pairs if p[0].strip() and p[1].strip())
        scores = dict.fromkeys(pairs, 0.0)
        if whole:
            b = self.baseline
            f1 = self._f1(list(whole))
            scores |= zip(whole, (100 * (f1 - b) / (1 - b)).clamp(0, 100).tolist(), strict=True)
        device = self.lm.embedding_table.device
        return torch.tensor([scores[pair] for pair in pairs], device=device)

    @cached_property
    def baseline(self) -> float:
        """Mean F1 of random pairs: published, remembered in the user's cache, or computed now.

        In float32 without autocast, so that what is remembered is the same for all precisions.
        """
        if self._published is not None:
            return self._published
        sentences = list(reviews.texts() if self._sentences is None else self._sentences)
        digest = weights_digest(self.model, type(self.model).__name__)
        key = "\n".join([digest, str(self.layer), str(PAIRS), *sentences])
        name = hashlib.sha256(key.encode()).hexdigest()[:16]
        file = cache_folder() / "content" / f"{name}.json"
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            return float(json.loads(file.read_text(encoding="utf-8"))["f1"])
        drawn = random_pairs(len(sentences), PAIRS)
        with torch.autocast(self.lm.embedding_table.device.type, enabled=False):
            f1 = float(self._f1([(sentences[i], sentences[j]) for i, j in drawn]).mean())
        # Where it cannot be written it is computed again.
        with contextlib.suppress(OSError):
            write_json(file, {"f1": f1, "encoder": self.name, "layer": self.layer, "pairs": PAIRS})
        return f1

    def _f1(self, pairs: Sequence[tuple[str, str]]) -> Tensor:
        """[N] F1 of pairs of texts; each distinct text is encoded once."""
        texts = list(dict.fromkeys(text for pair in pairs for text in pair))
        states = dict(zip(texts, self._encode(texts), strict=True))
        return pair_f1([(states[output], states[source]) for output, source in pairs])

    def _encode(self, texts: Sequence[str]) -> list[Tensor]:
        """States [n, H] of each text with one special token before and one after it."""
        if self._tokenizer is None:
            states = text_states(self.lm, texts, self.layer, bos=True, eos=True)
        else:
            tokenizer = self._tokenizer
            special = [tokenizer.cls_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id]
            first = next((i for i in special if i is not None), 0)
            special = [tokenizer.sep_token_id, tokenizer.eos_token_id, first]
            last = next(i for i in special if i is not None)
            # RoBERTa has two positions fewer than it says, and two tokens are special.
            positions = self.model.config.max_position_embeddings - 2
            room = min(tokenizer.model_max_length, positions) - 2
            encoded = tokenizer(list(texts), add_special_tokens=False).input_ids
            num_rows = self.model.get_input_embeddings().weight.shape[0]
            for text, ids in zip(texts, encoded, strict=True):
                refuse_unread(tokenizer, text, ids, num_rows, self.name)
            rows = [[first, *ids[:room], last] for ids in encoded]
            self.model.to(self.lm.embedding_table.device)
            pad_id = last if tokenizer.pad_token_id is None else tokenizer.pad_token_id
            states = hidden_states(self.model, rows, self.layer, pad_id)
        return [state.cpu() for state in states]  # where a pair's few numbers are compared sooner


def pair_f1(pairs: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """BERTScore's F1 of pairs of texts.

    Each token is matched with the most similar one of the other text, by cosine, and counts 0 where
    all are below; precision is the mean over the output's tokens, recall over the source's.

    Args:
        pairs: N outputs and sources: states [n, H], the first and the last of which stand for
            special tokens and are left out. At least one other token each.

    Returns:
        [N] In [0, 1], float32.
    """
    found = []
    with torch.autocast("cpu", enabled=False):
        for pair in pairs:
            output, source = (F.normalize(states[1:-1].float(), dim=-1) for states in pair)
            similar = (output @ source.T).clamp(min=0)
            precision, recall = similar.amax(1).mean(), similar.amax(0).mean()
            found.append(2 * precision * recall / (precision + recall))
    return torch.stack(found).nan_to_num(0.0)  # of texts that have nothing in common


def random_pairs(count: int, pairs: int) -> list[tuple[int, int]]:
    """Pairs of different indices below `count`, the same at each call.

    Raises:
        ValueError: If there are no two.
    """
    if count < 2:
        raise ValueError(f"count is {count}; a pair needs two different sentences.")
    generator = torch.Generator().manual_seed(0)
    first = torch.randint(count, (pairs,), generator=generator)
    step = torch.randint(1, count, (pairs,), generator=generator)
    return list(zip(first.tolist(), ((first + step) % count).tolist(), strict=True))
