"""Verbalizers: one token a label, and errors that name the fix."""

import pytest

from lightning_prompts.files.errors import PromptError
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.lm.verbalizer import Verbalizer


def test_classes_are_in_the_given_order(lm: FrozenLM):
    verbalizer = Verbalizer({"1": " great", "0": " terrible"}, lm)
    assert verbalizer.labels == ("1", "0")
    assert verbalizer.token_ids == [lm.encode(" great")[0], lm.encode(" terrible")[0]]
    assert verbalizer.index("0") == verbalizer.index(0) == 1


def test_a_word_of_several_tokens_is_explained(lm: FrozenLM):
    with pytest.raises(PromptError) as caught:
        Verbalizer({"0": "bad", "1": " great"}, lm)
    message = str(caught.value)
    for part in ("'bad' is 3 tokens", "'b' + 'a' + 'd'", "did you mean ' bad'", "' terrible'"):
        assert part in message
    alternatives = message.rsplit(":", 1)[1].split(",")
    assert len(alternatives) == 3


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ({"0": " bad"}, "at least two"),
        ({"0": " bad", "1": ""}, "empty"),
        ({True: " good", False: " bad"}, "quotes"),
        ({"0": " bad", "1": " bad"}, "same token"),
    ],
)
def test_other_bad_verbalizers_are_refused(lm: FrozenLM, words: dict[str, str], named: str):
    with pytest.raises(PromptError, match=named):
        Verbalizer(words, lm)


def test_an_unknown_label_is_named(lm: FrozenLM):
    with pytest.raises(PromptError, match=r"'2'.*'0', '1'"):
        Verbalizer({"0": " bad", "1": " good"}, lm).index("2")
