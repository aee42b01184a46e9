"""A learned prompt by itself, as a run left it: read, looked at and used without a trainer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from markupsafe import Markup
from torch import Tensor

from lightning_prompts.files.amounts import share
from lightning_prompts.files.errors import PromptError
from lightning_prompts.files.escaping import visible
from lightning_prompts.lm.batch import Example, collate, on_device
from lightning_prompts.lm.class_scores import class_scores
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.lm.template import Template
from lightning_prompts.lm.verbalizer import Verbalizer
from lightning_prompts.runs.folder import BEST, CHECKPOINTS, PROMPT, TEST
from lightning_prompts.runs.reading import add_test, read_prompt
from lightning_prompts.runs.shading import scales, shaded
from lightning_prompts.tuners.prompt_init import RECORD
from lightning_prompts.tuners.record import LMRecord, PromptRecord

SHOWN = ("accuracy", "hard_accuracy", "perplexity", "round_trip")  # in notebooks
PARAMETER = "prompt"  # the name of the vectors in a checkpoint
CSS = (
    ".tokens {display:flex; flex-wrap:wrap; gap:3px} .token {display:inline-grid; "
    "border:1px solid #bbb; min-width:2.3rem; text-align:center} .token b {font-weight:500; "
    "padding:.12rem .4rem; white-space:pre-wrap; color:#000} .token small {font-size:.68rem; "
    "padding:0 .3rem; border-top:1px solid #ddd; color:#222; background:#fff}"
)


@dataclass(frozen=True, eq=False)
class Prompt:
    """A learned prompt with the model, the template and the words that it belongs to.

    In a notebook it shows its tokens as a report does, shaded by surprise and distance.

    Dimensions: P prompt tokens, H hidden size.

    Attributes:
        lm: The frozen language model.
        embeddings: [P, H] What the model reads.
        template: Where text and prompt sit.
        verbalizer: The answers of each label.
        record: All that is known of it: a `RunRecord`, of a checkpoint less.
    """

    lm: FrozenLM
    embeddings: Tensor
    template: Template
    verbalizer: Verbalizer
    record: PromptRecord

    @property
    def text(self) -> str:
        """Its tokens as one text; of vectors, that of their nearest tokens."""
        return str(self.record.text)

    @property
    def ids(self) -> list[int]:
        """Of its tokens, or of the nearest tokens of its vectors."""
        return list(self.record.ids)

    @property
    def tokens(self) -> list[str]:
        """Each of them decoded alone."""
        return list(self.record.tokens)

    @property
    def nats(self) -> list[float] | None:
        """Surprise of each token under the language model, where it was measured."""
        return self.record.token_nats

    @property
    def distances(self) -> list[float] | None:
        """Cosine distance of each token to its vector, None where there is none."""
        return self.record.token_distances

    @property
    def metrics(self) -> dict[str, float]:
        """Of its validation (`val/accuracy`, ...), and of its test where there was one."""
        return dict(self.record.metrics)

    @torch.no_grad()
    def probabilities(
        self, rows: Sequence[str | Mapping[str, Any]], batch_size: int = 32
    ) -> list[dict[str, float]]:
        """How likely each label is for each row.

        Args:
            rows: Texts, where the template has one column; else mappings from column to value.
            batch_size: Rows that the model reads at once.

        Raises:
            PromptError: If a text stands for several columns, a column is missing, or a row is too
                long for the model.
        """
        room = self.lm.max_positions - len(self.embeddings) - self.verbalizer.depth
        examples = [self.template.encode(self._row(row), room) for row in rows]
        # Rows of like lengths together, so that little is padded.
        order = sorted(range(len(examples)), key=lambda i: _num_tokens(examples[i]))
        device = self.lm.embedding_table.device
        found: dict[int, dict[str, float]] = {}
        for start in range(0, len(order), batch_size):
            taken = order[start : start + batch_size]
            batch = collate([examples[i] for i in taken], [-1] * len(taken), taken)
            scores = class_scores(
                self.lm,
                self.template,
                self.verbalizer,
                self.embeddings[None],
                on_device(batch, device),
            )
            shares = scores[0].softmax(-1).tolist()
            found |= {
                i: dict(zip(self.verbalizer.labels, row, strict=True))
                for i, row in zip(taken, shares, strict=True)
            }
        return [found[i] for i in range(len(examples))]

    def classify(self, rows: Sequence[str | Mapping[str, Any]], batch_size: int = 32) -> list[str]:
        """The likeliest label of each row; arguments and errors as of `probabilities`."""
        each = self.probabilities(rows, batch_size)
        return [max(shares, key=shares.__getitem__) for shares in each]

    def _row(self, row: str | Mapping[str, Any]) -> Mapping[str, Any]:
        columns = self.template.columns
        if isinstance(row, str):
            if len(columns) > 1:
                raise PromptError(
                    f"The template has the columns {', '.join(columns)}; give each row as a "
                    "mapping from these to texts."
                )
            return {columns[0]: row}
        return row

    def __repr__(self) -> str:
        in_use = "vectors near" if self.record.soft_in_use else "tokens"
        return f"<Prompt of {len(self.embeddings)} {in_use} {self.text!r} for {self.lm.label}>"

    def _repr_html_(self) -> str:
        """For notebooks."""
        shown = [f"{stage}/{name}" for stage in ("val", "test") for name in SHOWN]
        metrics = ", ".join(
            f"{name} {share(self.metrics[name])}" for name in shown if name in self.metrics
        )
        kind = "nearest tokens of its vectors" if self.record.soft_in_use else "tokens in use"
        head = f"{self.record.tuner}, {self.lm.label}: {kind}, shaded by surprise in nats"
        page = Markup("<style>{}</style><div><b>{}</b>{}<small>{}</small></div>")
        tokens = shaded(self.record, *scales([self.record]))
        return str(page.format(Markup(CSS), visible(head), tokens, metrics))


def load_prompt(where: str | Path, lm: FrozenLM | None = None) -> Prompt:
    """The best prompt of a run, or the prompt of a file.

    Args:
        where: A run's folder, its prompt.json, or a checkpoint, whatever logger the run had.
        lm: The language model that it was learned for, where it is in memory already; by default it
            is loaded by the name that the run had for it, and texts begin as they did there.

    Raises:
        PromptError: If there is no prompt, it is damaged, or it belongs to another model.
    """
    path, record, content = _found(where)
    if lm is None:
        of = record.lm
        lm = FrozenLM(of.name, of.revision, quantize=of.quantize, add_bos=of.begins)
    if not record.lm.fits(LMRecord.of(lm)):
        raise PromptError(
            f"{where} is of {record.lm.label} (weights {record.lm.fingerprint}), but "
            f"the model given is {lm.label} (weights {lm.fingerprint}); give the one that it was "
            "learned for."
        )
    if record.lm.add_bos not in (None, begins := bool(lm.prefix_ids)):
        raise PromptError(
            f"{where} was learned {'without' if begins else 'with'} a BOS token before each text, "
            f"and the model given is loaded {'with' if begins else 'without'} it; load it with "
            f"add_bos={record.lm.add_bos}."
        )
    device = lm.embedding_table.device
    if record.soft_in_use:
        embeddings = _vectors_beside(path, content).to(device)
    else:
        embeddings = lm.embed(torch.tensor(record.ids, dtype=torch.long, device=device))
    verbalizer = Verbalizer(record.verbalizer, lm, record.answer_score)
    return Prompt(lm, embeddings, Template(record.template, lm), verbalizer, record)


def read_record(where: str | Path) -> PromptRecord:
    """What is known of the prompt that `load_prompt` would load, without its model.

    Raises:
        PromptError: If there is no prompt, or it is damaged.
    """
    return _found(where)[1]


def read_vectors_of(where: str | Path) -> Tensor:
    """[P, H] The vectors that `load_prompt` would load, of a prompt whose vectors are in use.

    Raises:
        PromptError: If there are none, or they are damaged.
    """
    path, _, content = _found(where)
    return _vectors_beside(path, content)


def _vectors_beside(path: Path, content: Mapping[str, Any]) -> Tensor:
    """Of a checkpoint whose content was read, or of the run that a prompt.json is of."""
    file = path if content else path.parent / CHECKPOINTS / BEST
    return _vectors(file, content or _read(file))


def _found(where: str | Path) -> tuple[Path, PromptRecord, dict[str, Any]]:
    """The file of a prompt, its record, and of a checkpoint all that it holds."""
    path = Path(where)
    if path.is_dir():
        path /= PROMPT
    if not path.is_file():
        raise PromptError(
            f"{where}: no prompt is there; give a run's folder, its {PROMPT} or a checkpoint, for "
            "example logs/soft-demo/version_0."
        )
    if path.suffix == ".ckpt":
        content = _read(path)
        return path, _of_checkpoint(path, content), content
    record = read_prompt(path)
    add_test(record, path.with_name(TEST))
    return path, record, {}


def _num_tokens(example: Example) -> int:
    return len(example.before_ids) + len(example.after_ids)


def _read(path: Path) -> dict[str, Any]:
    """All that a checkpoint holds."""
    try:
        return dict(torch.load(path, weights_only=True, map_location="cpu"))
    except Exception as error:  # a damaged byte may raise anything
        raise PromptError(
            f"{path} is missing, damaged, or lightning-prompts did not write it; copy it from the "
            "run, or give the run's folder."
        ) from error


def _of_checkpoint(path: Path, content: Mapping[str, Any]) -> PromptRecord:
    """What a checkpoint says, which has not measured the single tokens."""
    record = PromptRecord.from_json(content.get(RECORD, {}))
    if not record.in_use:
        raise PromptError(
            f"{path} does not say whether its vectors or its tokens are the prompt, as it is of an "
            "earlier version; give the run's folder."
        )
    return record


def _vectors(path: Path, content: Mapping[str, Any]) -> Tensor:
    """[P, H] The vectors of a checkpoint."""
    vectors = content.get("state_dict", {}).get(PARAMETER)
    if vectors is None:
        raise PromptError(
            f"{path} has no {PARAMETER!r}, which the vectors of a tuner are called; name the "
            "tuner's parameter so."
        )
    return vectors.detach()
