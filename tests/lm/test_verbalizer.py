"""Verbalizers: the answers of labels, and errors that name the fix."""

import pytest

from lightning_prompts.files.errors import PromptError
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.lm.verbalizer import Verbalizer, Words


def test_classes_are_in_the_given_order(lm: FrozenLM):
    verbalizer = Verbalizer({"1": " great", "0": " terrible"}, lm)
    assert verbalizer.labels == ("1", "0")
    assert verbalizer.token_ids == [lm.encode(" great")[0], lm.encode(" terrible")[0]]
    assert verbalizer.index("0") == verbalizer.index(0) == 1


def test_answers_may_have_several_tokens_and_labels_several_answers(lm: FrozenLM):
    verbalizer = Verbalizer({"0": " bad no", "1": [" great", " good"]}, lm)
    assert verbalizer.words == (" bad no", [" great", " good"])
    assert verbalizer.tokens[0] == [tuple(lm.encode(" bad no"))]
    assert [len(ids) for ids in verbalizer.tokens[1]] == [1, 1]
    assert str(verbalizer) == "'0': ' bad no' = ' bad' + ' ' + 'n' + 'o'; '1': ' great', ' good'"
    assert (verbalizer.depth, verbalizer.num_read) == (3, 3)


def test_a_forgotten_leading_space_is_said(lm: FrozenLM, caplog: pytest.LogCaptureFixture):
    caplog.set_level("INFO")
    Verbalizer({"0": "bad", "1": " great", "2": " a", "3": "no"}, lm)
    (message,) = caplog.messages
    for part in ("'bad' is 3 tokens", "'b' + 'a' + 'd'", "did you mean ' bad'"):
        assert part in message


def test_a_beginning_of_another_answer_is_refused_where_it_always_wins(lm: FrozenLM):
    words = {"0": " bad", "1": [" good", " bad no"]}
    with pytest.raises(PromptError, match=r"' bad' of label '0' begins ' bad no'.*never be"):
        Verbalizer(words, lm)
    assert Verbalizer(words, lm, "mean").score == "mean"
    assert Verbalizer({"0": [" bad", " bad no"], "1": " good"}, lm).depth == 3  # of one class


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ({"0": " bad"}, "at least two"),
        ({"0": " bad", "1": ""}, "empty"),
        ({True: " good", False: " bad"}, "quotes"),
        ({"0": " bad", "1": " bad"}, "same token"),
        ({"0": " no way", "1": [" bad", " no way"]}, "same token"),
        ({"0": " no", "1": [" bad", " bad"]}, "' bad' twice"),
        ({"0": " no", "1": []}, "empty list"),
        ({"0": " no", "1": [" bad", ""]}, "empty"),
        ({"0": " no", "1": " bad<|endoftext|>"}, "has the special token"),
        ({"0": " no", "1": "a" * 256}, "256 tokens.*256 positions"),
    ],
)
def test_other_bad_verbalizers_are_refused(lm: FrozenLM, words: Words, named: str):
    with pytest.raises(PromptError, match=named):
        Verbalizer(words, lm)


def test_an_unknown_label_is_named(lm: FrozenLM):
    with pytest.raises(PromptError, match=r"'2'.*'0', '1'"):
        Verbalizer({"0": " bad", "1": " good"}, lm).index("2")
