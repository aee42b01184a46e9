"""The table of docs/models.md that says what a number means under a model."""

import re
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from lightning_prompts.lm.frozen import FrozenLM
from tests.conftest import ROOT
from tests.lm.model_numbers import cells, coming_back, share

MODELS = ("GPT-2", "SmolLM2", "Gemma 3")


def documented(model: str) -> dict[str, str]:
    """Row to cell of a model's column, those with something in them."""
    page = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    table = page[page.index("## What a number means") :]
    rows = [
        [cell.strip() for cell in line[1:-1].split(" | ")]
        for line in table.splitlines()
        if line.startswith("| ")
    ]
    column = rows[0].index(model)
    return {row[0]: row[column] for row in rows[2:] if row[column] != "-"}


def numbers(cell: str) -> list[float]:
    """Outside of tokens."""
    return [float(x) for x in re.findall(r"\d[\d.]*(?:e\d+)?", re.sub("`[^`]*`", "", cell))]


def agree(model: str, lm: FrozenLM) -> None:
    """Up to rounding, which is another on other machines."""
    written, found = documented(model), cells(lm)
    assert written.keys() == found.keys()
    for row, cell in written.items():
        assert numbers(cell) == pytest.approx(numbers(found[row]), rel=0.06), row
        assert re.findall("`[^`]*`", cell) == re.findall("`[^`]*`", found[row]), row


def test_gpt2s_tokens(shared_data: Path):
    tokenizer = AutoTokenizer.from_pretrained(shared_data / "gpt2_tokenizer")
    row = "ids that their own text gives back"
    assert documented("GPT-2") == {row: share(coming_back(tokenizer, len(tokenizer)))}


@pytest.mark.slow
def test_smollm2(smollm2_installed: None):
    agree("SmolLM2", FrozenLM("smollm2"))


@pytest.mark.slow
def test_gemma(gemma_installed: None):
    agree("Gemma 3", FrozenLM("gemma3-270m"))
