"""Can a reader tell from a text for which task it is a prompt?

After the idea of iPrompt (Singh et al. 2022, https://arxiv.org/abs/2210.01848), which looks for
texts that explain data; here a language model is asked of a text, and nothing is looked for.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from lightning_prompts.lm.answers import AnswerScores
from lightning_prompts.lm.batch import Example, collate, on_device
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.metrics.panel.frames import DESCRIPTIONS, FRAMES, KINDS, TaskKind
from lightning_prompts.metrics.panel.likelihood import Unmeasured, readable, shuffles

TASK_SHUFFLES = 8
ROWS_AT_ONCE = 16
# What `_remembered` has read: [3, 8] of answer words, and [1, 8] of each frame's neutral text.
_known: "WeakKeyDictionary[FrozenLM, dict[object, Tensor]]" = WeakKeyDictionary()


@dataclass(frozen=True)
class TaskIdentification:
    """Where the true task stands among eight, each a mean over three frames.

    Attributes:
        task_rank: Its rank, 1 (the reader finds it the likeliest) to 8; ties count half.
        task_reciprocal_rank: 1 / rank, 1/8 to 1.
        task_margin: Its score less the best other one's, in nats a token; any number.
        task_margin_over_shuffled: The margin less the mean one of 8 fixed shuffles of the tokens;
            nan where none was read.
        task_margin_over_answers: The margin less that of the answer words alone, as a text.
    """

    task_rank: float
    task_reciprocal_rank: float
    task_margin: float
    task_margin_over_shuffled: float
    task_margin_over_answers: float


def task_identification(
    lm: FrozenLM,
    token_ids: Sequence[int],
    kind: TaskKind,
    answers: Sequence[str],
    shuffled: bool = True,
) -> TaskIdentification:
    """Rank and margin of the true task, of which a reader is shown the prompt's text in quotes.

    The score of a task is the mean log-likelihood a token of its description behind a frame with
    the text, less the same behind the frame with a neutral text (descriptions and frames: ours).

    Cost: a pass over 27 short texts, 3 without the shuffles, with some 60 tokens of descriptions
    behind each, and over 6 more once for each model and answer words. Gamed by: a word of the
    domain, such as `film`, and by the answer words: hence the margin over these. By the margin
    over shuffled tokens a mere list of words gains nothing.

    Args:
        lm: Reads; the model that the token ids are of.
        token_ids: [P] The text, P at least 1.
        kind: The true task.
        answers: The words that the task is answered with.
        shuffled: Whether shuffles of the tokens are read as well.

    Raises:
        Unmeasured: If the text has no token, or does not fit into the model's positions.
    """
    ids = readable(lm, token_ids)
    words = readable(lm, lm.tokenize([" ".join(answer.strip() for answer in answers)])[0])
    others = shuffles(ids, TASK_SHUFFLES) if shuffled else []
    answered = _remembered(lm, tuple(words), lambda: task_scores(lm, [words])[:, 0])
    return identified(task_scores(lm, [ids, *others]), answered, kind)


def identified(scores: Tensor, answered: Tensor, kind: TaskKind) -> TaskIdentification:
    """Rank and margin by scores that are known, so that one text is asked of several tasks.

    Args:
        scores: [3, 1 + S, 8] Of the text, then of its shuffles, from `task_scores`.
        answered: [3, 8] Of the answer words alone.
        kind: The true task.
    """
    scores = torch.cat([scores, answered[:, None]], 1)
    true = KINDS.index(kind)
    own, rest = scores[..., true], scores[..., [i for i in range(len(KINDS)) if i != true]]
    margins = (own - rest.amax(-1)).mean(0)
    above = (rest > own[..., None]).sum(-1) + (rest == own[..., None]).sum(-1) / 2
    ranks = 1 + above[:, 0].double()
    margin = float(margins[0])
    return TaskIdentification(
        task_rank=float(ranks.mean()),
        task_reciprocal_rank=float((1 / ranks).mean()),
        task_margin=margin,
        task_margin_over_shuffled=margin - float(margins[1:-1].mean()),
        task_margin_over_answers=margin - float(margins[-1]),
    )


@torch.no_grad()
def task_scores(lm: FrozenLM, texts: Sequence[Sequence[int]]) -> Tensor:
    """[3, N, 8] Scores of N texts in each frame, of each task, in nats a token, float64.

    Raises:
        Unmeasured: If a text does not fit into the model's positions.
    """
    descriptions = [tuple(ids) for ids in lm.encode_all([DESCRIPTIONS[kind] for kind in KINDS])]
    reader = AnswerScores([[ids] for ids in descriptions], "mean")
    distinct = list(dict.fromkeys(map(tuple, texts)))  # equal texts have equal scores
    places = [distinct.index(tuple(text)) for text in texts]
    scores = []
    for frame in FRAMES:
        before, after, neutral = lm.encode_all(frame)
        start = [lm.bos_id, *before]
        found = _read(lm, start, [[*text, *after] for text in distinct], reader)
        nothing = partial(_read, lm, start, [[*neutral, *after]], reader)
        scores.append((found - _remembered(lm, frame, nothing))[places])
    return torch.stack(scores)


def _remembered(lm: FrozenLM, key: object, read: Callable[[], Tensor]) -> Tensor:
    """What a model reads the same for all texts, once for each of its precisions."""
    of_model = _known.setdefault(lm, {})
    key = (key, lm.embedding_table.dtype)
    if key not in of_model:
        of_model[key] = read()
    return of_model[key]


def _read(
    lm: FrozenLM, before: list[int], rows: Sequence[list[int]], reader: AnswerScores
) -> Tensor:
    """[N, 8] Mean log-likelihood a token of each description behind a beginning and N rows.

    The beginning is read once a batch, and each row once for all descriptions.
    """
    longest = len(before) + max(map(len, rows)) + (reader.tree.depth if reader.tree else 0)
    if longest > lm.max_positions:
        raise Unmeasured(
            f"in its longest frame the text needs {longest} positions, and {lm.label} has "
            f"{lm.max_positions}"
        )
    device = lm.embedding_table.device
    nothing = lm.embedding_table[:0][None]
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))  # little padding
    found = torch.empty(len(rows), len(KINDS), dtype=torch.float64)
    # In full precision, as the perplexity.
    with torch.autocast(device.type, enabled=False):
        for start in range(0, len(rows), ROWS_AT_ONCE):
            places = order[start : start + ROWS_AT_ONCE]
            part = [Example("", "", before, rows[place], False) for place in places]
            batch = on_device(collate(part, [-1] * len(part), places), device)
            hidden = lm.answers(nothing, batch, reader.tree)[0]
            found[places] = reader(lm, hidden).cpu().double()
    return found
