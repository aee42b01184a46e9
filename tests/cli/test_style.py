"""`lightning-prompts style`: one command writes two classifiers, made from disjoint rows."""

import json
from pathlib import Path

import pytest

from lightning_prompts.cli.style import Recipe, StyleSentences, style
from lightning_prompts.files.errors import PromptError
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.tasks.classification import TextClassification
from lightning_prompts.tuners.rewards.style.scorers import load_style

WORDS = {"negative": " terrible", "positive": " great"}


@pytest.fixture
def args(lm_folder: Path, review_folder: Path, tmp_path: Path, monkeypatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    data = ["--data.path", str(review_folder), "--data.verbalizer", json.dumps(WORDS)]
    data += ["--data.max_tokens", "null"]  # characters are tokens here
    quick = ["--trainer.enable_progress_bar", "false", "--trainer.precision", "32-true"]
    return ["--lm.name", str(lm_folder), *data, *quick, "--trainer.accelerator", "cpu"]


def test_one_command_makes_both(args: list[str], lm: FrozenLM, review_folder: Path, capsys):
    style(args)
    out = capsys.readouterr().out
    cells = [line.split() for line in out.splitlines()]
    reward, judge = (load_style(f"logs/yelp_style/{name}", lm) for name in ("reward", "judge"))
    # One in five rows is held out: of 24 training rows 4, of 10 validation rows 2.
    shown = (
        ["reward", "train", "20", "1", "mean", f"{reward.accuracy:.3f}"],
        ["judge", "validation", "8", "1", "last", f"{judge.accuracy:.3f}"],
    )
    for row in shown:
        assert any(line[:5] + line[-1:] == row for line in cells), (row, out)
    for name in ("reward", "judge"):
        assert f"{name}: logs/yelp_style/{name}" in out
    lines = (review_folder / "test.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    for scorer in (reward, judge):
        found = scorer([row["text"] for row in rows]).argmax(-1).tolist()
        right = [scorer.labels[i] == row["label"] for i, row in zip(found, rows, strict=True)]
        assert scorer.accuracy == pytest.approx(sum(right) / len(right))
    assert (judge.described.trained_on, judge.described.seed) == ("validation.jsonl", 1)


def test_a_new_run_replaces_both(args: list[str], lm: FrozenLM, capsys):
    style([*args, "--experiment", "mine"])
    style([*args, "--experiment=mine", "--reward.rows", "12", "--judge.pooling=mean"])
    assert load_style("logs/mine/reward", lm).described.rows == 12
    assert load_style("logs/mine/judge", lm).described.pooling == "mean"
    assert sorted(p.name for p in Path("logs/mine").iterdir()) == ["judge", "reward"]
    assert not Path("lightning_logs").exists()


def test_a_config_goes_on_top(args: list[str], lm: FrozenLM, tmp_path: Path):
    Path("mine.yaml").write_text("experiment: other\nreward:\n  rows: 10\n  layer: 2\n")
    style([*args, "--config", "mine.yaml"])
    described = load_style("logs/other/reward", lm).described
    assert (described.rows, described.layer, described.pooling) == (10, 2, "mean")


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        (["--reward.layer", "9"], "--reward.layer: Layer 9: the model has 2 layers"),
        (["--judge.layer", "9"], "--judge.layer: Layer 9: the model has 2 layers"),
        (["--judge.lr", "0"], "--judge.lr is 0"),
        (["--reward.rows", "0"], "--reward.rows is 0"),
        (["--judge.pooling", "max"], "--judge.pooling"),
        (["--judge.poling", "mean"], "did you mean --judge.pooling"),
        (["--data.path", "/nowhere/at/all"], "no such file or folder"),
        (["--config", "configs/task/yelp_stile.yaml"], "did you mean configs/task/yelp_style"),
    ],
)
def test_mistakes_are_one_sentence(args: list[str], extra: list[str], said: str):
    with pytest.raises((PromptError, ValueError)) as caught:
        style([*args, *extra])
    # jsonargparse wraps what a constructor raises; the command line unwraps it.
    error = caught.value if isinstance(caught.value, PromptError) else caught.value.__cause__
    assert isinstance(error, PromptError)
    assert said in str(error)
    assert not Path("logs").exists()


def test_rows_are_disjoint_and_drawn_by_seed(lm: FrozenLM, review_folder: Path):
    task = TextClassification(lm, "{text}{prompt}", WORDS, path=str(review_folder))

    def rows(split: str, seed: int, wanted: str) -> list[int]:
        recipe = Recipe(split=split, rows=10, layer=1, pooling="mean", lr=0.1, seed=seed)
        return StyleSentences(task, recipe).read(wanted).numbers

    assert set(rows("train", 0, "train")).isdisjoint(rows("train", 0, "validation"))
    assert (len(rows("train", 0, "train")), len(rows("train", 0, "validation"))) == (10, 4)
    assert rows("train", 0, "train") == rows("train", 0, "train") != rows("train", 1, "train")
    recipe = Recipe(split="validation", rows=5, layer=1, pooling="mean", lr=0.1, seed=0)
    sentences = StyleSentences(task, recipe)
    assert sentences.read("train").source.endswith("validation.jsonl")
    assert sentences.read("test").numbers == list(range(8))
    labels = [task.read("validation").labels[i] for i in sentences.read("train").numbers]
    assert sentences.read("train").labels == labels


@pytest.mark.slow
@pytest.mark.usefixtures("smollm2_installed")
def test_both_know_the_style_of_yelp_sentences(shared_data: Path, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fewer = ["--reward.rows", "3000", "--judge.rows", "3000", "--data.test_rows", "400"]
    style(["--lm.name", "smollm2", "--data.path", str(shared_data / "yelp"), *fewer])
    for name in ("reward", "judge"):
        described = json.loads(Path(f"logs/yelp_style/{name}/style.json").read_text())
        assert described["accuracy"] >= 0.85
