"""What the tests of `inspect` have in common: a run, its options, a float64 model."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from lightning_prompts.files.atomic_files import write_json
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.tuners.record import LMRecord
from tests.records import make_record

ROOT = Path(__file__).resolve().parents[2]
WORDS = {"negative": " terrible", "positive": " great"}
HOSTILE = "</code><script>alert(1)</script>"
LAST_TEMPLATE = "{text}{prompt}"


class Exact:
    """The tiny model in float64, with a prompt behind each text."""

    def __init__(self, lm: FrozenLM) -> None:
        self.lm, self.model = lm, copy.deepcopy(lm.model).double()
        self.table = lm.embedding_table.double()
        self.words = torch.tensor([lm.encode(word)[0] for word in WORDS.values()])

    @torch.no_grad()
    def shares(self, prompt: Tensor | list[int], texts: list[str]) -> Tensor:
        """[N, C] Log-probabilities of the answers."""
        rows = prompt if isinstance(prompt, Tensor) else self.table[prompt]
        found = []
        for text in texts:
            embeds = torch.cat([self.table[self.lm.encode(text)], rows.double()])
            logits = self.model(inputs_embeds=embeds[None]).logits[0, -1]
            found.append(logits[self.words].log_softmax(-1))
        return torch.stack(found)


def kl(one: Tensor, other: Tensor) -> float:
    return float(torch.nn.functional.kl_div(other, one, log_target=True, reduction="batchmean"))


def kappa(one: list[int], other: list[int]) -> float:
    """Of two classes, by its definition."""
    n = len(one)
    agreed = sum(a == b for a, b in zip(one, other, strict=True)) / n
    chance = sum(one.count(c) * other.count(c) for c in (0, 1)) / n**2
    return (agreed - chance) / (1 - chance) if chance < 1 else 0.0


def thresholded(shares: Tensor, unlabelled: Tensor) -> list[int]:
    """Answers whose threshold is the median of unlabelled differences."""
    differences = sorted((unlabelled[:, 1] - unlabelled[:, 0]).tolist())
    half = len(differences) // 2
    middle = (differences[half - 1] + differences[half]) / 2  # of an even number
    return [int(d > middle) for d in (shares[:, 1] - shares[:, 0]).tolist()]


def options(reviews: Path, lm_folder: Path, template: str = LAST_TEMPLATE) -> list[str]:
    given = ["--config", "configs/task/demo.yaml", "--data.path", str(reviews)]
    return [*given, f"--data.template={template}", "--lm.name", str(lm_folder), *PLAIN]


PLAIN = ("--trainer.precision", "32-true")


def as_tokens(folder: Path, lm: FrozenLM, text: str) -> None:
    """Make a run's prompt one of tokens."""
    ids = [lm.encode(character)[0] for character in text]
    record = json.loads((folder / "prompt.json").read_text())
    changed = {"ids": ids, "text": text, "tokens": [*text], "in_use": "tokens"}
    write_json(folder / "prompt.json", record | changed)


def a_run(folder: Path, lm: FrozenLM, lm_folder: Path, reviews: Path, vectors: Tensor) -> None:
    """What a fit of a soft prompt leaves."""
    content: dict[str, Any] = {}
    for name in ("tuner/soft.yaml", "task/demo.yaml"):
        content |= yaml.safe_load((ROOT / "configs" / name).read_text())
    content["data"]["init_args"] |= {"path": str(reviews), "template": LAST_TEMPLATE}
    content |= {"lm": {"name": str(lm_folder)}, "trainer": {"precision": "32-true"}}
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(content))
    ids = [lm.encode(character)[0] for character in "<b>"]
    about = {"text": "<b>", "ids": ids, "tokens": [*"<b>"], "template": LAST_TEMPLATE}
    record = make_record(lm=LMRecord.of(lm), in_use="vectors", verbalizer=WORDS, **about)
    write_json(folder / "prompt.json", record.to_json())
    torch.save({"state_dict": {"prompt": vectors}}, folder / "checkpoints/best.ckpt")


def quick(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What would be written: drawing takes a second, and is another test's."""
    seen: list[Any] = []
    keep = lambda found, folder: seen.append(found) or folder / "inspect.html"  # noqa: E731
    monkeypatch.setattr("lightning_prompts.studies.inspect.write", keep)
    return seen
