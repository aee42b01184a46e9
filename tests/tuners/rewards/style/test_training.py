"""The head learns, nothing else does, and what is written scores as what was trained."""

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule, Trainer

from lightning_prompts.files.errors import PromptError
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.tasks.classification import TextClassification
from lightning_prompts.tuners.rewards.style.scorers import load_style
from lightning_prompts.tuners.rewards.style.training import StyleClassifier

WORDS = {"negative": " terrible", "positive": " great"}


@pytest.fixture
def task(lm: FrozenLM, review_folder: Path) -> TextClassification:
    return TextClassification(lm, "{text}{prompt}", WORDS, path=str(review_folder), batch_size=8)


def classifier(lm: FrozenLM, **options: object) -> StyleClassifier:
    given = {"layer": 1, "pooling": "mean", "lr": 0.05, "seed": 0, **options}
    return StyleClassifier(lm, ("negative", "positive"), **given)


def trainer(folder: Path, **options: object) -> Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    given = {"accelerator": "cpu", "default_root_dir": folder, "enable_checkpointing": False}
    return Trainer(**quiet, **{**given, "num_sanity_val_steps": 0, "max_epochs": 8, **options})


@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_only_the_head_learns(lm: FrozenLM, task: TextClassification, tmp_path, pooling: str):
    module, before = classifier(lm, pooling=pooling), copy.deepcopy(lm.state_dict())
    texts = [row["text"] for row in task.read("train").rows]
    labels = torch.tensor(task.read("train").labels)
    start = F.cross_entropy(module(texts), labels)
    run = trainer(tmp_path)
    run.fit(module, datamodule=task)
    assert F.cross_entropy(module(texts), labels) < 0.8 * start
    assert all(torch.equal(value, before[name]) for name, value in lm.state_dict().items())
    assert {name for name, p in module.named_parameters() if p.requires_grad} == {
        "head.weight",
        "head.bias",
    }
    run.test(module, datamodule=task, verbose=False)
    rows = task.read("test")
    right = module([row["text"] for row in rows.rows]).argmax(-1) == torch.tensor(rows.labels)
    assert float(run.callback_metrics["test/accuracy"]) == pytest.approx(
        float(right.float().mean())
    )


def test_what_is_written_scores_as_what_was_trained(lm: FrozenLM, task, tmp_path):
    module = classifier(lm, layer=0.9)
    trainer(tmp_path, max_epochs=1).fit(module, datamodule=task)
    module.save(tmp_path / "reward", "train.jsonl", 24, 0.75)
    scorer = load_style(str(tmp_path / "reward"), lm)
    texts = [row["text"] for row in task.read("test").rows]
    torch.testing.assert_close(scorer(texts), module(texts).softmax(-1))
    assert (scorer.described.layer, scorer.described.rows) == (2, 24)
    assert scorer.accuracy == 0.75


def test_a_checkpoint_holds_the_head_alone(lm: FrozenLM, task, tmp_path):
    module, run = classifier(lm), trainer(tmp_path, max_epochs=1)
    run.fit(module, datamodule=task)
    run.save_checkpoint(tmp_path / "head.ckpt")
    saved = torch.load(tmp_path / "head.ckpt", weights_only=True)["state_dict"]
    assert set(saved) == {"head.weight", "head.bias"}
    other = classifier(lm, seed=5)
    assert not torch.equal(other.head.weight, module.head.weight)
    trainer(tmp_path).validate(other, datamodule=task, ckpt_path=tmp_path / "head.ckpt")
    assert torch.equal(other.head.weight, module.head.weight)


def test_the_same_seed_gives_the_same_head(lm: FrozenLM, task, tmp_path):
    heads = []
    for noise in (1, 2):  # the global generator decides nothing
        torch.manual_seed(noise)
        module: LightningModule = classifier(lm)
        trainer(tmp_path, max_epochs=1).fit(module, datamodule=task)
        heads.append(module.head.weight)
    assert torch.equal(*heads)


def test_a_layer_that_is_not_there_is_refused(lm: FrozenLM):
    with pytest.raises(PromptError, match="2 layers"):
        classifier(lm, layer=3)
