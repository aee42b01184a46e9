"""What a user of guided search and FluentPrompt can get wrong: one sentence, exit status 2."""

from pathlib import Path

import pytest

from lightning_prompts.cli import main

GUIDED, FLUENT = "guided_search", "fluent_prompt"


@pytest.mark.parametrize(
    ("tuner", "args", "said"),
    [
        (GUIDED, ["--model.edits.proposals", "2"], "--model.edits.proposals is 2.0; give a share"),
        (
            GUIDED,
            ["--model.edits.swop", "2"],
            "--model.edits.swop: EditSettings has no such option",
        ),
        (GUIDED, ["--model.race", "[8,8]"], "--model.race is [8, 8]"),
        (GUIDED, ["--model.max_length", "4"], "starts from 10 tokens"),
        (GUIDED, ["--model.init", "FromModel"], "needs --model.init.text"),
        (
            GUIDED,
            ["--model.init", "FromModel", "--model.init.text", "a", "--model.init.top_k", "0"],
            "--model.init.top_k is 0",
        ),
        (FLUENT, ["--model.keep_continuous", "true"], "set it to false"),
        (FLUENT, ["--model.langevin_beta", "[0.1, 1.0]"], "langevin_beta is [0.1, 1.0]"),
    ],
)
def test_mistakes_are_one_sentence(
    tuner: str, args: list[str], said: str, lm_folder: Path, tmp_path: Path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    words = "{negative: ' bad', positive: ' good'}"
    parts = ["--config", f"configs/tuner/{tuner}.yaml", "--config", "configs/task/demo.yaml"]
    parts += ["--lm.name", str(lm_folder), "--data.verbalizer", words]
    with pytest.raises(SystemExit) as stopped:
        main(["fit", *parts, *args], run=False)
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert said in line


@pytest.mark.parametrize("tuner", ["gcg", FLUENT])
def test_the_baselines_run(
    tuner: str, lm_folder: Path, review_folder: Path, tmp_path: Path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    cli = main(
        [
            *("fit", "--config", f"configs/tuner/{tuner}.yaml"),
            *("--config", "configs/task/demo.yaml", "--lm.name", str(lm_folder)),
            *("--data.path", str(review_folder), "--trainer.max_steps", "2"),
            *("--trainer.enable_progress_bar", "false", "--experiment", "run"),
        ],
        show=False,
    )
    assert cli.trainer.global_step == 2
    assert len(cli.model.hard_prompt()) == 10
    assert (tmp_path / "logs" / "run" / "version_0" / "prompt.json").is_file()
