"""A search after a soft prompt's answers: KL by plain transformers, what is kept, and mistakes."""

import copy
import json
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_prompts.cli.main import main
from lightning_prompts.files.errors import PromptError
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.tasks import TextClassification
from lightning_prompts.tuners import GuidedSearch, SoftPrompt
from lightning_prompts.tuners.search.candidates import EditSettings
from lightning_prompts.tuners.search.ledger import Ids
from tests.resuming import assert_resumes_after_a_signal
from tests.searching import FIRST, LAST, ROWS, SPLITS, WORDS, trainer_in
from tests.tiny import save_model


def task_of(lm: FrozenLM, template: str = LAST, **options: Any) -> TextClassification:
    options = {"verbalizer": WORDS, "data": SPLITS, "batch_size": 8, "val_batch_size": 2} | options
    return TextClassification(lm, template, **options)


def build(task: TextClassification, **options: Any) -> GuidedSearch:
    options = {
        **{"prompt_length": 4, "min_length": 3, "max_length": 5, "candidates": 8, "beam": 2},
        **{"race": [], "contenders": 2, "perplexity_weight": 0.2},
        **options,
    }
    return GuidedSearch(task.lm, task.template, task.verbalizer, **options)


def soft(task: TextClassification, folder: Path, seed: int = 0) -> tuple[Path, Tensor]:
    """A checkpoint of vectors that are no tokens', six of them, and the vectors."""
    tuner = SoftPrompt(task.lm, task.template, task.verbalizer, prompt_length=6)
    trainer = trainer_in(folder, 1)
    trainer.fit(tuner, datamodule=task)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        tuner.prompt.copy_(torch.randn(tuner.prompt.shape, generator=generator) * 0.5)
    trainer.save_checkpoint(path := folder / f"soft{seed}.ckpt")
    return path, tuner.prompt.detach().clone()


class Exact:
    """The tiny model in float64, one row at a time."""

    def __init__(self, lm: FrozenLM) -> None:
        self.lm, self.model = lm, copy.deepcopy(lm.model).double().eval()
        self.table = self.model.get_input_embeddings().weight
        self.log_shares = cache(self._log_shares)  # a tensor's key is its identity

    @torch.no_grad()
    def _log_shares(self, template: str, prompt: Tensor, text: str) -> Tensor:
        before, after = (
            self.table[torch.tensor(self.lm.encode(piece.format(text=text))).long()]
            for piece in template.split("{prompt}")
        )
        inputs = torch.cat([before, prompt.double(), after])[None]
        logits = self.model(inputs_embeds=inputs).logits[0, -1]
        return logits[[self.lm.encode(word)[0] for word in WORDS.values()]].log_softmax(-1)

    @torch.no_grad()
    def nats(self, ids: Ids) -> float:
        read = torch.tensor([[self.lm.bos_id, *ids]])
        log_p = self.model(read).logits[0, :-1].log_softmax(-1)
        return -float(log_p.gather(-1, read[0, 1:, None]).mean())

    def kl(self, template: str, vectors: Tensor, ids: Ids, split: str) -> float:
        total, prompt = 0.0, self.table[list(ids)]
        for row in SPLITS[split]:
            p = self.log_shares(template, vectors, row["text"])
            q = self._log_shares(template, prompt, row["text"])
            total += float((p.exp() * (p - q)).sum())
        return total / len(SPLITS[split])


@pytest.mark.parametrize("template", [FIRST, LAST])
def test_the_twin_has_the_lowest_kl(template: str, lm: FrozenLM, tmp_path: Path):
    task = task_of(lm, template)
    path, vectors = soft(task, tmp_path)
    tuner, exact = build(task, match=str(path)), Exact(lm)
    assert tuner.prompt_length == 6  # rows have room for the vectors, too
    raced: list[dict[Ids, float]] = []
    add = tuner.ledger.add

    def added(prompts, rewards, nats, components):
        both = zip(prompts, components["train_loss"], nats, strict=True)
        raced.append({ids: 0.8 * loss + 0.2 * nat for ids, loss, nat in both})
        return add(prompts, rewards, nats, components)

    tuner.ledger.add = added
    trainer = trainer_in(tmp_path)
    trainer.fit(tuner, datamodule=task)

    def objective(ids: Ids, split: str) -> float:
        return 0.8 * exact.kl(template, vectors, ids, split) + 0.2 * exact.nats(ids)

    expected = {ids: objective(ids, "train") for ids in raced[0]}
    assert len(expected) == 9
    assert raced[0] == pytest.approx(expected, rel=1e-4)
    assert list(raced[0]) == sorted(expected, key=expected.__getitem__)

    validated = [ids for ids, entry in tuner.ledger.entries.items() if entry.validated]
    objectives = {ids: objective(ids, "validation") for ids in validated}
    assert len(objectives) > 3
    for ids, value in objectives.items():
        assert tuner.ledger.objective(ids, 0.2) == pytest.approx(value, rel=1e-4)
    best = tuple(tuner.token_ids.tolist())
    assert best == min(objectives, key=objectives.__getitem__)

    def check(logged: dict[str, Any], stage: str, split: str) -> None:
        kl = exact.kl(template, vectors, best, split)
        assert logged[f"{stage}/match_kl"] == pytest.approx(kl, rel=1e-4)
        assert logged[f"{stage}/objective"] == pytest.approx(objective(best, split), rel=1e-4)
        # The task's own measures stay what they were.
        found = [
            exact._log_shares(template, exact.table[list(best)], row["text"])
            for row in SPLITS[split]
        ]
        labels = [list(WORDS).index(row["label"]) for row in SPLITS[split]]
        loss = -sum(float(f[y]) for f, y in zip(found, labels, strict=True)) / len(labels)
        assert logged[f"{stage}/loss"] == pytest.approx(loss, rel=1e-4)
        for name in ("match_kappa", "match_kappa_recalibrated"):
            assert -1 <= logged[f"{stage}/{name}"] <= 1

    check(trainer.callback_metrics, "val", "validation")
    check(trainer.validate(tuner, datamodule=task, verbose=False)[0], "val", "validation")
    check(trainer.test(tuner, datamodule=task, verbose=False)[0], "test", "test")
    assert tuner.listed_prompts()[0]["val_match_kl"] == pytest.approx(
        exact.kl(template, vectors, best, "validation"), rel=1e-4
    )


def test_the_gradient_is_the_kl_s(lm: FrozenLM, tmp_path: Path):
    task = task_of(lm)
    path, vectors = soft(task, tmp_path)
    tuner, exact = build(task, match=str(path), edits=EditSettings(proposals=0.0)), Exact(lm)
    found: list[tuple[Ids, Tensor]] = []
    gradient = tuner._gradient

    def watched(batch):
        found.append((tuner.beam[0], gradient(batch)))
        return found[-1][1]

    tuner._gradient = watched
    trainer_in(tmp_path, 1).fit(tuner, datamodule=task)
    ((ids, own),) = found
    rows = exact.table[list(ids)].detach().requires_grad_()
    total = 0.0
    for row in SPLITS["train"]:
        p = exact.log_shares(LAST, vectors, row["text"])
        before = exact.table[torch.tensor(lm.encode(row["text"]))].detach()
        logits = exact.model(inputs_embeds=torch.cat([before, rows])[None]).logits[0, -1]
        q = logits[[lm.encode(word)[0] for word in WORDS.values()]].log_softmax(-1)
        total = total + (p.exp() * (p - q)).sum()
    total.backward()
    torch.testing.assert_close(own.double(), rows.grad, rtol=1e-3, atol=1e-5)


def test_the_vectors_read_each_row_once(lm: FrozenLM, tmp_path: Path):
    task = task_of(lm, batch_size=3)
    path, _ = soft(task, tmp_path)
    tuner, read = build(task, match=str(path)), []
    logits = tuner.reward.class_logits

    def watched(prompts, batch):
        if prompts.ndim == 3:
            read.extend(batch["texts"])
        return logits(prompts, batch)

    tuner.reward.class_logits = watched
    trainer = trainer_in(tmp_path, 7)  # more than two epochs, with validations
    trainer.fit(tuner, datamodule=task)
    trainer.validate(tuner, datamodule=task, verbose=False)
    encoded = chain(*(task.texts(split) for split in ("train", "validation")))
    assert sorted(read) == sorted(encoded)


def test_it_is_blind_to_labels(lm: FrozenLM, tmp_path: Path):
    """With all labels exchanged the search finds the same, step by step."""
    path, _ = soft(task_of(lm), tmp_path)
    other = dict(zip(WORDS, reversed(WORDS), strict=True))
    swapped = [{**row, "label": other[row["label"]]} for row in ROWS]
    found = []
    for rows in (ROWS, swapped):
        splits = {"train": rows[:8], "validation": rows[8:11], "test": rows[11:]}
        tuner = build(task := task_of(lm, data=splits), match=str(path))
        trainer_in(tmp_path, 3).fit(tuner, datamodule=task)
        found.append((tuner.beam, tuner.token_ids.tolist()))
    assert found[0] == found[1]


# ---- what may be imitated


def test_what_is_read(lm: FrozenLM, tmp_path: Path):
    task = task_of(lm)
    path, vectors = soft(task, tmp_path)
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints" / "best.ckpt").write_bytes(path.read_bytes())
    record = torch.load(path, weights_only=True)["lightning_prompts"]
    (run / "prompt.json").write_text(json.dumps(record))
    torch.save({"prompt": vectors}, tmp_path / "vectors.pt")
    for where in (path, run, run / "prompt.json", tmp_path / "vectors.pt"):
        assert torch.equal(build(task, match=str(where)).target.vectors, vectors)
    # Of a prompt whose tokens are in use, these: a record of a search has no vectors.
    (tmp_path / "tokens.json").write_text(json.dumps({**record, "in_use": "tokens"}))
    found = build(task, match=str(tmp_path / "tokens.json")).target.vectors
    assert torch.equal(found, lm.embed(torch.tensor(record["ids"])))


def test_what_does_not_fit_is_refused(lm: FrozenLM, tmp_path: Path):
    task = task_of(lm)
    path, _ = soft(task, tmp_path)
    save_model(tmp_path / "other", seed=5)
    other = FrozenLM(str(tmp_path / "other"))

    def refused(said: str, task: TextClassification = task, where: Any = path, **options: Any):
        with pytest.raises(PromptError, match=said):
            build(task, match=str(where), **options)

    refused("the prompt's language model is 'tiny.* but this run's is 'other", task_of(other))
    refused("the prompt's template is '{text}{prompt}'", task_of(lm, FIRST))
    words = {"negative": " terrible", "positive": " great"}
    refused("the prompt's verbalizer is .* bad.* set verbalizer", task_of(lm, verbalizer=words))
    refused("answers' score is 'sum'", task_of(lm, answer_score="mean"))
    refused("leave one of the two out", also_lm=str(tmp_path / "other"))
    refused("nowhere is not there; give a run's folder", where="nowhere")
    refused("best.ckpt is not there", where=tmp_path)
    (tmp_path / "bad.ckpt").write_bytes(b"no")
    refused("bad.ckpt is damaged", where=tmp_path / "bad.ckpt")
    torch.save(torch.randn(3, 8), tmp_path / "narrow.pt")
    refused("its vectors have 8 numbers", where=tmp_path / "narrow.pt")


def test_a_search_does_not_go_on_after_another_prompt(lm: FrozenLM, tmp_path: Path):
    task = task_of(lm)
    (path, _), (other, _) = soft(task, tmp_path), soft(task, tmp_path, seed=1)
    tuner, trainer = build(task, match=str(path)), trainer_in(tmp_path)
    trainer.fit(tuner, datamodule=task)
    trainer.save_checkpoint(saved := tmp_path / "a.ckpt")
    assert sorted(torch.load(saved, weights_only=True)["state_dict"]) == ["idle", "token_ids"]
    for match in (None, str(other)):
        with pytest.raises(PromptError, match="another prompt to match than match"):
            trainer_in(tmp_path).fit(build(task, match=match), datamodule=task, ckpt_path=saved)
    # Where it lies does not matter.
    path.rename(moved := tmp_path / "moved.ckpt")
    again, trainer = build(task, match=str(moved)), trainer_in(tmp_path, 3)
    trainer.fit(again, datamodule=task, ckpt_path=saved)
    assert trainer.global_step == 3


def test_a_stopped_search_goes_on_bit_by_bit(
    lm: FrozenLM, lm_folder: Path, review_folder: Path, tmp_path: Path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    path, _ = soft(task_of(lm), tmp_path)
    options = [
        *("--config", "configs/tuner/guided_search.yaml", "--config", "configs/task/demo.yaml"),
        *("--lm.name", str(lm_folder), "--data.path", str(review_folder)),
        *("--data.template", LAST, "--data.batch_size", "12"),
        *("--model.prompt_length", "5", "--model.candidates", "8", "--model.race", "[2]"),
        *("--trainer.val_check_interval", "2", "--trainer.enable_progress_bar", "false"),
        *("--model.match", str(path), "--data.verbalizer", json.dumps(WORDS)),
    ]

    def run(name: str, *args: str, run: bool = True):
        own = ("--experiment", name, "--trainer.max_steps", "4")
        return main(["fit", *options, *own, *args], run=run, show=False)

    run("full")
    full = Path("logs/full/version_0")
    metrics = json.loads((full / "prompt.json").read_text())["metrics"]
    names = ("match_kl", "match_kappa", "match_kappa_recalibrated", "accuracy", "perplexity")
    assert {f"val/{name}" for name in names} <= metrics.keys()
    keys = ("state_dict", "prompts", "search", "match", "forward_tokens")
    # In the second epoch, whose batches are others.
    assert_resumes_after_a_signal(run, 3, full, keys)
