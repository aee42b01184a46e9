"""One sentence that a person can act on, from an evaluation's numbers as they are printed."""

from collections.abc import Sequence

from lightning_prompts.callbacks.baselines import CALIBRATED, MAJORITY, NO_PROMPT
from lightning_prompts.cli.evaluation import Evaluation
from lightning_prompts.files.amounts import ENOUGH_ROWS, above, count, rounded, share
from lightning_prompts.report.statistics import wilson


def advice(evaluation: Evaluation) -> str:
    """One sentence that a person can act on, from the numbers alone, as they are printed."""
    if evaluation.columns:
        return _transfer_advice(evaluation)
    metrics, rows = evaluation.metrics, evaluation.rows
    accuracy, text = metrics["accuracy"], metrics.get("round_trip_accuracy")
    hard = metrics.get("hard_accuracy") if evaluation.vectors else None
    assert accuracy is not None
    if bar := _bar(evaluation, accuracy):
        return f"It does not beat {bar}: do not use it."
    empty = evaluation.baselines.get(CALIBRATED, {}).get("accuracy")
    against = "" if empty is None else f"; no prompt, calibrated, {share(empty)}"
    ids = "the ids in prompt.json" if evaluation.saved else f"its ids, {evaluation.prompt.ids}"
    own = "keep the vectors, not the text" if evaluation.vectors else f"use {ids}, not the text"
    if text is not None and not above(accuracy, text, rows):
        if bar := _bar(evaluation, text):
            return f"Its text, tokenized anew, does not beat {bar}: {own}."
        return f"Copy this text: it reaches {share(text)} tokenized anew{against}."
    if not evaluation.vectors:
        if text is None:
            return f"Its tokens reach {share(accuracy)}{against}; its text was not measured."
        return (
            f"Its text is not its tokens ({share(text)} tokenized anew against {share(accuracy)}): "
            f"use {ids}, do not copy the text."
        )
    if hard is not None and above(accuracy, hard, rows):
        reach = f"{share(hard)} against {share(accuracy)}"
        return f"Its nearest tokens do not act like it ({reach}): {own}."
    if text is None:
        tokens = "" if hard is None else f", its nearest tokens {share(hard)}"
        return f"Its vectors reach {share(accuracy)}{tokens}{against}; its text was not measured."
    reach = f"{share(text)} tokenized anew against {share(accuracy)}"
    if hard is None or _bar(evaluation, hard):
        return f"Its text does not act like it ({reach}): {own}."
    return (
        f"Its text does not act like it ({reach}), though its nearest tokens do ({share(hard)}): "
        f"keep the vectors or use {ids}, do not copy the text."
    )


def few_rows(evaluation: Evaluation) -> str | None:
    """How little an accuracy says, where it is of few rows."""
    accuracy, rows = evaluation.metrics.get("accuracy"), evaluation.rows
    if accuracy is None or not rows or rows >= ENOUGH_ROWS:
        return None
    low, high = map(share, wilson(accuracy, rows))
    chose = evaluation.stage == "val" and evaluation.prompt.step > 0
    chosen = " They also chose the prompt, which makes it too high." if chose else ""
    return (
        f"Of {count(rows, 'row')} alone {share(accuracy)} says little: its 95 % interval is {low} "
        f"to {high}.{chosen} Label more rows, or hold out a larger share of them (--data.split)."
    )


def _bar(evaluation: Evaluation, value: float) -> str:
    """The first baseline that a share does not beat by more than chance; empty where it does."""
    for name, key in (
        ("the calibrated empty prompt", CALIBRATED),
        ("the most frequent label", MAJORITY),
    ):
        bar = evaluation.baselines.get(key, {}).get("accuracy")
        if bar is not None and not above(value, bar, evaluation.rows):
            return f"{name} by more than chance ({share(value)} against {share(bar)})"
    return ""


def _transfer_advice(evaluation: Evaluation) -> str:
    """Whether the prompt is worth more than none, by what only a test knows."""
    own, empty = evaluation.metrics, evaluation.baselines.get(NO_PROMPT, {})
    joint = own.get("joint")
    if not evaluation.judged:
        return "Only the classifier that it was trained on has judged it; set --model.reward.judge."
    if joint is None or "joint" not in empty:
        return "Its reward is of the classifier that it was trained on; `test` asks another one."
    ends = [rounded(value, 1) for value in (joint, empty["joint"])]
    against = f"joint {ends[0]:.1f} against {ends[1]:.1f}"
    if ends[0] <= ends[1]:
        return f"It does not rewrite better than no prompt ({against}): do not use it."
    return f"It rewrites better than no prompt ({against}); PPL tells how well that reads."


def convergence(
    history: Sequence[Sequence[float]], mode: str = "min", limit: str | None = "--trainer.max_steps"
) -> str | None:
    """A sentence where the last validation was the best by more than 1 % over the one before.

    Args:
        history: [step, value] of each validation.
        mode: Whether the lowest or the highest value is the best.
        limit: The option that ended the run, None where none did.
    """
    if not history:
        return None
    if len(history) == 1:
        return "Validated once, so whether it has converged is not known."
    if not _improved(history, mode, by=0.01):
        return None
    more = "" if limit is None else f"; raise {limit}"
    return f"Not converged: still improving at step {history[-1][0]:.0f}{more}."


def progress(history: Sequence[Sequence[float]], mode: str, limit: str | None) -> str:
    """As `convergence`, and what is to be said where a run has converged."""
    if said := convergence(history, mode, limit):
        return said
    if not history:
        return "Not validated."
    if _improved(history, mode):
        return "The last validation was the best, by 1 % or less."
    best = (min if mode == "min" else max)(history, key=lambda entry: entry[1])
    return f"No longer improving: the best validation was at step {best[0]:.0f}."


def _improved(history: Sequence[Sequence[float]], mode: str, by: float = 0.0) -> bool:
    """Whether the last of several values is the best, by such a share over the one before."""
    *earlier, last = (value if mode == "min" else -value for _, value in history)
    return last < min(earlier) and earlier[-1] - last > by * abs(earlier[-1])
