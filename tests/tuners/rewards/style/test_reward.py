"""The style-transfer reward against loops over plain numbers, with classifiers that can be read."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_prompts.files.errors import PromptError
from lightning_prompts.lm.batch import collate
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.lm.generation.sampling import TransferBatch, clean, sample_texts
from lightning_prompts.lm.template import Template
from lightning_prompts.lm.verbalizer import Verbalizer
from lightning_prompts.tuners.rewards.style import reward as style_transfer
from lightning_prompts.tuners.rewards.style.reward import StyleTransfer
from lightning_prompts.tuners.rewards.style.rewrites import style_column, style_scores

TEXTS = ("the food was cold", "we waited an hour for it", "no")
LABELS = ("0", "1")
PROMPTS = torch.randint(5, 100, (6, 4), generator=torch.Generator().manual_seed(0))


class Vowels:
    """The share of vowels is the probability of the second style."""

    name, labels, accuracy = "vowels", LABELS, 0.875

    def __init__(self, vowels: str = "aeiou") -> None:
        self.vowels = vowels
        self.seen: list[list[str]] = []

    def of(self, text: str) -> float:
        return sum(c in self.vowels for c in text) / len(text)

    def __call__(self, texts: Sequence[str]) -> Tensor:
        self.seen.append(list(texts))
        shares = torch.tensor([self.of(text) for text in texts])
        return torch.stack([1 - shares, shares], dim=1)


def shared_characters(outputs: Sequence[str], sources: Sequence[str]) -> Tensor:
    """A content score: distinct characters in common, as a share of the source's."""
    pairs = zip(outputs, sources, strict=True)
    return torch.tensor([100.0 * len(set(o) & set(s)) / len(set(s)) for o, s in pairs])


Make = Callable[..., StyleTransfer]


@pytest.fixture
def make(lm: FrozenLM, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Makes a reward whose scorers are simple; `--judge` counts other letters."""
    scorers: dict[str, Any] = {"style": Vowels(), "judge": Vowels("rstln")}
    monkeypatch.setattr(style_transfer, "load_style", lambda source, lm: scorers[source])
    monkeypatch.setattr(style_transfer, "ContentScore", lambda lm, encoder: shared_characters)

    def made(**options: Any) -> StyleTransfer:
        reward = StyleTransfer("style", **{"samples": 4, "bootstraps": 3, "top_k": 20, **options})
        template = Template('{prompt} "{text}" "', lm)
        reward.attach(lm, template, Verbalizer({"0": " bad", "1": " good"}, lm))
        return reward

    return made


def batch_of(lm: FrozenLM, texts: Sequence[str] = TEXTS, target: int = 1) -> TransferBatch:
    template = Template('{prompt} "{text}" "', lm)
    batch = collate(
        [template.encode({"text": text}) for text in texts],
        [target] * len(texts),
        range(len(texts)),
    )
    references = [[text, f"{text} indeed"] for text in texts]
    return TransferBatch(**batch, sources=list(texts), references=references)


def same(values: Tensor) -> Tensor:
    return values


def score(text: str, source: str, target: int = 1) -> tuple[float, float]:
    """Content and style of one rewrite."""
    share = Vowels().of(text) if text else float(1 - target)
    style = share if target else 1 - share
    return float(shared_characters([text], [source])), 100 * style


@pytest.mark.parametrize("target", [0, 1])
def test_reward_is_the_mean_of_the_draws_best(lm: FrozenLM, make: Make, target: int) -> None:
    reward, batch = make(), batch_of(lm, target=target)
    scores = reward(PROMPTS, batch, 7, same)
    pairs = [(k, k // 2) for k in range(6)]
    sampled = sample_texts(lm, PROMPTS, batch, pairs, 12, 7, top_k=20)
    maxima: list[list[float]] = []
    for (k, b), raw in zip(pairs, sampled, strict=True):
        parts = [score(clean(text), TEXTS[b], target) for text in raw]
        totals = [sum(part) / 2 for part in parts]
        best = [max(range(d, d + 4), key=totals.__getitem__) for d in (0, 4, 8)]
        maxima.append([totals[i] for i in best])
        values = {name: float(value[k]) for name, value in scores.components.items()}
        assert values["content"] == pytest.approx(sum(p[0] for p in parts) / 12, abs=1e-4)
        assert values["style"] == pytest.approx(sum(p[1] for p in parts) / 12, abs=1e-4)
        assert values["best_content"] == pytest.approx(sum(parts[i][0] for i in best) / 3, abs=1e-4)
        assert values["best_style"] == pytest.approx(sum(parts[i][1] for i in best) / 3, abs=1e-4)
    for k in range(6):
        assert float(scores.raw[k]) == pytest.approx(sum(maxima[k]) / 3, abs=1e-4)
        first = k - k % 2  # the two prompts of one source are compared with one another
        together = maxima[first] + maxima[first + 1]
        mean = sum(together) / 6
        deviation = math.sqrt(sum((m - mean) ** 2 for m in together) / 6)
        z = (sum(maxima[k]) / 3 - mean) / (deviation + 1e-4)
        assert float(scores.z[k]) == pytest.approx(z, abs=1e-3)
        assert float(scores.gain[k]) == pytest.approx(sum(maxima[k]) / 3 - mean, abs=1e-4)
    assert scores.z.abs().max() > 0.1
    read = 0
    for (k, b), raw in zip(pairs, sampled, strict=True):
        for text in raw:
            prompt, source = PROMPTS[k].tolist(), lm.encode(f' "{TEXTS[b]}" "')
            read += len(prompt) + len(source) + len(lm.encode(clean(text)))
    assert scores.num_tokens == read


def test_equal_prompts_score_equally_and_z_stays_finite(lm: FrozenLM, make: Make) -> None:
    reward = make(samples=1, bootstraps=1)
    scores = reward(PROMPTS[:1].expand(6, -1), batch_of(lm), 0, same)
    assert torch.equal(scores.raw[0::2], scores.raw[1::2])
    assert scores.z.abs().max() < 1e-6


def test_samples_follow_the_seed(lm: FrozenLM, make: Make) -> None:
    reward, batch = make(), batch_of(lm)
    first = reward(PROMPTS, batch, 1, same)
    assert torch.equal(first.raw, reward(PROMPTS, batch, 1, same).raw)
    assert not torch.equal(first.raw, reward(PROMPTS, batch, 2, same).raw)


def test_validation_takes_the_best_rewrite_of_each_row(lm: FrozenLM, make: Make) -> None:
    reward = make(val_samples=5, seed=3)
    measures = reward.measures("val", same)
    # In two batches, the last row first: the order of batches does not count.
    whole = batch_of(lm)
    pairs = [(k, b) for k in range(6) for b in range(3)]
    for rows in ([2], [0, 1]):
        part = batch_of(lm, [TEXTS[b] for b in rows])
        part["rows"] = torch.tensor(rows)
        measures.update(PROMPTS, part)
    values = measures.compute()
    sampled = sample_texts(lm, PROMPTS, whole, pairs, 5, 3, top_k=20)
    for k in range(6):
        best = []
        for b in range(3):
            parts = [score(clean(text), TEXTS[b]) for text in sampled[3 * k + b]]
            best.append(max(parts, key=sum))
        content, style = (sum(column) / 3 for column in zip(*best, strict=True))
        assert float(values["content"][k]) == pytest.approx(content, abs=1e-4)
        assert float(values["style"][k]) == pytest.approx(style, abs=1e-4)
        assert float(values["reward"][k]) == pytest.approx((content + style) / 2, abs=1e-4)
        loss = -math.log((content + style) / 200)
        assert float(values["loss"][k]) == pytest.approx(loss, abs=1e-4)
    assert set(values) == {"loss", "reward", "content", "style"}


def test_final_test_asks_the_judge(lm: FrozenLM, make: Make) -> None:
    reward = make(judge="judge", test_samples=6)
    measures = reward.measures("test", same)
    measures.update(PROMPTS[:2], batch_of(lm))
    values = measures.compute()
    outputs = measures.outputs[1]  # type: ignore[attr-defined]
    assert [o.source for o in outputs] == list(TEXTS)
    judged = [100 * Vowels("rstln").of(o.text) if o.text else 0.0 for o in outputs]
    content = [float(shared_characters([o.text], [o.source])) for o in outputs]
    assert float(values["style_judge"][1]) == pytest.approx(sum(judged) / 3, abs=1e-4)
    joint = sum(c * j / 100 for c, j in zip(content, judged, strict=True)) / 3
    assert float(values["joint"][1]) == pytest.approx(joint, abs=1e-4)
    gm = math.sqrt(sum(content) / 3 * sum(judged) / 3)
    assert float(values["gm"][1]) == pytest.approx(gm, abs=1e-4)
    assert values["style_accuracy"].tolist() == values["judge_accuracy"].tolist() == [87.5] * 2
    assert all(value.shape == (2,) for value in values.values())
    nats, tokens = 0.0, 0
    for output in outputs:
        if ids := lm.encode(output.text):
            nats += float(lm.token_nll(torch.tensor([ids])).sum())
            tokens += len(ids)
    assert float(values["fluency_perplexity"][1]) == pytest.approx(
        math.exp(nats / tokens), rel=1e-4
    )
    assert 0 <= float(values["bleu"][1]) < 100
    # The table shows all of it, the reward and its logarithm aside, and beneath it how good the
    # classifiers are.
    below = {"loss", "reward", "style_accuracy", "judge_accuracy"}
    assert {*reward.columns("test").values(), *below} == set(values)
    assert "the judge gets 87.5 % of the test sentences right" in reward.legend("test")


def test_the_final_test_compares_with_no_prompt_copies_and_people(lm: FrozenLM, make: Make) -> None:
    reward = make(test_samples=2, judge="judge")
    batch = batch_of(lm)
    batch["references"] = [[text.upper(), text] for text in TEXTS]
    measures = reward.measures("test", same)
    measures.update(PROMPTS[:1], batch)
    found = measures.comparisons()
    assert list(found) == ["no prompt", "sources copied", "a person's rewrite"]
    alone = reward.measures("test", same)
    alone.update(PROMPTS[:1, :0], batch)
    for name, value in alone.compute().items():
        assert found["no prompt"][name] == pytest.approx(float(value[0])), name
    copied = [score(text, text) for text in TEXTS]
    assert found["sources copied"]["content"] == pytest.approx(sum(c for c, _ in copied) / 3)
    assert found["sources copied"]["style"] == pytest.approx(sum(s for _, s in copied) / 3)
    assert found["sources copied"]["bleu"] == pytest.approx(100.0, abs=0.1)
    people = [score(text.upper(), text)[0] for text in TEXTS]
    assert found["a person's rewrite"]["content"] == pytest.approx(sum(people) / 3)


def test_without_a_judge_nothing_stands_in_for_it(lm: FrozenLM, make: Make) -> None:
    reward = make(test_samples=2)
    measures = reward.measures("test", same)
    assert not {"style_judge", "joint", "gm"} & {*reward.columns("test").values()}
    assert "the judge gets" not in reward.legend("test")
    assert set(reward.columns("val").values()) == {"content", "style", "reward"}
    batch = batch_of(lm)
    batch["references"] = [[] for _ in TEXTS]
    measures.update(PROMPTS[:2], batch)
    assert set(measures.compute()) == {
        *("loss", "reward", "content", "style", "fluency_perplexity", "style_accuracy")
    }


def test_style_of_texts() -> None:
    scorer = Vowels()
    texts = ["aab", "", "bbb", "aab"]
    found = style_scores(scorer, texts, [1, 1, 0, 0], LABELS)
    assert found.tolist() == pytest.approx([200 / 3, 0.0, 100.0, 100 / 3])
    assert scorer.seen == [["aab", "bbb"]]  # each distinct text once, the empty one never
    assert style_scores(scorer, ["", ""], [1, 0], LABELS).tolist() == [0.0, 0.0]


def test_columns_are_found_by_name_then_by_place() -> None:
    scorer = Vowels()
    assert style_column(scorer, ("1", "0"), 0) == 1
    assert style_column(scorer, ("negative", "positive"), 1) == 1
    scorer.labels = ("anger", "joy", "fear")  # type: ignore[assignment]
    with pytest.raises(
        PromptError, match=r"vowels tells 'anger', 'joy', 'fear' apart, not '0', '1'"
    ):
        style_column(scorer, LABELS, 0)


@pytest.mark.parametrize(("count", "used"), [(6, 3), (4, 2), (2, 1)])
def test_sources_are_used_as_far_as_prompts_can_be_compared(
    lm: FrozenLM, make: Make, count: int, used: int
) -> None:
    """Of four sentences: with one prompt on each, every prompt would score as well as any."""
    reward, four = make(), (*TEXTS, "x")
    scores = reward(PROMPTS[:count], batch_of(lm, four), 0, same)
    expected = reward(PROMPTS[:count], batch_of(lm, four[:used]), 0, same)
    assert torch.equal(scores.raw, expected.raw)
    assert torch.equal(scores.z, expected.z)
    assert scores.z.abs().sum() > 0


def test_mistakes_are_said_in_one_sentence(
    lm: FrozenLM, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(PromptError, match=r"samples is 0"):
        make(samples=0)
    reward = make()
    plain = {k: v for k, v in batch_of(lm).items() if k not in ("sources", "references")}
    with pytest.raises(PromptError, match=r"task has none to rewrite; .*configs/task/yelp.yaml"):
        reward(PROMPTS, plain, 0, same)  # type: ignore[arg-type]
    words = Verbalizer({"0": " bad", "1": " good"}, lm)
    with pytest.raises(PromptError, match="does not end with a quote"):
        StyleTransfer("style").attach(lm, Template("{prompt} {text} It was", lm), words)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    with pytest.raises(PromptError, match=r"this run has 2; set Trainer\(devices=1\)"):
        reward(PROMPTS, batch_of(lm), 0, same)


def test_missing_classifier_is_named_before_any_work(lm: FrozenLM, tmp_path: Any) -> None:
    reward = StyleTransfer(str(tmp_path / "reward"))
    template = Template('{prompt} "{text}" "', lm)
    reward.attach(lm, template, Verbalizer({"0": " bad", "1": " good"}, lm))
    with pytest.raises(PromptError, match=r"lightning-prompts style"):
        reward.measures("val", same)
