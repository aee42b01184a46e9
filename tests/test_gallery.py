"""The gallery is what its data give, and its accuracies stand where they are said to stand."""

import doctest
import importlib.util
import math
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_gallery", ROOT / "docs" / "gallery.py")
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


gallery = load()
KNOWN = gallery.kept()
WANTED = [(gallery.key_of(*one), *one) for one in gallery.wanted()]
RECORDED: list[tuple[str, dict[str, Any]]] = []
for section in gallery.prompts():
    for base in section.get("baselines", ()):
        RECORDED.append((base["name"].partition(",")[0], base))
    for prompt in section["prompts"]:
        texts = gallery.visible(prompt["text"])
        RECORDED += [(texts, recorded) for recorded in prompt["under"].values()]


def test_the_page_is_what_its_data_give():
    written = gallery.PAGE.read_text(encoding="utf-8")
    assert written == gallery.page(), "run: python docs/gallery.py"
    tried = doctest.testmod(gallery)
    assert (tried.failed, tried.attempted) == (0, 1)


def test_every_text_is_read_by_its_models_and_no_other_is_kept():
    assert set(KNOWN) == {key for key, *_ in WANTED}
    assert len(WANTED) > 25


@pytest.mark.parametrize(("key", "model", "text", "section"), WANTED, ids=[w[0] for w in WANTED])
def test_a_reading_agrees_with_itself(key: str, model: str, text: str, section: dict[str, Any]):
    reading = KNOWN[key]
    tokens, nats = reading["tokens"], reading["nats"]
    assert "".join(tokens) == text
    assert len(tokens) == len(nats)
    # Nats are kept to three decimals.
    assert math.log(reading["perplexity"]) == pytest.approx(sum(nats) / len(nats), abs=1e-3)
    assert reading["repetition"] == pytest.approx(1 - len(set(tokens)) / len(tokens), abs=1e-5)
    assert 1 <= reading["task_rank"] <= 8
    # Three ranks are all 1 where, and only where, the task is first in each frame.
    assert reading["task_rank"] > 1 or reading["task_margin"] > 0


def units(page: str) -> list[str]:
    """Lines of tables and whole paragraphs of a page, white space as one space."""
    text = (ROOT / page).read_text(encoding="utf-8")
    if page.endswith(".ipynb"):
        return [text]
    found = re.split(r"\n\s*\n|\n(?=\s*[|-])", text)
    return [re.sub(r"(?<=\S)\s*\n\s*", " ", unit) for unit in found]


@pytest.mark.parametrize(
    ("what", "recorded"), RECORDED, ids=[f"{w}-{r['page']}" for w, r in RECORDED]
)
def test_a_recorded_accuracy_stands_in_its_page(what: str, recorded: dict[str, Any]):
    page = recorded["page"]
    about = [unit for unit in units(page) if what.lower() in unit.lower()]
    assert about, "the page does not have the text"
    for number in ("accuracy", "recalibrated"):
        if number in recorded:
            shown = f"{recorded[number]:.3f}"
            assert any(re.search(rf"(?<![\d.]){shown}(?!\d)", unit) for unit in about), shown
    if "rows" in recorded:
        text = (ROOT / page).read_text(encoding="utf-8")
        assert re.search(rf"(?<![\d,]){recorded['rows']:,}(?![\d,])", text)


@pytest.mark.slow
def test_smollm2_still_reads_so():
    from lightning_prompts import FrozenLM

    lm = FrozenLM("smollm2")
    found = [one for one in WANTED if one[1] == "smollm2"]
    for key, _, text, section in (found[0], found[-1]):
        read, known = gallery.read(lm, text, section), KNOWN[key]
        assert read.keys() == known.keys()
        assert read["tokens"] == known["tokens"]
        assert read["nats"] == pytest.approx(known["nats"], abs=0.02)
        for name in read.keys() - {"tokens", "nats"}:
            # Another processor rounds otherwise: one stretch or one shuffle more or less.
            assert read[name] == pytest.approx(known[name], rel=0.02, abs=0.04), name
