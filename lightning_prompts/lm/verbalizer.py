"""Label to answers: what the model may say for each label, and what its saying so scores."""

import logging
from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor

from lightning_prompts.files.amounts import count
from lightning_prompts.files.errors import PromptError
from lightning_prompts.lm.answers import AnswerScore, AnswerScores, AnswerTree, Ids
from lightning_prompts.lm.backbone import Backbone

log = logging.getLogger(__name__)

Words = dict[str, str | list[str]]
"""Label to its answer, or to several."""
SHOWN = 12  # labels in one line


class Verbalizer:
    """The answers of each label, each a word or a text of one token of the model or several.

    Args:
        words: Label to answer, or to a list of them, e.g. `{"0": " terrible", "1": [" great",
            " good"]}`; its order is the order of the classes.
        lm: Gives the tokenizer.
        score: How an answer's tokens make its score, see `AnswerScores`; with `pmi` what the class
            scores without a text is subtracted.

    Raises:
        PromptError: If there are fewer than two labels, an answer is empty, too long or has a
            special token, or answers cannot be told apart.
    """

    def __init__(
        self, words: Mapping[str, str | Sequence[str]], lm: Backbone, score: AnswerScore = "sum"
    ) -> None:
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
        self.score: AnswerScore = score
        self.labels = tuple(str(label) for label in words)
        self.words = tuple(w if isinstance(w, str) else list(w) for w in words.values())
        """As they were given."""
        self.answers = tuple((w,) if isinstance(w, str) else tuple(w) for w in self.words)
        """Of each class."""
        if not all(self.answers):
            raise PromptError("A label of the verbalizer has an empty list; give it a word.")
        self.tokens = [[_tokens(answer, lm) for answer in answers] for answers in self.answers]
        """Token ids of each answer of each class."""
        self._lm = lm
        self._refuse_alike(dict(words))
        self._scores = AnswerScores(self.tokens, score)

    def __repr__(self) -> str:
        score = "" if self.score == "sum" else f", {self.score}"
        return f"Verbalizer({dict(zip(self.labels, self.words, strict=True))}{score})"

    def __str__(self) -> str:
        """Labels with their answers, and those of several tokens with their tokens."""
        shown = [
            f"{label!r}: {', '.join(self._shown(*pair) for pair in zip(*each, strict=True))}"
            for label, *each in zip(self.labels, self.answers, self.tokens, strict=True)
        ]
        more = [f"and {len(shown) - SHOWN} more"] if len(shown) > SHOWN else []
        return "; ".join([*shown[:SHOWN], *more])

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

    # ---- how answers are read and scored

    @property
    def tree(self) -> AnswerTree | None:
        """Beginnings of answers, which are read behind rows; None where all are of one token."""
        return self._scores.tree

    @property
    def depth(self) -> int:
        """Tokens of an answer that are read behind a row, at most: all but its last."""
        return 0 if self.tree is None else self.tree.depth

    @property
    def num_read(self) -> int:
        """Tokens that are read behind each row, of all answers together."""
        return 0 if self.tree is None else self.tree.num_tokens

    @property
    def token_ids(self) -> list[int]:
        """The tokens that are scored; where each class has one answer of one token, these."""
        return self._scores.token_ids

    def scores(self, lm: Backbone, hidden: Tensor, token_ids: Tensor | None = None) -> Tensor:
        """[..., H], or [..., N, H] with a tree, to [..., C] scores of classes, float32 or wider.

        Args:
            lm: The frozen language model.
            hidden: Final hidden states of `FrozenLM.answers` with this tree.
            token_ids: `self.token_ids`, where they are on the device already.
        """
        return self._scores(lm, hidden, token_ids)

    # ---- details

    def _shown(self, answer: str, ids: Ids) -> str:
        if len(ids) == 1:
            return repr(answer)
        return f"{answer!r} = {' + '.join(map(repr, self._lm.token_strings(ids)))}"

    def _refuse_alike(self, words: Mapping[str, object]) -> None:
        known: dict[Ids, tuple[str, str]] = {}
        for label, answer, ids in self._answers_of():
            if ids in known and known[ids][0] == label:
                raise PromptError(
                    f"The verbalizer gives label {label!r} the answer {answer!r} twice; leave one "
                    "of them out."
                )
            if ids in known:
                raise PromptError(
                    f"The verbalizer gives two labels the same tokens: {words}; use other words."
                )
            known[ids] = label, answer
        if self.score != "sum":
            return
        for ids, (label, answer) in known.items():
            for end in range(1, len(ids)):
                other, beginning = known.get(ids[:end], (label, ""))
                if other != label:
                    raise PromptError(
                        f"The answer {beginning!r} of label {other!r} begins {answer!r} of label "
                        f"{label!r}, which could never be likelier; end both in the same way, or "
                        "score them with --data.answer_score mean."
                    )

    def _answers_of(self) -> Iterator[tuple[str, str, Ids]]:
        """Label, text and token ids of each answer."""
        for label, answers, tokens in zip(self.labels, self.answers, self.tokens, strict=True):
            for answer, ids in zip(answers, tokens, strict=True):
                yield label, answer, ids


def _tokens(answer: str, lm: Backbone) -> Ids:
    """Token ids of an answer."""
    ids = tuple(lm.encode(answer, "Verbalizer word"))
    if special := [i for i in ids if i in lm.special_ids]:
        is_or_has = "is" if len(ids) == 1 else "has"
        raise PromptError(
            f"Verbalizer word {answer!r} {is_or_has} the special token {lm.decode(special[:1])!r} "
            f"of {lm.label}, or unknown to it; use a word of its vocabulary."
        )
    if not ids:
        raise PromptError("A word of the verbalizer is empty; give each label a word.")
    if len(ids) >= lm.max_positions:
        raise PromptError(
            f"Verbalizer word {answer[:40]!r} has {count(len(ids), 'token')}, and {lm.label} has "
            f"{lm.max_positions} positions; use a shorter one."
        )
    spaced = " " + answer.lstrip()
    if len(ids) > 1 and spaced != answer:
        (of_spaced,) = lm.tokenize([spaced])
        if len(of_spaced) == 1 and lm.reads(of_spaced):
            log.info(
                "Verbalizer word %r is %d tokens of %s (%s); did you mean %r, with the leading "
                "space, which is one?",
                *(answer, len(ids), lm.label, " + ".join(map(repr, lm.token_strings(ids))), spaced),
            )
    return ids
