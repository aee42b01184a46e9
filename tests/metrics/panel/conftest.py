"""A float64 reference that reads one row at a time, sentences, and rows that were answered."""

import copy
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lightning_prompts.files.sentences import Registers
from lightning_prompts.lm.batch import collate
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.lm.template import Template
from lightning_prompts.lm.verbalizer import Verbalizer
from lightning_prompts.metrics.panel.answered import AnsweredRows
from tests.tiny import save_model

TEMPLATE = "{prompt} {text} It was"


class Exact:
    """A language model in float64, a row a pass, whole."""

    def __init__(self, lm: FrozenLM) -> None:
        self.model = copy.deepcopy(lm.model).double()
        self.tokenizer = lm.tokenizer

    def ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False).input_ids

    def log_p(self, context: Sequence[int], continuation: Sequence[int]) -> list[float]:
        """Of each token of a continuation behind a context of one token at least."""
        with torch.no_grad():
            logits = self.model(torch.tensor([[*context, *continuation]])).logits[0]
        found = logits[len(context) - 1 : -1].log_softmax(-1)
        return [float(row[token]) for row, token in zip(found, continuation, strict=True)]

    def nats(self, ids: Sequence[int]) -> float:
        """Of a whole text after BOS."""
        return -sum(self.log_p([self.tokenizer.bos_token_id], ids))

    def log_shares(self, row: Sequence[int], answers: Sequence[str]) -> Tensor:
        """[C] Log-probabilities among answers of one token each."""
        with torch.no_grad():
            logits = self.model(torch.tensor([list(row)])).logits[0, -1]
        tokens = [self.ids(answer)[0] for answer in answers]
        return logits[tokens].log_softmax(-1)


@pytest.fixture(scope="session")
def exact(lm: FrozenLM) -> Exact:
    return Exact(lm)


@pytest.fixture(scope="session")
def short(tmp_path_factory: pytest.TempPathFactory) -> FrozenLM:
    """A second model, of 64 positions."""
    folder = tmp_path_factory.mktemp("short")
    save_model(folder, seed=1, positions=64)
    return FrozenLM(str(folder))


@pytest.fixture
def registers(monkeypatch: pytest.MonkeyPatch) -> Registers:
    """Three registers of thirty sentences of other lengths, in place of the package's."""
    words = ("the river", "a bus", "my aunt", "nobody", "this lamp", "our street")
    acts = ("was late", "ran on", "lost it all again", "sang", "is far too warm for May")
    made = [f"{w} {a}." for a in acts for w in words]
    found = tuple(tuple(f"{start} {one}" for one in made) for start in ("So", "I think", "Put:"))
    monkeypatch.setattr("lightning_prompts.files.sentences.registers", lambda: found)
    return found


def read(folder: Path, split: str) -> list[tuple[str, int]]:
    lines = (folder / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return [(row["text"], int(row["label"] == "positive")) for row in rows]


@pytest.fixture(scope="session")
def answered(lm: FrozenLM, review_folder: Path) -> AnsweredRows:
    """Eight test rows, and nine training rows to recalibrate on, in two batches each."""
    template = Template(TEMPLATE, lm)
    verbalizer = Verbalizer({"negative": " terrible", "positive": " great"}, lm)

    def batches(rows: list[tuple[str, int]]) -> list[object]:
        examples = [template.encode({"text": text}) for text, _ in rows]
        labels, numbers = [label for _, label in rows], list(range(len(rows)))
        cut = len(rows) // 2 + 1
        return [
            collate(examples[part], labels[part], numbers[part])
            for part in (slice(cut), slice(cut, None))
        ]

    rows, others = read(review_folder, "test"), read(review_folder, "train")[:9]
    return AnsweredRows(
        *(lm, template, verbalizer, lm.encode(" a film")),
        batches=batches(rows),
        texts=[text for text, _ in rows],
        answers=torch.tensor([0, 1, 1, 0, 1, 0, 0, 1]),
        unlabelled=batches(others),
        unlabelled_texts=[text for text, _ in others],
    )
