"""A search on several models: the mean of plain transformers' numbers on each, and mistakes."""

import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lightning_prompts.cli.main import main
from lightning_prompts.files.errors import PromptError
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.tasks import TextClassification
from lightning_prompts.tuners import GuidedSearch
from lightning_prompts.tuners.search.ledger import Ids
from tests.resuming import assert_resumes_after_a_signal
from tests.searching import FIRST, LAST, ROWS, SPLITS, WORDS, trainer_in
from tests.tiny import save_model


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Models with other weights: one of the same tokens, one whose tokens are parts of words."""
    root = tmp_path_factory.mktemp("several")
    save_model(root / "same", seed=1)
    # Its answer " bad" has four tokens, and equal tokens have other ids.
    save_model(root / "parts", seed=2, words=("film", "the", "e ", " a", "in", " good"))
    return {folder.name: folder for folder in root.iterdir()}


class Exact:
    """A model in float64, one row at a time, by whole strings of its own tokens."""

    def __init__(self, folder: Path) -> None:
        self.model = AutoModelForCausalLM.from_pretrained(folder).double().eval()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)

    def ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False).input_ids

    @torch.no_grad()
    def log_p(self, ids: list[int]) -> torch.Tensor:
        return self.model(torch.tensor([ids])).logits[0].log_softmax(-1)

    def measure(self, template: str, text: str, rows: list[dict[str, str]]) -> dict[str, float]:
        before, after = template.split("{prompt}")
        loss, right = 0.0, 0
        for row in rows:
            read = [
                i
                for part in (before.format(**row), text, after.format(**row))
                for i in self.ids(part)
            ]
            scores = []
            for word in WORDS.values():
                answer = self.ids(word)
                log_p = self.log_p([*read, *answer])
                scores.append(sum(log_p[len(read) - 1 + k, i] for k, i in enumerate(answer)))
            log_shares = torch.stack(scores).log_softmax(-1)
            label = list(WORDS).index(row["label"])
            loss -= float(log_shares[label])
            right += int(log_shares.argmax()) == label
        ids = [self.tokenizer.bos_token_id, *self.ids(text)]
        log_p = self.log_p(ids)
        nats = -sum(float(log_p[k, i]) for k, i in enumerate(ids[1:])) / (len(ids) - 1)
        return {
            "loss": loss / len(rows),
            "accuracy": right / len(rows),
            "log_perplexity": nats,
        }


def build(lm: FrozenLM, template: str, also: Any, **options: Any) -> tuple[Any, GuidedSearch]:
    task = TextClassification(lm, template, WORDS, data=SPLITS, batch_size=8, val_batch_size=2)
    options = {
        **{"prompt_length": 4, "min_length": 3, "max_length": 5, "candidates": 8, "beam": 2},
        **{"race": [2], "contenders": 2, "perplexity_weight": 0.2, "also_lm": also},
        **options,
    }
    return task, GuidedSearch(lm, task.template, task.verbalizer, **options)


@pytest.mark.parametrize("template", [FIRST, LAST])
def test_the_best_has_the_lowest_mean(
    template: str, lm: FrozenLM, lm_folder: Path, folders: dict[str, Path], tmp_path: Path
):
    names = ["same", "parts"]
    task, tuner = build(lm, template, [str(folders[name]) for name in names], race=[])
    raced: list[list[tuple[Ids, float]]] = []
    add = tuner.ledger.add

    def added(prompts, rewards, nats, components):
        w, losses = tuner.perplexity_weight, components["train_loss"]
        both = zip(losses, nats, strict=True)
        raced.append(list(zip(prompts, [(1 - w) * x + w * y for x, y in both], strict=True)))
        return add(prompts, rewards, nats, components)

    tuner.ledger.add = added
    trainer = trainer_in(tmp_path, steps=2)
    trainer.fit(tuner, datamodule=task)
    models = {name: Exact(folder) for name, folder in {"": lm_folder, **folders}.items()}

    def terms(ids: Ids, split: str) -> dict[str, dict[str, float]]:
        text = lm.decode(ids)
        return {n: m.measure(template, text, SPLITS[split]) for n, m in models.items()}

    def mean(ids: Ids, split: str) -> float:
        each = terms(ids, split).values()
        return sum(0.8 * found["loss"] + 0.2 * found["log_perplexity"] for found in each) / 3

    # A race over all rows, whose batch is all of them.
    expected = {ids: mean(ids, "train") for ids, _ in raced[0]}
    assert len(expected) == 9
    for ids, value in raced[0]:
        assert value == pytest.approx(expected[ids], rel=1e-5)
    assert [ids for ids, _ in raced[0]] == sorted(expected, key=expected.__getitem__)

    validated = [ids for ids, entry in tuner.ledger.entries.items() if entry.validated]
    objectives = {ids: mean(ids, "validation") for ids in validated}
    assert len(objectives) > 3
    for ids, value in objectives.items():
        assert tuner.ledger[ids].objective(0.2) == pytest.approx(value, rel=1e-5)
    best = tuple(tuner.token_ids.tolist())
    assert best == min(objectives, key=objectives.__getitem__)

    def check(logged: dict[str, Any], stage: str, split: str) -> None:
        found = terms(best, split)
        for measure in ("loss", "accuracy"):
            assert logged[f"{stage}/{measure}"] == pytest.approx(found[""][measure], rel=1e-5)
        for name in names:
            for measure, value in found[name].items():
                assert logged[f"{stage}/also_{measure}/{name}"] == pytest.approx(value, rel=1e-5)
        assert logged[f"{stage}/objective"] == pytest.approx(mean(best, split), rel=1e-5)

    check(trainer.callback_metrics, "val", "validation")
    check(trainer.validate(tuner, datamodule=task, verbose=False)[0], "val", "validation")
    check(trainer.test(tuner, datamodule=task, verbose=False)[0], "test", "test")
    row = tuner.listed_prompts()[0]
    own = terms(best, "validation")[""]["log_perplexity"]
    assert row["perplexity"] == pytest.approx(math.exp(own), rel=1e-4)
    assert row["val_also_loss/parts"] == pytest.approx(
        terms(best, "validation")["parts"]["loss"], rel=1e-5
    )
    # No weights of the others, and no parameters.
    trainer.save_checkpoint(path := tmp_path / "a.ckpt")
    saved = torch.load(path, weights_only=True)
    assert sorted(saved["state_dict"]) == ["idle", "token_ids"]
    assert not [name for name in tuner.state_dict() if "other" in name]


def test_rounds_thin_out_by_the_mean(lm: FrozenLM, folders: dict[str, Path], tmp_path: Path):
    """With readability alone the rows have no say: each round keeps what all models like."""
    options = {"perplexity_weight": 1.0, "race": [2, 4], "keep": 0.25}
    task, tuner = build(lm, LAST, str(folders["same"]), **options)
    seen: list[list[Ids]] = []
    add = tuner.ledger.add
    tuner.ledger.add = lambda prompts, *rest: seen.append(list(prompts)) or add(prompts, *rest)
    draw, drawn = tuner.allowed.keeps, []
    tuner.allowed.keeps = lambda ids: draw(ids) and not drawn.append(tuple(ids))
    start = tuner.beam[0]
    trainer_in(tmp_path, steps=1).fit(tuner, datamodule=task)
    other = Exact(folders["same"])
    own = copy.deepcopy(other)
    own.model = copy.deepcopy(lm.model).double()

    def mean(ids: Ids) -> float:
        text = lm.decode(ids)
        return sum(m.measure(LAST, text, ROWS[:1])["log_perplexity"] for m in (own, other)) / 2

    tried = sorted({ids for ids in drawn if ids != start}, key=mean)
    assert len(tried) == 8
    assert set(seen[0]) == {start, tried[0]}


def test_without_the_option_nothing_is_added(lm: FrozenLM, tmp_path: Path):
    task, tuner = build(lm, LAST, None)
    trainer = trainer_in(tmp_path)
    trainer.fit(tuner, datamodule=task)
    assert not [name for name in trainer.callback_metrics if "also" in name]
    trainer.save_checkpoint(path := tmp_path / "a.ckpt")
    saved = torch.load(path, weights_only=True)
    assert "also_lm" not in saved
    assert not [1 for _, measures in saved["prompts"]["validated"] if "also" in str(measures)]


def test_a_prompt_that_another_model_cannot_read_is_not_kept(
    lm: FrozenLM, folders: dict[str, Path], tmp_path: Path
):
    task, tuner = build(lm, LAST, str(folders["same"]))
    trainer_in(tmp_path, steps=1).fit(tuner, datamodule=task)
    (other,) = tuner.others
    ids = lm.encode("abcd")
    assert tuner.allowed.keeps(ids)
    other.most = 3
    assert not tuner.allowed.keeps(ids)
    with pytest.raises(PromptError, match=r"the start, 'abcd', .* more than 3 tokens"):
        tuner._refuse_unread(ids)


def test_a_long_row_is_cut_for_each_model(lm: FrozenLM, tmp_path: Path):
    """At 64 positions and 40 kept for a prompt another model has 24 tokens for a row."""
    save_model(tmp_path / "short", seed=3, positions=64)
    task, tuner = build(lm, LAST, str(tmp_path / "short"))
    trainer_in(tmp_path, steps=1).fit(tuner, datamodule=task)
    (other,) = tuner.others
    batch = next(iter(task.val_dataloader()))
    read = other.batch(batch, "validation")
    assert batch["num_tokens"] > 24
    assert read["num_tokens"] == 24
    for own, cut in zip(batch["texts"], read["texts"], strict=True):
        assert own[0].startswith(cut[0])
    assert torch.equal(read["labels"], batch["labels"])
    assert torch.equal(read["rows"], batch["rows"])


# ---- mistakes


def test_what_does_not_fit_is_refused(
    lm: FrozenLM, lm_folder: Path, folders: dict[str, Path], tmp_path: Path
):
    with pytest.raises(PromptError, match=r"also_lm='\./nowhere': no such folder"):
        build(lm, LAST, "./nowhere")
    with pytest.raises(PromptError, match="names a twice; leave one"):
        build(lm, LAST, ["a", "a"])

    def refused(also: str, said: str, **options: Any) -> None:
        task, tuner = build(lm, LAST, also, **options)
        with pytest.raises(PromptError, match=said):
            trainer_in(tmp_path).fit(tuner, datamodule=task)

    refused(str(lm_folder), "has the weights of tiny_gpt2.*, which scores prompts already")
    save_model(tmp_path / "few", positions=40, seed=4)
    refused(str(tmp_path / "few"), "40 tokens are kept for a prompt's text, and few has 40")
    _, tuner = build(lm, LAST, str(folders["same"]))
    with pytest.raises(PromptError, match="plain loaders have none"):
        trainer_in(tmp_path).fit(tuner, torch.utils.data.DataLoader([1]))


def test_a_search_does_not_go_on_without_its_other_models(
    lm: FrozenLM, folders: dict[str, Path], tmp_path: Path
):
    task, tuner = build(lm, LAST, str(folders["same"]))
    trainer = trainer_in(tmp_path, steps=2)
    trainer.fit(tuner, datamodule=task)
    trainer.save_checkpoint(path := tmp_path / "a.ckpt")
    for also in (None, str(folders["parts"])):
        task, tuner = build(lm, LAST, also)
        with pytest.raises(PromptError, match="give also_lm as before"):
            trainer_in(tmp_path).fit(tuner, datamodule=task, ckpt_path=path)
    # To measure its prompt on the tuned model alone is no mistake.
    task, tuner = build(lm, LAST, None)
    (values,) = trainer_in(tmp_path).validate(tuner, task, ckpt_path=path, verbose=False)
    assert values["val/objective"] > 0


# ---- the command line


@pytest.fixture(scope="module")
def fit(lm_folder: Path, review_folder: Path, folders: dict[str, Path], tmp_path_factory):
    """Runs `fit` in a folder where one run has been left to its end."""
    models = json.dumps([str(folders[name]) for name in ("same", "parts")])
    options = [
        *("--config", "configs/tuner/guided_search.yaml", "--config", "configs/task/demo.yaml"),
        *("--lm.name", str(lm_folder), "--data.path", str(review_folder)),
        *("--data.template", "{text}{prompt}", "--data.batch_size", "8"),
        *("--model.prompt_length", "5", "--model.candidates", "8", "--model.race", "[2,4]"),
        *("--trainer.val_check_interval", "2", "--trainer.enable_progress_bar", "false"),
        *("--model.also_lm", models, "--data.verbalizer", json.dumps(WORDS)),
    ]

    def run(name: str, *args: str, run: bool = True):
        own = ("--experiment", name, "--trainer.max_steps", "4")
        return main(["fit", *options, *own, *args], run=run, show=False)

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("several"))
        run("full")
        yield run


def test_a_stopped_search_goes_on_bit_by_bit(fit):
    full = Path("logs/full/version_0")
    metrics = json.loads((full / "prompt.json").read_text())["metrics"]
    assert {f"val/also_loss/{name}" for name in ("same", "parts")} <= metrics.keys()
    keys = ("state_dict", "prompts", "search", "also_lm")
    assert_resumes_after_a_signal(fit, 3, full, keys)
