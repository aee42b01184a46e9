"""Label to answer token: the class logits are the logits of one token a label."""

import difflib
from collections.abc import Mapping

from lightning_prompts.files.errors import PromptError
from lightning_prompts.lm.backbone import Backbone


class Verbalizer:
    """The answer word of each label, each one token of the model.

    Args:
        words: Label to word, e.g. `{"0": " terrible", "1": " great"}`; its order is the order of
            the classes.
        lm: Gives the tokenizer.

    Raises:
        PromptError: If there are fewer than two labels, a word is not exactly one token, or two
            labels share a token.
    """

    def __init__(self, words: Mapping[str, str], lm: Backbone) -> None:
        if len(words) < 2:
            raise PromptError(
                f"The verbalizer has {len(words)} label(s); give one word for each of at least two "
                "labels with --data.verbalizer."
            )
        if any(isinstance(label, bool) for label in words):
            raise PromptError(
                "The verbalizer's labels were read as true and false: YAML wants quotes around "
                "yes, no, true and false, for example {'yes': ' yes', 'no': ' no'}."
            )
        self.labels = tuple(str(label) for label in words)
        self.words = tuple(words.values())
        self.token_ids = [_one_token(word, lm) for word in self.words]
        if len(set(self.token_ids)) < len(self.token_ids):
            raise PromptError(
                f"The verbalizer gives two labels the same token: {dict(words)}; use other words."
            )

    def __repr__(self) -> str:
        return f"Verbalizer({dict(zip(self.labels, self.words, strict=True))})"

    def index(self, label: object) -> int:
        """Class index of a label.

        Raises:
            PromptError: If the verbalizer has no word for it.
        """
        try:
            return self.labels.index(str(label))
        except ValueError:
            raise PromptError(
                f"Label {label!r} has no word in the verbalizer, which knows "
                f"{', '.join(map(repr, self.labels))}; add it with --data.verbalizer."
            ) from None


def _one_token(word: str, lm: Backbone) -> int:
    ids = lm.encode(word, "Verbalizer word")
    if len(ids) == 1 and ids[0] in lm.special_ids:
        raise PromptError(
            f"Verbalizer word {word!r} is the special token {lm.decode(ids)!r} of {lm.label}, "
            "or unknown to it; use a word of its vocabulary."
        )
    if len(ids) == 1:
        return ids[0]
    if not ids:
        raise PromptError("A word of the verbalizer is empty; give each label a word.")
    pieces = " + ".join(map(repr, lm.token_strings(ids)))
    spaced = " " + word.lstrip()
    (of_spaced,) = lm.tokenize([spaced])
    if spaced != word and len(of_spaced) == 1 and lm.reads(of_spaced):
        fix = f"did you mean {spaced!r}, with the leading space?"
    else:
        fix = "use a word that is one token."
    others = ", ".join(map(repr, _similar_tokens(word, lm)))
    raise PromptError(
        f"Verbalizer word {word!r} is {len(ids)} tokens of {lm.label} ({pieces}); {fix} "
        f"One-token words spelt like it: {others}."
    )


def _similar_tokens(word: str, lm: Backbone, count: int = 3) -> list[str]:
    """Whole words with a leading space that are one token and are spelt most like `word`."""
    texts = (lm.decode([i]) for i in range(lm.vocab_size))
    words = [text for text in texts if text.startswith(" ") and text[1:].isalpha()]
    wanted = " " + word.strip()  # named as the likely fix where it is one of them
    others = [text for text in words if text != wanted]
    return difflib.get_close_matches(wanted, others, count, cutoff=0.0)
