"""Every mistake on the command line ends with one sentence and status 2, without a traceback."""

from pathlib import Path

import pytest

from lightning_prompts.cli.main import main
from lightning_prompts.cli.parser import find_configs, given_options
from lightning_prompts.files.errors import PromptError

MISTAKES = {
    # options
    "--model.prompt_lenght 3": "SoftPrompt has no such option; did you mean --model.prompt_length?",
    "--model.prompt_length abc": "--model.prompt_length: expected int, got 'abc'.",
    "--model.projection manhattan": "--model.projection: expected 'cosine', 'euclidean', got",
    "--model.optimizer.lrr 3": "AdamW has no such option; did you mean --model.optimizer.lr?",
    "--model.optimizer Nope": "--model.optimizer Nope: no such class.",
    "--model SoftPromp": "--model SoftPromp: no such class; did you mean --model SoftPrompt?",
    "--trainer.max_stepz 3": "max_stepz 3: no such option; did you mean --trainer.max_steps?",
    "--trainer.max_steps x": "--trainer.max_steps: expected int, got 'x'.",
    "--model.init Nope": "--model.init Nope: no such class; known: From",
    "--trainer.callbacks+=nowhere.Timer": "nowhere.Timer: No module named 'nowhere'.",
    "--trainer.accelerator warp": "--trainer: You selected an invalid accelerator name",
    "--lm.nam x": "--lm.nam x: no such option; did you mean --lm.name?",  # no abbreviations
    "--checkpoint.mode low": "--checkpoint.mode: expected 'min', 'max', got 'low'.",
    "--model.perplexity_weight 3": "--model.perplexity_weight is 3.0",
    "extra": "extra: no such option",
    # configurations
    "--config nope.yaml": "--config nope.yaml: no such file; known: configs/default.yaml",
    "--config configs/tuner/sof.yaml": "did you mean configs/tuner/soft.yaml?",
    "--config broken.yaml": "--config broken.yaml: not readable as YAML",
    "--config list.yaml": "--config list.yaml: holds no options",
    "--config top.yaml": "modell.class_path: no such option; did you mean model?",
    "--config inner.yaml": "did you mean --model.prompt_length?",
    # what another option decides
    "--model.template x": "--model.template is not set by itself: use --data.template.",
    "--model.verbalizer.a b": "--model.verbalizer is not set by itself: use --data.verbalizer.",
    "--model.lm.name x": "--model.lm is not set by itself: use --lm.name",
    "--data.lm x": "--data.lm is not set by itself: use --lm.name",
    "--trainer.logger.name x": "--trainer.logger.name is not set by itself: use --experiment.",
    "--config linked.yaml": "--model.template is not set by itself: use --data.template.",
    # checkpoints
    "--ckpt_path nope.ckpt": "--ckpt_path nope.ckpt: no such file",
    "--ckpt_path broken.yaml": "--ckpt_path broken.yaml: not a checkpoint",
    "--ckpt_path best": "--ckpt_path best: no run in logs/soft-demo",
    # data and model
    "--data.path nowhere": "nowhere",
    "--lm.name ./nowhere": "nowhere",
    "--data.verbalizer {negative: ' good no', positive: ' good'}": "begins ' good no'",
    "--data.verbalizer {negative: [], positive: ' good'}": "empty list",
    "--data.answer_score median": "--data.answer_score: expected 'sum', 'mean', 'pmi'",
    "--data.template {text}": "{prompt}",
    "--data.batch_size 0": "--data.batch_size is 0",
    "--model.prompt_length 400": "A prompt of 400 tokens leaves no room",
    "--checkpoint.monitor val/fun": "--checkpoint.monitor val/fun is not logged; there are val/acc",
    "--trainer.logger.save_dir broken.yaml": "broken.yaml",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with configurations that are wrong in several ways."""
    monkeypatch.chdir(tmp_path)
    for name, text in {
        "broken": "model: [",
        "list": "- a\n- b",
        "top": "modell:\n  class_path: SoftPrompt",
        "inner": "model:\n  class_path: SoftPrompt\n  init_args:\n    prompt_lenght: 3",
        "linked": "model:\n  init_args:\n    template: '{text}{prompt}'",
    }.items():
        Path(f"{name}.yaml").write_text(text)
    return tmp_path


@pytest.fixture
def fit(lm_folder: Path, review_folder: Path) -> list[str]:
    """Arguments of a fit of one step without mistakes."""
    return [
        *("fit", "--config", "configs/tuner/soft.yaml", "--config", "configs/task/demo.yaml"),
        *("--lm.name", str(lm_folder), "--data.path", str(review_folder)),
        *("--trainer.max_steps", "1", "--trainer.enable_progress_bar", "false"),
    ]


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_sentence(mistake: str, folder: Path, fit: list[str], capsys):
    flag, _, value = mistake.partition(" ")
    with pytest.raises(SystemExit) as stop:
        main([*fit, flag, value] if value else [*fit, flag])
    assert stop.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    *before, sentence = said.err.strip().splitlines()
    assert MISTAKES[mistake] in sentence
    # What runs is announced; nothing else comes before the sentence.
    assert all(line.startswith(("SoftPrompt on demo with", "answers: ")) for line in before)


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        ([], "Say what to do: lightning-prompts fit, validate, test, predict, check, style"),
        (["train"], "Say what to do"),
        (["fit"], "Missing --data and --model: give a run's config.yaml, or a tuner and a task"),
        (["fit", "--model", "SoftPrompt"], "Missing --data:"),
    ],
)
def test_what_is_missing_is_named(args: list[str], sentence: str, capsys):
    with pytest.raises(SystemExit) as stop:
        main(args)
    assert stop.value.code == 2
    assert sentence in capsys.readouterr().err


def test_debug_shows_where(folder: Path, fit: list[str]):
    with pytest.raises(PromptError):
        main([*fit, "--debug", "--data.path", "nowhere"])


def test_shipped_configurations_stand_in(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    args, (path,) = find_configs(["fit", "--config", "configs/tuner/soft.yaml"])
    assert args == ["fit", "--config", str(path)]
    assert path.is_file()
    # A file of the user's own comes first.
    Path("configs/tuner").mkdir(parents=True)
    Path("configs/tuner/soft.yaml").write_text("lm: {name: own}")
    args, _ = find_configs(["fit", "--config=configs/tuner/soft.yaml"])
    assert args == ["fit", "--config", "configs/tuner/soft.yaml"]


def test_files_and_classes_go_first(tmp_path: Path):
    for name in "ab":
        (tmp_path / name).touch()
    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    given = ["fit", "--model.x", "1", f"--config={a}", "--data=Demo", "-c", b, "--model", "PEZ"]
    args, paths = find_configs(given)
    first = ["--config", a, "--config", b, "--data", "Demo", "--model", "PEZ"]
    assert args == ["fit", *first, "--model.x", "1"]
    assert paths == [Path(a), Path(b)]


def test_given_options_in_files_and_flags(tmp_path: Path):
    config = tmp_path / "a.yaml"
    config.write_text("fit:\n  data:\n    init_args:\n      seed: 3\nlm:\n  name: x\n")
    args = ["fit", "--model.init_args.seed", "1", "--trainer.callbacks+=Foo", "--data={path: y}"]
    given = given_options(args, [config], "fit")
    assert {"data.seed", "lm.name", "model.seed", "trainer.callbacks", "data.path"} <= given
    assert "data.init_args.seed" not in given
