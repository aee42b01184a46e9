"""Whatever a model makes of positions, caches and masks: each pass gives what plain rows give."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from lightning_prompts.cli.main import main
from lightning_prompts.lm.batch import collate
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.lm.generation.sampling import (
    TransferBatch,
    sample_texts,
    token_limit,
    uniforms,
)
from lightning_prompts.lm.template import Template
from lightning_prompts.tuners.rl.policy import Policy, PolicySettings
from tests.lm.types_table import (
    FIRST,
    LAST,
    TEXTS,
    WAYS,
    apart,
    documented,
    make_batch,
    one_by_one,
    prompt_ids,
    read_all,
    table,
    text_types,
)
from tests.model_types import save_type

# One that places tokens by column of the keys, one by its own mask, one with windows of its own,
# one with convolutions between its attention layers.
FEW = ["mpt", "bloom", "gpt_neo", "lfm2"]


@pytest.fixture(scope="module", params=FEW)
def lm(
    request: pytest.FixtureRequest, lm_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> FrozenLM:
    """A tiny model of a type that cannot be reused in every way."""
    folder = tmp_path_factory.mktemp("model")
    save_type(request.param, lm_folder, folder)
    return FrozenLM(str(folder))


@torch.no_grad()
def plain(lm: FrozenLM, row: Tensor) -> Tensor:
    """[T, V] The model's own logits of one row [T, H]: no cache, mask or padding."""
    return lm.model(inputs_embeds=row[None], use_cache=False).logits[0].float()


@pytest.mark.parametrize("text", [FIRST, LAST])
def test_sixteen_prompts(lm: FrozenLM, text: str, monkeypatch: pytest.MonkeyPatch):
    ids, batch = prompt_ids(16), make_batch(lm, text)
    expected = one_by_one(lm, lm.embed(ids), text)
    for gib in (0.0, 1.0, 1.0):  # the last time texts are kept
        monkeypatch.setattr(lm.text_cache, "gib", gib)
        assert apart(lm.logits(lm.answers(ids, batch)), expected) < 1e-4
        one = lm.logits(lm.answers(lm.embed(ids[:1]), batch))
        assert apart(one, expected[:1]) < 1e-4


@pytest.mark.parametrize("text", [FIRST, LAST])
def test_gradients(lm: FrozenLM, text: str):
    own, reference = (lm.embed(prompt_ids(1)).requires_grad_() for _ in range(2))
    lm.logits(lm.answers(own, make_batch(lm, text)))[..., 9].sum().backward()
    before, after = text.split("{prompt}")
    for value in TEXTS:
        ids = [lm.encode(piece.format(text=value)) for piece in (before, after)]
        ends = [lm.embed(torch.tensor(piece, dtype=torch.long)) for piece in ids]
        row = torch.cat([ends[0], reference[0], ends[1]])[None]
        lm.model(inputs_embeds=row, use_cache=False).logits[0, -1, 9].backward()
    assert own.grad is not None
    assert reference.grad is not None
    assert float(reference.grad.abs().max()) > 1e-4
    assert apart(own.grad, reference.grad) < 1e-3


def written(lm: FrozenLM) -> float:
    """How far apart a policy's states are from those of whole rows."""
    policy = Policy(PolicySettings(mlp_size=8), lm, 9)
    sampled = policy.sample(lm, 3, torch.Generator().manual_seed(0))
    starts = [torch.tensor([lm.bos_id, *row[:-1]]) for row in sampled.token_ids.tolist()]
    expected = torch.stack([plain(lm, lm.embed(ids)) for ids in starts])
    return apart(lm.logits(sampled.hidden), expected)


def test_what_a_policy_writes(lm: FrozenLM):
    assert written(lm) < 1e-4


def test_perplexity(lm: FrozenLM):
    ids = prompt_ids(2)
    for row, got in zip(ids, lm.token_nll(ids), strict=True):
        whole = plain(lm, lm.embed(torch.tensor([lm.bos_id, *row[:-1].tolist()])))
        expected = -whole.log_softmax(-1)[torch.arange(3), row]
        torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-3)


def sampled_wrong(lm: FrozenLM, count: int) -> int:
    """How many of two prompts' samples differ from those drawn with whole rows."""
    ids, sources = prompt_ids(2), ["Dull.", "Good"]
    examples = [Template("Re {text}:{prompt} go", lm).encode({"text": t}) for t in sources]
    batch = collate(examples, [0, 0], [0, 1])
    transfer: Any = {**batch, "sources": sources, "references": [[], []]}
    got = sample_texts(lm, ids, TransferBatch(**transfer), [(0, 0), (1, 1)], count, seed=0)
    wrong = 0
    special = set(lm.special_ids)
    for k, texts in enumerate(got):
        start = examples[k].before_ids + ids[k].tolist() + examples[k].after_ids
        limit = token_limit(len(lm.encode(sources[k])))
        luck = uniforms(0, k, count, limit)
        for text, numbers in zip(texts, luck, strict=True):
            new: list[int] = []
            for number in numbers:
                best = plain(lm, lm.embed(torch.tensor(start + new)))[-1].topk(10)
                shares = best.values.double().softmax(-1).cumsum(-1)
                new.append(int(best.indices[int((shares <= number).sum().clamp(max=9))]))
                if new[-1] in special or lm.decode(new[-1:]) in '".!?':
                    break
            wrong += text != lm.decode([i for i in new if i not in special])
    return wrong


def test_samples(lm: FrozenLM):
    assert sampled_wrong(lm, 1) == 0


def test_one_notice_says_what_is_read_anew(
    lm: FrozenLM, caplog: pytest.LogCaptureFixture, tmp_path: Path
):
    caplog.set_level(logging.INFO, "lightning_prompts")
    kind = lm.model.config.model_type
    for given in ("auto", True, False):  # what is asked for changes no number
        caplog.clear()
        again = FrozenLM(lm.name, reuse_prompt=given)
        assert again.ways == lm.ways
        said = [record.getMessage() for record in caplog.records]
        assert len(said) == 1
        assert f"({kind})" in said[0]
        assert "what samples begin with" in said[0]
        whole = given is not False and kind == "lfm2"
        assert ("prompts before texts" in said[0]) is whole
        several = given is not False and kind in ("mpt", "bloom")
        assert ("several prompts" in said[0]) is several


def test_a_usual_model_is_reused_in_every_way(lm_folder: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, "lightning_prompts")
    for dtype in ("float32", "bfloat16", "float16"):
        assert all(FrozenLM(str(lm_folder), dtype=dtype).ways)
    assert not caplog.records


def test_the_table_has_every_type_of_transformers_once():
    if f"transformers {transformers.__version__}," not in documented():
        pytest.skip(f"docs/models.md is not of transformers {transformers.__version__}")
    rows = [line.strip("| ").split(" | ") for line in documented().splitlines()]
    ways = [row[-1] for row in rows if row[0] in WAYS]
    named = [kind for kinds in ways for kind in kinds.split(", ")]
    refused = [row[0] for row in rows if len(row) == 2 and row[0] in text_types()]
    assert sorted(named + refused) == text_types()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mpt", "bloom"])
def test_a_prompt_has_one_loss(
    kind: str,
    lm_folder: Path,
    review_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    """Among the prompts that were tried, 16 at a time, and alone in the closing table."""
    save_type(kind, lm_folder, tmp_path / "lm")
    monkeypatch.chdir(tmp_path)
    configs = Path(__file__).resolve().parents[2] / "configs"
    main(
        [
            *("fit", f"--config={configs}/tuner/rlprompt.yaml"),
            *(f"--config={configs}/task/sst2.yaml", "--data.template={text}{prompt}"),
            *(f"--data.path={review_folder}", f"--lm.name={tmp_path / 'lm'}"),
            *(
                "--data.text_column=text",
                '--data.verbalizer={"negative": " bad", "positive": " good"}',
            ),
            *("--data.batch_size=8", "--trainer.max_steps=4", "--trainer.val_check_interval=2"),
            *("--trainer.accelerator=cpu", "--experiment=one"),
        ]
    )
    run = tmp_path / "logs" / "one" / "version_0"
    best = json.loads((run / "prompt.json").read_text(encoding="utf-8"))
    tried = (run / "prompts.jsonl").read_text(encoding="utf-8").splitlines()
    (same,) = [row for row in map(json.loads, tried) if row["ids"] == best["ids"]]
    assert same["val_loss"] == pytest.approx(best["metrics"]["val/loss"], rel=1e-4)
    assert same["val_accuracy"] == pytest.approx(best["metrics"]["val/accuracy"])


@pytest.mark.slow
def test_the_table_is_what_is_found(lm_folder: Path):
    """Each type built tiny: its own logits and gradients in both orders, or a true reason."""
    if f"transformers {transformers.__version__}," not in documented():
        pytest.skip(f"docs/models.md is not of transformers {transformers.__version__}")
    found = dict(read_all(lm_folder, text_types()))
    assert not [f"{kind}: {read.why}" for kind, read in found.items() if read.how == "failed"]
    works = sum(read.how in WAYS for read in found.values())
    assert works >= 0.95 * len(found)
    assert table(found) == documented()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gemma3_text", "biogpt", "bert", "rembert", "minicpm3", "lfm2"])
def test_policies_and_samples_of_other_ends(kind: str, lm_folder: Path, tmp_path: Path):
    """Models that scale or widen what they read, or transform what they have read."""
    save_type(kind, lm_folder, tmp_path)
    lm = FrozenLM(str(tmp_path))
    assert written(lm) < 1e-4
    assert sampled_wrong(lm, 1) == 0
