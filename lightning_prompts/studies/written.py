"""Prompts that a person would write for sentiment, which `inspect` compares a prompt with.

Fixed: kappas with them are comparable only where these are the same.
"""

LAST = (
    " In one word, the movie was",
    " Overall, I thought it was",
    " The reviewer says it is",
    " All in all, it was",
    " In short, this is",
    " If you ask me, it was",
    " My verdict: it is",
    " The whole thing was",
    " I would say that it is",
    " It was",
)
"""Behind a text: the answer goes on from them."""
FIRST = (
    "Is this review positive or negative?",
    "Decide whether the review is positive or negative.",
    "Classify the sentiment of the text.",
    "Read the review and say what the reviewer thinks.",
    "What does the reviewer think of it?",
    "Here is an honest review.",
    "Somebody wrote about a film:",
    "A customer's opinion:",
    "Movie review:",
    "Review:",
)
"""Before a text."""
