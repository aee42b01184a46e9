"""A readable twin of a soft prompt: tokens whose answers are the vectors', row by row.

After evil twins (Melamed et al. 2023, arXiv:2311.07064), where the loss is the KL divergence from
what a prompt makes a model write to what its twin does. Ours is that the prompt is vectors, that
the distributions are over a task's answers, and that the twin is to be readable.

Dimensions: K prompts, P prompt tokens, H hidden size, B examples, C classes.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_prompts.files.checkpoints import BEST, CHECKPOINTS
from lightning_prompts.files.errors import PromptError
from lightning_prompts.files.numbers import in_double
from lightning_prompts.files.stages import Stage
from lightning_prompts.lm.batch import Batch, take
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.metrics.agreement import MATCH_KL, row_kl
from lightning_prompts.tuners.prompt_init import RECORD, UNREADABLE
from lightning_prompts.tuners.record import PromptRecord, settings
from lightning_prompts.tuners.rewards.base import Reduce
from lightning_prompts.tuners.rewards.classification import ClassificationGap, GapMeasures
from lightning_prompts.tuners.vectors import ADAPTER_CONFIG, TENSORS, fitting_rows, read_vectors

OPTION = "--model.match"


class AnswerMatch(ClassificationGap):
    """What a row loses is the KL from the answers under a soft prompt to those under a candidate.

    KL(p || q) = sum_c p_c log(p_c / q_c) in nats, p and q the softmax of the classes' scores. No
    label counts. What the vectors answer never changes, so a row is read with them once.

    Args:
        vectors: [P, H] The soft prompt.
    """

    def __init__(self, vectors: Tensor) -> None:
        super().__init__()
        self.vectors = vectors
        self._known: dict[int, list[float]] = {}  # [C] log-probabilities by what names a row

    @torch.no_grad()
    def read(self, batch: Batch) -> int:
        """Score the rows that are new with the vectors; returns how many tokens that has read."""
        names = list(map(_name, batch["texts"]))
        new = [i for i, name in enumerate(names) if name not in self._known]
        if not new:
            return 0
        rows = batch if len(new) == len(names) else take(batch, new)
        prompts = self.vectors.to(batch["labels"].device)[None]
        log_shares = in_double(self.class_logits(prompts, rows)[0]).log_softmax(-1)
        # As Python's floats: a tensor that an evaluation has made cannot be trained with.
        self._known |= zip((names[i] for i in new), log_shares.tolist(), strict=True)
        return self.num_tokens(prompts[..., 0], rows)

    def log_shares(self, batch: Batch) -> Tensor:
        """[B, C] Log-probabilities of the answers under the vectors, float64 where there is."""
        self.read(batch)
        device = batch["labels"].device
        found = [self._known[_name(texts)] for texts in batch["texts"]]
        return in_double(torch.tensor(found, dtype=torch.float64), device).to(device)

    def share(self, batch: Batch, own: range, count: int, reduce: Reduce) -> None:
        """Exchange a step's rows, so that none is read twice, whichever process has it next.

        Args:
            batch: This process's rows.
            own: Their places among those of all processes.
            count: Rows of all processes.
            reduce: Sums over processes.
        """
        device, slots = batch["labels"].device, slice(own.start, own.stop)
        names = torch.zeros(count, dtype=torch.long, device=device)
        shares = in_double(torch.zeros(count, len(self.verbalizer.labels), device=device))
        if own:
            names[slots] = torch.tensor(list(map(_name, batch["texts"])), device=device)
            shares[slots] = self.log_shares(batch)
        everyones = zip(reduce(names).tolist(), reduce(shares).tolist(), strict=True)
        for name, found in everyones:
            self._known.setdefault(name, found)

    def row_losses(self, logits: Tensor, batch: Batch) -> Tensor:
        """[K, B] KL in nats."""
        return row_kl(self.log_shares(batch), in_double(logits).log_softmax(-1))

    def measures(self, stage: Stage, reduce: Reduce) -> GapMeasures:
        """With the KL."""
        return _MatchMeasures(self, reduce)

    # ---- checkpoints

    def state_dict(self) -> dict[str, Tensor]:
        """The vectors, and what they have answered so far.

        So that a run that goes on has the same numbers: those of other batches differ in rounding.
        """
        shares = list(self._known.values())
        return {
            "vectors": self.vectors,
            "rows": torch.tensor(list(self._known), dtype=torch.int64),
            "log_shares": torch.tensor(shares, dtype=torch.float64),
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """As saved."""
        rows, shares = state["rows"].tolist(), state["log_shares"].tolist()
        self._known = dict(zip(rows, shares, strict=True))


class _MatchMeasures(GapMeasures):
    def of_rows(self, logits: Tensor, batch: Batch) -> dict[str, Tensor]:
        found = super().of_rows(logits, batch)
        return {**found, MATCH_KL: self.reward.row_losses(logits, batch)}


def _name(texts: tuple[str, str]) -> int:
    """Names a row by what it has on both sides of the prompt, whatever split it is in."""
    digest = hashlib.blake2b(repr(texts).encode("utf-8", "surrogatepass"), digest_size=8)
    return int.from_bytes(digest.digest(), "little", signed=True)


def read_target(where: str, lm: FrozenLM, own: PromptRecord) -> Tensor:
    """[P, H] The prompt in use of an earlier run, float32.

    Args:
        where: A run's folder, its prompt.json or a checkpoint; or vectors that were learned
            elsewhere, as `FromCheckpoint` reads them, which say nothing of template and answers.
        lm: The language model that is to read it.
        own: What a prompt of this run belongs to.

    Raises:
        PromptError: If there is none, or it is of another model, template or other answers.
    """
    path = Path(where).expanduser()
    if path.suffix in TENSORS or (path / ADAPTER_CONFIG).is_file():
        return fitting_rows(read_vectors(where), where, lm)
    record, rows = _read(path / CHECKPOINTS / BEST if path.is_dir() else path)
    for name, option, there, here in settings(record, own):
        if there != here:
            raise PromptError(
                f"{OPTION} {where}: the prompt's {name} is {there!r} but this run's is {here!r}; "
                f"set {option} to the prompt's, or give another prompt."
            )
    if rows is None:
        rows = lm.embed(torch.tensor(record.ids, device=lm.embedding_table.device))
    return rows.detach().float().cpu().clone()


def _read(path: Path) -> tuple[PromptRecord, Tensor | None]:
    """A prompt's record, and its vectors unless tokens are in use."""
    if not path.is_file():
        raise PromptError(
            f"{OPTION}: {path} is not there; give a run's folder, for example "
            "logs/soft-demo/version_0, or a checkpoint."
        )
    try:
        if path.suffix == ".json":
            record = PromptRecord.from_json(json.loads(path.read_text(encoding="utf-8")))
            rows = None
        else:
            saved: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            record = PromptRecord.from_json(saved[RECORD])
            rows = saved["state_dict"].get("prompt")
    except UNREADABLE as error:
        raise PromptError(f"{path} is damaged, or lightning-prompts did not write it.") from error
    if record.in_use == "tokens":
        return record, None
    # Of vectors a prompt.json has the nearest tokens alone.
    return _read(path.parent / CHECKPOINTS / BEST) if path.suffix == ".json" else (record, rows)
