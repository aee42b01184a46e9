"""What `task_identification` reads: descriptions of tasks, and the frames before them.

Fixed: values are comparable only where these are the same.
"""

from typing import Literal, NamedTuple, get_args

TaskKind = Literal[
    "sentiment",
    "topic",
    "yes_no",
    "subjectivity",
    "question_type",
    "rewriting",
    "spam",
    "translation",
]
KINDS: tuple[TaskKind, ...] = get_args(TaskKind)

# Each goes on from each frame.
DESCRIPTIONS: dict[TaskKind, str] = {
    "sentiment": " whether a review is positive or negative.",
    "topic": " which topic a news article is about.",
    "yes_no": " whether the answer to a question is yes or no.",
    "subjectivity": " whether a sentence states a fact or an opinion.",
    "question_type": " what kind of answer a question asks for.",
    "rewriting": " how to rewrite a sentence in another style.",
    "spam": " whether a message is spam.",
    "translation": " how to translate a sentence into another language.",
}


class Frame(NamedTuple):
    """What stands around a text, and a text that says nothing, to compare with."""

    before: str
    after: str
    neutral: str


FRAMES = (
    Frame('A prompt for a language model: "', '" The prompt is used to decide', "..."),
    Frame('Instruction: "', '"\nBy this instruction a program finds out', "N/A"),
    Frame(
        'Somebody wrote "',
        '" in front of every text that a language model was given. The model should say',
        "---",
    ),
)
