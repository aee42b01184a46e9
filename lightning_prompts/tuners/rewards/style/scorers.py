"""Which style a text is written in: trained heads on the frozen language model, or classifiers.

A head lies in a folder: its weights in `head.safetensors`, all else in `style.json`.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol, get_args

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lightning_prompts.files.errors import PromptError
from lightning_prompts.files.text import looks_like_path
from lightning_prompts.lm.features import Pooling, num_layers, pooled_states
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.lm.known_tokens import refuse_unread
from lightning_prompts.lm.loading import load_text_classifier

WEIGHTS, DESCRIPTION = "head.safetensors", "style.json"
# Texts that a whole classifier reads at once.
CLASSIFIER_BATCH = 64


class StyleScorer(Protocol):
    """Probability of each style for N texts.

    Attributes:
        name: What to call it in tables.
        labels: Names of its C styles, in the order of its columns.
        accuracy: Share of the test sentences that it got right when it was made; None if unknown.
    """

    name: str
    labels: tuple[str, ...]
    accuracy: float | None

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """[N, C] Probabilities, float32; each row adds up to 1."""


@dataclass(frozen=True)
class StyleHead:
    """What a head in a folder reads, and how well.

    Attributes:
        labels: Names of the C styles.
        layer: Layers of the language model that it reads, from 1.
        pooling: How the states of a text's tokens become one vector.
        lm: The language model's name, for people.
        fingerprint: Of the language model's weights.
        trained_on: The split and the rows that it was trained on, for people.
        rows: How many they were.
        seed: Of the rows drawn and of their order.
        accuracy: Share of the test sentences that it got right; None before a test.
    """

    labels: tuple[str, ...]
    layer: int
    pooling: Pooling
    lm: str
    fingerprint: str
    trained_on: str = ""
    rows: int = 0
    seed: int = 0
    accuracy: float | None = None


def head_logits(vectors: Tensor, head: nn.Linear) -> Tensor:
    """Logits of the styles, float32 whatever the caller's autocast.

    Args:
        vectors: [N, H] Pooled states. Each is standardised over H first: a causal model's states
            have a few dimensions hundreds of times as large as the rest.
        head: From H to C.

    Returns:
        [N, C]
    """
    with torch.autocast(vectors.device.type, enabled=False):
        vectors = F.layer_norm(vectors.float(), vectors.shape[-1:])
        return F.linear(vectors, head.weight, head.bias)


class HeadScorer:
    """A `StyleScorer` of the frozen language model's own states and a linear head.

    Args:
        lm: The frozen language model, shared with the task.
        head: From H to C, trained.
        described: What it reads.
        name: What to call it.
    """

    def __init__(self, lm: FrozenLM, head: nn.Linear, described: StyleHead, name: str) -> None:
        self.lm, self.head, self.described = lm, head, described
        self.name, self.labels, self.accuracy = name, described.labels, described.accuracy

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> Tensor:
        """[N, C] Probabilities, under the caller's autocast; equal texts are read once."""
        places = {text: i for i, text in enumerate(dict.fromkeys(texts))}
        vectors = pooled_states(self.lm, list(places), self.described.layer, self.described.pooling)
        self.head.to(vectors.device)  # it follows the model that Lightning moved
        found = head_logits(vectors, self.head).softmax(-1)
        return found[[places[text] for text in texts]]


class ClassifierScorer:
    """A `StyleScorer` of a Hugging Face text classifier.

    Args:
        source: Local folder or hub id.
        lm: Whose device it works on.
    """

    accuracy: float | None = None

    def __init__(self, source: str, lm: FrozenLM) -> None:
        self.name, self.lm = source, lm
        self.model, self.tokenizer = load_text_classifier(source)
        # A causal classifier answers at the last token that is no padding.
        self.model.config.pad_token_id = self.tokenizer.pad_token_id
        names = getattr(self.model.config, "id2label", None) or {}
        self.labels = tuple(str(names.get(i, i)) for i in range(self.model.config.num_labels))
        if len(self.labels) < 2:
            raise PromptError(
                f"Style classifier {source}: it has {len(self.labels)} label, so it tells no "
                "styles apart; give one that was trained on two or more."
            )

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> Tensor:
        """[N, C] Probabilities, under the caller's autocast."""
        device = self.lm.embedding_table.device
        self.model.to(device)
        num_rows = self.model.get_input_embeddings().weight.shape[0]
        found = torch.empty(len(texts), len(self.labels), device=device)
        order = torch.tensor(sorted(range(len(texts)), key=lambda i: len(texts[i])))
        pads = self.tokenizer.pad_token_id is not None
        for indices in order.split(CLASSIFIER_BATCH if pads else 1) if len(texts) else ():
            some = [texts[i] for i in indices]
            inputs = self.tokenizer(some, padding=pads, truncation=True, return_tensors="pt")
            for text, ids in zip(some, inputs["input_ids"].tolist(), strict=True):
                refuse_unread(self.tokenizer, text, ids, num_rows, self.name)
            logits = self.model(**{key: value.to(device) for key, value in inputs.items()}).logits
            found[indices.to(device)] = logits.float().softmax(-1)
        return found


def load_style(source: str, lm: FrozenLM) -> StyleScorer:
    """A style classifier, ready to score.

    Args:
        source: A folder that `lightning-prompts style` wrote, or a Hugging Face text classifier by
            local folder or hub id.
        lm: The task's language model: it is what a trained head reads, and is not loaded again.

    Raises:
        PromptError: If there is none, it is damaged, or it was trained on another language model.
    """
    folder = Path(source).expanduser()
    if not folder.exists() and looks_like_path(source):
        raise PromptError(
            f"Style classifier {source}: no such folder; train one with: lightning-prompts style "
            "--config configs/task/yelp_style.yaml"
        )
    if not (folder / DESCRIPTION).is_file():
        return ClassifierScorer(source, lm)
    try:
        content = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        described = StyleHead(**{**content, "labels": tuple(content["labels"])})
        weights = load_file(folder / WEIGHTS)
        head = nn.Linear(weights["weight"].shape[1], len(described.labels))
        sound = described.pooling in get_args(Pooling)
        if sound and described.fingerprint == lm.fingerprint:
            sound = 1 <= described.layer <= num_layers(lm.model) and head.in_features == (
                lm.state_size
            )
        head.load_state_dict(weights)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise PromptError(_damaged(folder)) from error
    if not sound:
        raise PromptError(_damaged(folder))
    if described.fingerprint != lm.fingerprint:
        raise PromptError(
            f"Style classifier {source} reads {described.lm} (weights {described.fingerprint}), "
            f"not {lm.label} ({lm.fingerprint}); train one with: lightning-prompts style "
            f"--lm.name {lm.name}"
        )
    return HeadScorer(lm, head.requires_grad_(False), described, name=source)


def save_style(folder: Path, head: nn.Linear, described: StyleHead) -> None:
    """Write a head to a folder; one that is there is replaced as a whole.

    Raises:
        PromptError: If the folder cannot be written, or holds anything else.
    """
    others = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    if foreign := sorted(set(others) - {WEIGHTS, DESCRIPTION}):
        raise PromptError(
            f"{folder} holds {foreign[0]}, which is no part of a style classifier; move it away or "
            "name another folder."
        )
    partial: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        weights = {k: v.detach().float().cpu().contiguous() for k, v in head.state_dict().items()}
        save_file(weights, partial / WEIGHTS)
        written = json.dumps(asdict(described), indent=2, ensure_ascii=False) + "\n"
        (partial / DESCRIPTION).write_text(written, encoding="utf-8")
        partial.chmod(0o755)  # mkdtemp's own is for nobody else
        # A folder cannot be exchanged in one step where it has content; readers of the short gap
        # find none, never half of one.
        if folder.is_dir():
            shutil.rmtree(folder)
        os.replace(partial, folder)
    except OSError as error:
        raise PromptError(
            f"The style classifier's folder {folder} cannot be written ({error.strerror}); choose "
            "another one, or free some space."
        ) from error
    finally:
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)


def _damaged(folder: Path) -> str:
    return (
        f"The style classifier in {folder} is damaged or was written by another version; train it "
        "again with: lightning-prompts style"
    )
