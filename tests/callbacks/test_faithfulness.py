"""Every value against float64 brute force; exact zeros; which passes are made, and which not."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_prompts.callbacks import Faithfulness
from lightning_prompts.lm.batch import Batch
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.tuners import PEZ, SoftPrompt

from .conftest import (
    FIRST,
    LAST,
    WORDS,
    MakeTask,
    Reference,
    count_passes,
    learned,
    loss_and_accuracy,
    read,
    validated,
    written,
)


def cosine(left: Tensor, right: Tensor) -> float:
    return 1 - (left @ right / left.norm() / right.norm()).item()


def euclidean(left: Tensor, right: Tensor) -> float:
    return math.sqrt(sum((a - b) ** 2 for a, b in zip(left.tolist(), right.tolist(), strict=True)))


@pytest.mark.parametrize("template", [FIRST, LAST])
@pytest.mark.parametrize("kind", [SoftPrompt, PEZ])
def test_every_value_is_brute_force(
    kind: type[SoftPrompt],
    template: str,
    make_task: MakeTask,
    reference: Reference,
    review_folder: Path,
) -> None:
    task = make_task(template)
    tuner = learned(kind, task)
    got = validated(tuner, task, Faithfulness())

    texts, labels = read(review_folder, "validation")
    words = [reference.encode(word)[0] for word in WORDS.values()]
    soft, ids = tuner.soft_prompt().detach().double(), tuner.hard_prompt().tolist()
    soft_logits = reference.answers(template, texts, soft)
    hard_logits = reference.answers(template, texts, reference.table[ids])
    soft_loss, soft_accuracy = loss_and_accuracy(soft_logits[:, words], labels)
    hard_loss, hard_accuracy = loss_and_accuracy(hard_logits[:, words], labels)
    pasted = reference.pasted(template, texts, reference.tokenizer.decode(ids))
    expected = {
        "hard_loss": hard_loss,
        "hard_accuracy": hard_accuracy,
        "loss_differential": abs(soft_loss - hard_loss),
        "accuracy_differential": abs(soft_accuracy - hard_accuracy),
        "output_differential": (soft_logits - hard_logits).square().mean().item(),
        "round_trip": 1.0,
        "round_trip_accuracy": loss_and_accuracy(pasted[:, words], labels)[1],
        "compared_rows": len(texts),
    }
    for name, far in (("cosine", cosine), ("euclidean", euclidean)):
        minima = [min(far(vector, row) for row in reference.table) for vector in soft]
        expected[f"distance_differential_{name}"] = sum(minima) / len(minima)
    if kind is PEZ:  # its iterate is not the prompt in use
        expected |= {"soft_loss": soft_loss, "soft_accuracy": soft_accuracy}
    in_use = (soft_loss, soft_accuracy) if kind is SoftPrompt else (hard_loss, hard_accuracy)

    assert (got["val/loss"], got["val/accuracy"]) == pytest.approx(in_use, abs=1e-5)
    assert expected["output_differential"] > 1e-3
    own = {f"val/{name}": value for name, value in expected.items()}
    others = {"val/loss", "val/accuracy", "val/macro_f1", "val/objective"}
    assert {k: v for k, v in got.items() if k not in others} == pytest.approx(own, abs=1e-5)


def test_a_soft_prompt_of_token_rows_is_perfectly_faithful(make_task: MakeTask) -> None:
    task = make_task()
    tuner = learned(SoftPrompt, task)
    tuner.prompt.data = task.lm.embed(torch.tensor([9, 30, 2])).clone()
    got = validated(tuner, task, Faithfulness())
    assert {value for name, value in got.items() if "differential" in name} == {0.0}
    assert got["val/hard_loss"] == got["val/loss"]


def test_what_pez_uses_is_its_tokens_exactly(make_task: MakeTask) -> None:
    task = make_task()
    tuner = learned(PEZ, task)
    rows = task.lm.embed(tuner.hard_prompt())
    assert torch.equal(tuner.prompt_embeddings(), rows)
    assert not torch.equal(tuner.soft_prompt(), rows)
    got = validated(tuner, task, Faithfulness())
    assert got["val/hard_loss"] == got["val/loss"]
    assert got["val/hard_accuracy"] == got["val/accuracy"]
    assert got["val/loss_differential"] > 1e-4  # the iterate's, which has drifted


def test_a_written_prompt_needs_no_pass_and_differs_from_nothing(
    make_task: MakeTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = make_task()
    tuner = written(task, " a good film")
    passes = count_passes(tuner, monkeypatch)
    got = validated(tuner, task, Faithfulness())
    assert passes == [4, 4, 2]  # the steps' own
    assert {value for name, value in got.items() if "differential" in name} == {0.0}
    assert "val/soft_loss" not in got
    assert got["val/round_trip_accuracy"] == got["val/accuracy"]


def test_text_that_tokenizes_anew(
    make_task: MakeTask,
    reference: Reference,
    review_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Letters become one word, " good", and another merges across the prompt's border."""
    task = make_task("{text} gre{prompt}t so it was")
    tuner = written(task, "ax")
    spelled = [reference.encode(letter)[0] for letter in "a good"[1:]]
    ids = [*reference.encode("a"), *spelled]
    tuner.token_ids = torch.tensor(ids)
    passes = count_passes(tuner, monkeypatch)
    got = validated(tuner, task, Faithfulness())

    assert task.lm.decode(ids) == "a good"
    assert len(reference.encode("a good")) == 2
    assert got["val/round_trip"] == pytest.approx(1 - 5 / 6)  # 4 deletions, 1 substitution
    assert passes == [4, 4, 4, 4, 2, 2]
    texts, labels = read(review_folder, "validation")
    words = [reference.encode(word)[0] for word in WORDS.values()]
    pasted = reference.pasted("{text} gre{prompt}t so it was", texts, "a good")[:, words]
    assert got["val/round_trip_accuracy"] == loss_and_accuracy(pasted, labels)[1]


@pytest.mark.parametrize(
    ("template", "prompt", "before"),
    [
        (FIRST, "a good", "prompt"),
        (LAST, "a good", "texts"),
        ("{text}{prompt} it was", "a good", "texts"),
        ("{text} grea{prompt} it was", "t", "beginnings"),
    ],
)
def test_a_pasted_text_shares_what_it_can(
    template: str,
    prompt: str,
    before: str,
    make_task: MakeTask,
    reference: Reference,
    review_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The prompt that comes first, or the texts that do, as far as the border where it merges."""
    task = make_task(template)
    tuner = written(task, "ax")
    tuner.token_ids = torch.tensor([reference.encode(letter)[0] for letter in prompt])
    pasted = []
    run = tuner.lm.answer_hidden

    def watched(embeds: Tensor, batch: Batch, *tree: Any) -> Tensor:
        if not len(embeds):
            pasted.append((task.lm.decode(batch["before_ids"][0].tolist()), batch))
        return run(embeds, batch, *tree)

    monkeypatch.setattr(tuner.lm, "answer_hidden", watched)
    got = validated(tuner, task, Faithfulness())
    assert [len(batch["labels"]) for _, batch in pasted] == [4, 4, 2]
    for text, batch in pasted:
        if before == "prompt":
            assert text.startswith(prompt)
            assert batch["shared_before"]
        elif before == "texts":
            assert text == batch["texts"][0][0]  # of the longest row, which is without padding
            assert not batch["shared_before"]
        else:
            assert batch["texts"][0][0] == text + " grea"
            assert not batch["shared_before"]
    texts, labels = read(review_folder, "validation")
    words = [reference.encode(word)[0] for word in WORDS.values()]
    logits = reference.pasted(template, texts, prompt)[:, words]
    accuracy = loss_and_accuracy(logits, labels)[1]
    assert got["val/round_trip_accuracy"] == pytest.approx(accuracy)


def test_border_merges_count_although_the_prompt_alone_survives(
    make_task: MakeTask, reference: Reference, review_folder: Path
) -> None:
    template = "{text} grea{prompt} it was"
    task = make_task(template)
    tuner = written(task, "t")
    got = validated(tuner, task, Faithfulness())
    assert got["val/round_trip"] == 1.0
    texts, labels = read(review_folder, "validation")
    words = [reference.encode(word)[0] for word in WORDS.values()]
    rows = [
        reference.pasted(template, texts, "t"),
        reference.answers(template, texts, reference.table[reference.encode("t")]),
    ]
    assert (rows[0] - rows[1]).abs().max() > 0.01
    assert got["val/round_trip_accuracy"] == loss_and_accuracy(rows[0][:, words], labels)[1]


def test_a_text_too_long_for_the_model_loses_its_beginning(
    make_task: MakeTask,
    reference: Reference,
    review_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As where a token's text takes many tokens: the pasted row passes the last position."""
    task = make_task(max_tokens=253)
    tuner = written(task, "abc")
    text = "a longer text than its ids " * 9
    monkeypatch.setattr(task.lm, "decode", lambda ids: text)
    got = validated(tuner, task, Faithfulness())
    assert got["val/round_trip"] == pytest.approx(1 / len(text), abs=1e-6)  # "a" is left of "abc"

    texts, labels = read(review_folder, "validation")
    rows = [reference.encode(FIRST.format(prompt=text, text=each)) for each in texts]
    assert min(map(len, rows)) > task.lm.max_positions
    ends = [row[-task.lm.max_positions :] for row in rows]
    logits = torch.stack([reference.all_logits(reference.table[row])[-1] for row in ends])
    words = [reference.encode(word)[0] for word in WORDS.values()]
    assert got["val/round_trip_accuracy"] == loss_and_accuracy(logits[:, words], labels)[1]


def test_max_batches_compares_the_same_rows(
    make_task: MakeTask, monkeypatch: pytest.MonkeyPatch, reference: Reference, review_folder: Path
) -> None:
    task = make_task()
    tuner = learned(SoftPrompt, task)
    passes = count_passes(tuner, monkeypatch)
    got = validated(tuner, task, Faithfulness(max_batches=1))
    assert passes == [4, 4, 4, 2]
    texts, labels = read(review_folder, "validation")
    longest = sorted(range(10), key=lambda i: -len(reference.encode(texts[i])))[:4]
    words = [reference.encode(word)[0] for word in WORDS.values()]
    losses = []
    for prompt in (tuner.soft_prompt(), reference.table[tuner.hard_prompt()]):
        logits = reference.answers(FIRST, [texts[i] for i in longest], prompt.detach())
        losses.append(loss_and_accuracy(logits[:, words], [labels[i] for i in longest])[0])
    assert got["val/loss_differential"] == pytest.approx(abs(losses[0] - losses[1]), abs=1e-5)


@pytest.mark.parametrize("template", [FIRST, LAST, "Say:{prompt} {text}"])
def test_output_differential_at_the_prompt(
    template: str, make_task: MakeTask, reference: Reference, review_folder: Path
) -> None:
    task = make_task(template)
    tuner = learned(SoftPrompt, task)
    got = validated(tuner, task, Faithfulness(positions="prompt"))
    differences = []
    for text in read(review_folder, "validation")[0]:
        start = len(reference.encode(template.split("{prompt}")[0].format(text=text)))
        soft, hard = (
            reference.positions(template, text, prompt.detach())[start : start + 3]
            for prompt in (tuner.soft_prompt(), reference.table[tuner.hard_prompt()])
        )
        differences.append((soft - hard).square().mean().item())
    expected = sum(differences) / len(differences)
    assert got["val/output_differential"] == pytest.approx(expected, rel=1e-4)


def test_passes_are_made_in_the_precision_of_the_steps(make_task: MakeTask) -> None:
    """A hook outside autocast would compute in float32 and find differences that are not there."""
    task = make_task()
    tuner = learned(SoftPrompt, task)
    tuner.prompt.data = task.lm.embed(torch.tensor([9, 30, 2])).clone()
    losses = {}
    for precision in ("32-true", "bf16-mixed"):
        got = validated(tuner, task, Faithfulness(), precision=precision)
        assert {value for name, value in got.items() if "differential" in name} == {0.0}
        losses[precision] = got["val/hard_loss"]
    assert losses["32-true"] != losses["bf16-mixed"]


def test_special_tokens_count_as_neighbours(make_task: MakeTask, lm: FrozenLM) -> None:
    """The minimum is over the whole vocabulary, whatever the hard prompt may use."""
    task = make_task()
    tuner = learned(SoftPrompt, task)
    tuner.prompt.data = lm.embed(torch.tensor([lm.bos_id] * 3)).clone()
    assert lm.bos_id not in tuner.hard_prompt().tolist()
    got = validated(tuner, task, Faithfulness())
    assert got["val/distance_differential_cosine"] == 0.0
    assert got["val/distance_differential_euclidean"] == 0.0
    assert got["val/output_differential"] > 1e-4
