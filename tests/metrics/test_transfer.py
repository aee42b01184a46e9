"""Measures of rewrites against arithmetic by hand."""

import math

import pytest
import torch
import torch.nn.functional as F

from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.metrics.transfer import (
    best_of,
    bleu,
    geometric_mean,
    joint,
    text_nats,
    transfer_loss,
)


def test_joint_and_geometric_mean() -> None:
    generator = torch.Generator().manual_seed(0)
    content, style = 100 * torch.rand(2, 3, 7, generator=generator, dtype=torch.float64)
    for k in range(3):
        pairs = list(zip(content[k].tolist(), style[k].tolist(), strict=True))
        by_hand = sum(c / 100 * s / 100 for c, s in pairs) / 7 * 100
        assert float(joint(content, style)[k]) == pytest.approx(by_hand)
        means = [sum(values) / 7 for values in zip(*pairs, strict=True)]
        assert float(geometric_mean(content, style)[k]) == pytest.approx(math.prod(means) ** 0.5)


def test_best_of_each_draw() -> None:
    scores = torch.randint(0, 9, (3, 20), generator=torch.Generator().manual_seed(0)).float()
    maxima, indices = best_of(scores, 4)
    for k, row in enumerate(scores.tolist()):
        for d in range(4):
            draw = row[5 * d : 5 * d + 5]
            assert maxima[k, d] == max(draw)
            assert indices[k, d] == 5 * d + draw.index(max(draw))
    assert torch.equal(scores.gather(1, indices), maxima)


def corpus_bleu(outputs: list[list[str]], references: list[list[list[str]]]) -> float:
    """Papineni et al. 2002: clipped n-gram precisions up to 4, the nearest reference's length."""
    logs, length, wanted = 0.0, 0, 0
    for n in range(1, 5):
        right = total = 0
        for output, refs in zip(outputs, references, strict=True):
            grams = [tuple(output[i : i + n]) for i in range(len(output) - n + 1)]
            total += len(grams)
            for gram in set(grams):
                most = max(
                    sum(tuple(ref[i : i + n]) == gram for i in range(len(ref) - n + 1))
                    for ref in refs
                )
                right += min(grams.count(gram), most)
        logs += math.log(right / total) / 4
    for output, refs in zip(outputs, references, strict=True):
        length += len(output)
        wanted += min((len(r) for r in refs), key=lambda n: (abs(n - len(output)), n))
    return 100 * math.exp(logs) * min(1.0, math.exp(1 - wanted / length))


def test_bleu_of_all_outputs_together() -> None:
    outputs = ["the food was very good and cheap", "we will not come back here again"]
    references = [
        ["the food was very good and fresh", "the food here was very good"],
        ["we will come back here again and again", "we will come back here"],
    ]
    expected = corpus_bleu(
        [o.split() for o in outputs], [[r.split() for r in refs] for refs in references]
    )
    assert 20 < expected < 90
    assert float(bleu(outputs, references)) == pytest.approx(expected, abs=1e-3)
    assert float(bleu(["a b c d e"], [["x", "a b c d e"]])) == pytest.approx(100)
    # Rows without references do not count, and without any there is nothing to say.
    with_more = bleu([*outputs, "anything"], [*references, []])
    assert float(with_more) == pytest.approx(expected, abs=1e-3)
    assert math.isnan(bleu(["a"], [[]]))


def test_nats_of_texts_one_by_one(lm: FrozenLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightning_prompts.metrics.scrutability.TOKENS_AT_ONCE", 20)
    texts = ["good", "", "a longer text about food.", "xy", "z"]
    total, tokens = 0.0, 0
    for text in filter(None, texts):
        ids = lm.encode(text)
        logits = lm.model(input_ids=torch.tensor([[lm.bos_id, *ids]])).logits[0, :-1]
        total += float(F.cross_entropy(logits.double(), torch.tensor(ids), reduction="sum"))
        tokens += len(ids)
    nats, count = text_nats(lm, texts)
    assert count == tokens
    assert float(nats) == pytest.approx(total, rel=1e-5)
    assert text_nats(lm, ["", ""]) == (0.0, 0)


def test_loss_falls_with_the_reward_and_stays_finite() -> None:
    loss = transfer_loss(torch.tensor([0.0, 25.0, 100.0]))
    assert loss.tolist() == pytest.approx([math.log(10_000), math.log(4), 0.0])
