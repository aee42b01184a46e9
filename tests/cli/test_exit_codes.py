"""How commands end that could not do what they were asked for."""

import pytest

from lightning_prompts.cli.exit_codes import MISTAKE, ending
from lightning_prompts.files.errors import PromptError

GONE = "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PromptError("Do this."), "Do this."),
        (FileNotFoundError(2, "No such file", "a"), "a: No such file (--debug shows where)."),
        # The other processes, where one of them has ended with its own sentence.
        (RuntimeError(GONE), f"The processes cannot meet, or lost one another ({GONE})."),
    ],
)
def test_a_mistake_ends_in_a_sentence(error: Exception, said: str):
    assert ending(error, debug=False) == (MISTAKE, said)
    assert ending(error, debug=True) is None


@pytest.mark.parametrize("error", [RuntimeError("a bug"), KeyError("a"), ValueError("b")])
def test_what_is_no_mistake_is_raised_again(error: Exception):
    assert ending(error, debug=False) is None
