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
        shown = gallery.visible(prompt["text"])
        RECORDED += [(shown, found) for found in prompt["under"].values() if "accuracy" in found]


def test_the_page_is_what_its_data_give():
    written = gallery.PAGE.read_text(encoding="utf-8")
    assert written == gallery.page(), "run: python docs/gallery.py"
    tried = doctest.testmod(gallery)
    assert (tried.failed, tried.attempted) == (0, 1)


def test_every_text_is_read_by_its_models_and_no_other_is_kept():
    assert set(KNOWN) == {key for key, *_ in WANTED}
    assert len(WANTED) > 20


@pytest.mark.parametrize(("key", "text"), [(key, text) for key, _, text, _ in WANTED])
def test_a_reading_agrees_with_itself(key: str, text: str):
    reading = KNOWN[key]
    tokens, nats = reading["tokens"], reading["nats"]
    assert "".join(tokens) == text
    assert len(tokens) == len(nats)
    # Nats are kept to three decimals.
    assert math.log(reading["perplexity"]) == pytest.approx(sum(nats) / len(nats), abs=1e-3)
    assert reading["repetition"] == pytest.approx(1 - len(set(tokens)) / len(tokens), abs=1e-5)
    # The task is the best one in every frame only with a margin above 0.
    assert reading.get("task_rank", 8) > 1 or reading["task_margin"] > 0


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
    key, _, text, section = next(one for one in WANTED if one[1] == "smollm2")
    known = KNOWN[key]
    read = gallery.tokens_of(lm, text)
    assert read["tokens"] == known["tokens"]
    # Another processor rounds otherwise.
    assert read["nats"] == pytest.approx(known["nats"], abs=0.02)
    found = gallery.measured(lm, text, section, gallery.CHEAP)
    assert found == pytest.approx({name: known[name] for name in found}, abs=0.04)
    found = gallery.measured(lm, text, section, ["task_identification"])
    assert found["task_margin"] == pytest.approx(known["task_margin"], abs=0.02)
