"""Can a reader who is shown the prompt say better what the model will answer?

After counterfactual simulatability of explanations (Limpijankit et al. 2025,
https://arxiv.org/abs/2505.21740); here the prompt stands in the place of the explanation.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lightning_prompts.files.drawing import percentile_interval
from lightning_prompts.lm.answers import AnswerScore
from lightning_prompts.lm.batch import Example, collate, on_device
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.lm.verbalizer import Verbalizer
from lightning_prompts.metrics.agreement import kappa, kappas
from lightning_prompts.metrics.panel.answered import AnsweredRows, recalibrated
from lightning_prompts.metrics.panel.likelihood import Unmeasured, readable

ROWS_AT_ONCE = 32
# The prompt is quoted in a description of the job: in its own slot the reader would do the job.
SHOWN = 'A language model is given the prompt "', '" and a text.'
NOT_SHOWN = "A language model is given a text."
JOB = " It answers with one of these words: {answers}. Which word does it answer?\nText:"
END = "\nAnswer:"


@dataclass(frozen=True)
class Simulatability:
    """Agreement of a reader with the model beyond chance: Cohen's kappa, -1 to 1.

    Attributes:
        shown: Of the reader that is shown the prompt, recalibrated.
        not_shown: Of the same reader without it, recalibrated.
        shown_raw: As `shown`, by the reader's likeliest word as it is.
        not_shown_raw: As `not_shown`, likewise.
        rows: How many rows all is measured on.
        intervals: Of `simulatability` and `simulatability_kappa`, by name: 95 % over rows, 2,000
            bootstrap draws of them, the same at each call; the unlabelled texts are not drawn.
    """

    shown: float
    not_shown: float
    shown_raw: float
    not_shown_raw: float
    rows: int
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def simulatability(self) -> float:
        """What being shown the prompt adds to kappa, -2 to 2; 0 where it tells nothing."""
        return self.shown - self.not_shown

    @property
    def simulatability_kappa(self) -> float:
        """Kappa of the reader that is shown the prompt."""
        return self.shown


def simulatability(
    reader: FrozenLM, token_ids: Sequence[int], rows: AnsweredRows
) -> Simulatability:
    """How well a reader predicts the model's answers with and without being shown the prompt.

    The reader goes through the rows, is told the answer words, and says the likeliest of them, as
    it is and recalibrated on unlabelled texts (wording: ours). Compared with what the model answers
    with the prompt in use, right or wrong.

    Cost: two passes of the reader over the rows and two over the unlabelled ones. Gamed by: a
    prompt that makes the model answer what any reader expects of the text; so the reader that is
    not shown the prompt is subtracted. A small model is a poor reader: near 0 says little.

    Args:
        reader: Reads; the model that the token ids are of.
        token_ids: [P] The prompt's text, P at least 1.
        rows: With what the model answers.

    Raises:
        Unmeasured: If the text has no token, or does not fit into the reader's positions.
        PromptError: If the reader has no tokens for the answers.
    """
    ids, given = readable(reader, token_ids), rows.verbalizer
    score: AnswerScore = "mean" if given.score == "mean" else "sum"
    verbalizer = Verbalizer(dict(zip(given.labels, given.words, strict=True)), reader, score)
    words = ", ".join(answers[0].strip() for answers in given.answers)
    job = reader.encode(JOB.format(answers=words))
    before, after = reader.encode_all(SHOWN)
    found, drawn = [], []
    counts = rows.draws()
    for head in ([*before, *ids, *after], reader.encode(NOT_SHOWN)):
        with rows.precision():
            labelled, unlabelled = (
                predictions(reader, verbalizer, [*head, *job], texts)
                for texts in (rows.texts, rows.unlabelled_texts)
            )
        ways = [way.argmax(-1) for way in (recalibrated(labelled, unlabelled), labelled)]
        found.append([kappa(way, rows.answers) for way in ways])
        drawn.append(kappas(ways[0], rows.answers, counts))
    (shown, shown_raw), (not_shown, not_shown_raw) = found
    intervals = {
        "simulatability": percentile_interval(drawn[0] - drawn[1]),
        "simulatability_kappa": percentile_interval(drawn[0]),
    }
    return Simulatability(
        *(shown, not_shown, shown_raw, not_shown_raw), rows=len(rows.answers), intervals=intervals
    )


@torch.no_grad()
def predictions(
    reader: FrozenLM, verbalizer: Verbalizer, head: Sequence[int], texts: Sequence[str]
) -> Tensor:
    """Log-probabilities of the answers behind a description of the job and a text.

    Args:
        reader: Reads.
        verbalizer: Of the reader.
        head: Token ids of the description, up to where the text begins.
        texts: N texts; one that is too long for the reader loses its end.

    Returns:
        [N, C] float64, on the CPU.

    Raises:
        Unmeasured: If nothing of a text fits.
    """
    device = reader.embedding_table.device
    nothing = reader.embedding_table[:0][None]
    head, end = [*reader.prefix_ids, *head], reader.encode(END)
    room = reader.max_positions - len(head) - len(end) - verbalizer.depth
    if room < 1:
        raise Unmeasured(f"a description of the job leaves {reader.label} no room for a text")
    found: dict[str, Tensor] = {}
    distinct = list(dict.fromkeys(texts))
    rows = dict(zip(distinct, reader.encode_all([f" {text}" for text in distinct]), strict=True))
    distinct.sort(key=lambda text: len(rows[text]))
    for start in range(0, len(distinct), ROWS_AT_ONCE):
        part = distinct[start : start + ROWS_AT_ONCE]
        examples = [Example("", "", head, [*rows[text][:room], *end], False) for text in part]
        numbers = list(range(len(part)))
        batch = on_device(collate(examples, [-1] * len(part), numbers), device)
        scores = verbalizer.scores(reader, reader.answers(nothing, batch, verbalizer.tree)[0])
        found |= zip(part, scores.cpu().double().log_softmax(-1), strict=True)
    return torch.stack([found[text] for text in texts])
