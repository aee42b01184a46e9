"""The reward for classification against one prompt and one example at a time."""

import math

import pytest
import torch
from torch import Tensor

from lightning_prompts.lm.batch import Batch, collate
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.lm.template import Template
from lightning_prompts.lm.verbalizer import Verbalizer
from lightning_prompts.tuners.rewards import ClassificationGap
from lightning_prompts.tuners.rewards.base import Scores, standardise
from lightning_prompts.tuners.rewards.classification import in_order, probability_gap

TEXTS = ["A warm and funny film.", "Dull.", "No plot, no jokes", "Fine work!", "It is so-so."]
LABELS = [1, 0, 0, 1, 2]
FIRST, LAST, MIDDLE = "{prompt} {text} It was", "{text}{prompt}", "{text}{prompt} It was"
WORDS = {"negative": " terrible", "positive": " great", "neutral": " good"}


def alone(sums: Tensor) -> Tensor:
    """The sum over one process."""
    return sums


def make(lm: FrozenLM, text: str = LAST, words: dict[str, str] = WORDS):
    reward = ClassificationGap()
    reward.attach(lm, Template(text, lm), Verbalizer(words, lm))
    return reward


def make_batch(reward: ClassificationGap, rows: list[int] | None = None) -> Batch:
    rows = list(range(len(TEXTS))) if rows is None else rows
    examples = [reward.template.encode({"text": TEXTS[i]}) for i in rows]
    return collate(examples, [LABELS[i] for i in rows], rows)


def random_prompts(count: int, length: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(count)
    return torch.randint(1, 101, (count, length), generator=generator)


def score(reward: ClassificationGap, prompts: Tensor, batch: Batch) -> Scores:
    return reward(prompts, batch, seed=0, reduce=alone)


def answers(reward: ClassificationGap, prompt: list[int], rows: list[int]) -> list[list[float]]:
    """Probabilities of the verbalizer's words for each row, by whole strings of tokens."""
    lm, found = reward.lm, []
    before, after = reward.template.text.split("{prompt}")
    for i in rows:
        ids = [lm.encode(piece.format(text=TEXTS[i])) for piece in (before, after)]
        logits = lm.model(torch.tensor([ids[0] + prompt + ids[1]])).logits[0, -1].double()
        found.append(logits[reward.verbalizer.token_ids].softmax(-1).tolist())
    return found


def reference(
    reward: ClassificationGap, prompt: list[int], rows: list[int]
) -> tuple[float, float, float]:
    """Reward, accuracy and loss of one prompt."""
    total = right = loss = 0.0
    for i, shares in zip(rows, answers(reward, prompt, rows), strict=True):
        others = [p for c, p in enumerate(shares) if c != LABELS[i]]
        gap = shares[LABELS[i]] - max(others)
        total += (200 if gap > 0 else 180) * gap
        right += gap > 0
        loss -= math.log(shares[LABELS[i]])
    return total / len(rows), right / len(rows), loss / len(rows)


# ---- the gap


@pytest.mark.parametrize(
    ("logits", "label", "expected"),
    [
        ([1.5, 1.5], 0, 0.0),
        ([1.5, 1.5], 1, 0.0),
        ([0.1, 0.1, 0.1], 1, 0.0),  # the published float comparison leaves out all three
        ([2.0, 2.0, -5.0], 0, 0.0),
        ([0.0, math.log(3), 0.0], 0, -2 / 5),
        ([0.0, math.log(3), 0.0], 1, 2 / 5),
        ([0.0, 0.0, math.log(3)], 2, 2 / 5),
    ],
)
def test_the_gap_by_hand(logits: list[float], label: int, expected: float):
    got = probability_gap(torch.tensor([logits]), torch.tensor([label]))
    assert got.item() == pytest.approx(expected, abs=1e-7 if expected else 0)


def test_each_prompt_s_rows_have_their_own_labels():
    logits = torch.randn(4, 6, 3, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 2, 2, 1, 0])
    got = probability_gap(logits, labels)
    shares = logits.double().softmax(-1)
    for k in range(4):
        for b, label in enumerate(labels.tolist()):
            others = [shares[k, b, c].item() for c in range(3) if c != label]
            expected = shares[k, b, label].item() - max(others)
            assert got[k, b].item() == pytest.approx(expected, abs=1e-6)


# ---- the reward


@pytest.mark.parametrize("words", [WORDS, {"negative": " bad", "positive": " good"}])
@pytest.mark.parametrize("text", [FIRST, LAST, MIDDLE])
@pytest.mark.parametrize("count", [1, 2, 16])
def test_rewards_are_those_of_a_loop(lm: FrozenLM, text: str, words: dict[str, str], count: int):
    reward = make(lm, text, words)
    rows = [i for i in range(len(TEXTS)) if LABELS[i] < len(words)]
    prompts = random_prompts(count)
    scores = score(reward, prompts, make_batch(reward, rows))
    expected = torch.tensor([reference(reward, ids, rows) for ids in prompts.tolist()])
    raw, accuracy, loss = expected.unbind(1)
    # 1e-5 in probability, of which a reward is up to 200 times.
    torch.testing.assert_close(scores.raw / 200, raw / 200, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(scores.components["accuracy"], accuracy)
    torch.testing.assert_close(scores.components["task_loss"], loss, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(scores.z, standardise(scores.raw))
    assert raw.std(correction=0) > 0.1 or count == 1
    assert not scores.raw.requires_grad


def test_right_and_wrong_answers_have_their_factors(lm: FrozenLM, monkeypatch):
    reward = make(lm)
    logits = torch.tensor([[[3.0, 0.0, 0.0], [3.0, 0.0, 0.0]]])
    monkeypatch.setattr(reward, "class_logits", lambda *args: logits)
    batch = make_batch(reward, [1, 0])  # labels 0 and 1: the first is right, the second wrong
    high, low = (math.exp(x) / (math.exp(3) + 2) for x in (3, 0))
    expected = (200 * (high - low) + 180 * (low - high)) / 2
    assert score(reward, random_prompts(1), batch).raw.item() == pytest.approx(expected, rel=1e-5)
    reward.right, reward.wrong = 1.0, 3.0
    expected = ((high - low) + 3 * (low - high)) / 2
    assert score(reward, random_prompts(1), batch).raw.item() == pytest.approx(expected, rel=1e-5)


def test_a_tie_is_worth_nothing(lm: FrozenLM, monkeypatch: pytest.MonkeyPatch):
    reward = make(lm)
    monkeypatch.setattr(reward, "class_logits", lambda *args: torch.full((2, 5, 3), 0.1))
    scores = score(reward, random_prompts(2), make_batch(reward))
    assert scores.raw.tolist() == [0.0, 0.0]
    assert scores.z.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("text", [FIRST, LAST, MIDDLE])
@pytest.mark.parametrize("order", [[4, 3, 2, 1, 0], [2, 0, 4, 1, 3]])
def test_the_order_of_rows_does_not_matter(lm: FrozenLM, text: str, order: list[int]):
    reward, prompts = make(lm, text), random_prompts(4)
    expected = score(reward, prompts, make_batch(reward))
    got = score(reward, prompts, make_batch(reward, order))
    assert torch.equal(got.raw, expected.raw)


def test_in_order_moves_whole_rows(lm: FrozenLM):
    reward = make(lm, MIDDLE)
    ordered, shuffled = make_batch(reward), make_batch(reward, [2, 0, 4, 1, 3])
    got = in_order(shuffled)
    assert in_order(ordered) is ordered
    assert got["texts"] == ordered["texts"]
    for key, value in ordered.items():
        same = torch.equal(got[key], value) if isinstance(value, Tensor) else got[key] == value
        assert same, key
    assert shuffled["rows"].tolist() == [2, 0, 4, 1, 3]  # the loader's own stays as it was


def test_the_seed_does_not_matter(lm: FrozenLM):
    reward, prompts = make(lm), random_prompts(3)
    raws = [reward(prompts, make_batch(reward), seed, alone).raw for seed in (0, 1)]
    assert torch.equal(*raws)


# ---- evaluation


@pytest.mark.parametrize("text", [FIRST, LAST])
def test_measures_are_means_over_all_rows_of_all_batches(lm: FrozenLM, text: str):
    reward, prompts = make(lm, text), random_prompts(3)
    measures = reward.measures("val", alone)
    for rows in ([0, 1, 2, 3], [4]):
        measures.update(prompts, make_batch(reward, rows))
    values = measures.compute()
    expected = [reference(reward, ids, list(range(5))) for ids in prompts.tolist()]
    assert values.keys() == {"loss", "accuracy", "reward"}
    for k, (raw, accuracy, loss) in enumerate(expected):
        assert values["reward"][k].item() / 200 == pytest.approx(raw / 200, abs=1e-5)
        assert values["accuracy"][k].item() == pytest.approx(accuracy)
        assert values["loss"][k].item() == pytest.approx(loss, rel=1e-5)


def test_processes_share_the_rows(lm: FrozenLM):
    """Sums are reduced, not means: one process has four rows, the other one."""
    reward, prompts = make(lm), random_prompts(3)
    expected = score(reward, prompts, make_batch(reward))
    sums: list[Tensor] = []

    def keep(values: Tensor) -> Tensor:
        sums.append(values)
        return values

    reward(prompts, make_batch(reward, [0, 2, 3, 4]), 0, keep)
    got = reward(prompts, make_batch(reward, [1]), 0, lambda values: values + sums[0])
    torch.testing.assert_close(got.raw, expected.raw, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(got.components["accuracy"], expected.components["accuracy"])
    assert got.raw.std() > 1
