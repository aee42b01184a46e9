"""The panel by names: each measure as its own function has it, what is left out, and why."""

from dataclasses import asdict

import pytest

from lightning_prompts.files.errors import PromptError
from lightning_prompts.files.sentences import Registers
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.metrics.panel.answered import AnsweredRows
from lightning_prompts.metrics.panel.likelihood import grammar, natural_percentile
from lightning_prompts.metrics.panel.measures import (
    CHEAP,
    COSTLY,
    MEASURES,
    TaskFacts,
    chosen,
    scrutability_panel,
)
from lightning_prompts.metrics.panel.task_identification import task_identification
from lightning_prompts.metrics.panel.token_effects import token_effects

TEXT = " a warm film"


def test_each_value_is_its_own_functions(
    lm: FrozenLM, answered: AnsweredRows, registers: Registers
):
    answers = [" terrible", " great"]
    texts = ["A cold and funny film.", "a warm, warm day"]
    task = TaskFacts("sentiment", answers, texts, answered)
    said: list[str] = []
    cheap = scrutability_panel(lm, TEXT, task=task, say=said.append)
    ids = lm.encode(TEXT)
    effects = token_effects(answered)
    assert cheap == {
        "natural_percentile": natural_percentile(lm, ids),
        **asdict(task_identification(lm, ids, "sentiment", answers)),
        "grammar": grammar(lm, ids),
        "repetition": 1 - len(set(ids)) / len(ids),
        "real_words": 0.5,  # `warm` is in the sentences and the texts, `film` once in a text
        "copied_run": 7,  # ` a warm`, behind which stands a comma
    }
    costly = scrutability_panel(lm, ids, COSTLY[:1], task, say=said.append)
    assert costly == {
        name + end: value
        for name, (low, high) in effects.intervals.items()
        for end, value in (("", getattr(effects, name)), ("_low", low), ("_high", high))
    }
    assert set(costly) >= {"effect_of_tokens", "effect_of_order", "filler", "filler_low"}
    assert set(CHEAP) | set(COSTLY) == set(MEASURES)
    assert said == []


def test_tokens_and_text_are_one(lm: FrozenLM, registers: Registers):
    names = ("natural_percentile", "grammar", "repetition", "real_words")
    of_text, of_ids = (scrutability_panel(lm, prompt, names) for prompt in (TEXT, lm.encode(TEXT)))
    assert of_text == of_ids
    assert set(of_ids) == set(names)


def test_what_cannot_be_measured_is_left_out(lm: FrozenLM, registers: Registers):
    said: list[str] = []
    got = scrutability_panel(lm, TEXT, tuple(MEASURES), say=said.append)
    assert set(got) == {"natural_percentile", "grammar", "repetition", "real_words"}
    assert said == [
        "task_identification is left out: which of the described tasks this one is is not known; "
        "say so by task_kind.",
        "copied_run is left out: there are no training texts.",
        "token_effects is left out: there are no rows with labels that answer words stand for.",
        "simulatability is left out: there are no rows with labels that answer words stand for.",
    ]
    said.clear()
    assert scrutability_panel(lm, "", say=said.append) == {}
    assert said == ["The panel of scrutability is left out: the prompt's text is empty."]


def test_all_stands_for_every_measure():
    assert chosen("all") == chosen(["grammar", "all"]) == tuple(MEASURES)
    assert chosen(["grammar"]) == ("grammar",)
    assert chosen([]) == ()
    with pytest.raises(PromptError, match=r"^--panel names 'every', which is no measure"):
        chosen(["all", "every"], "--panel")


def test_an_unknown_name(lm: FrozenLM):
    with pytest.raises(
        PromptError,
        match=r"names 'beauty', which is no measure; give some of natural_percentile, .*"
        r"simulatability\.$",
    ):
        scrutability_panel(lm, TEXT, ["grammar", "beauty"])
