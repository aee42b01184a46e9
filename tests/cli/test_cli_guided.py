"""What a user of guided search and FluentPrompt can get wrong: one sentence, exit status 2."""

import json
from pathlib import Path

import pytest

from lightning_prompts.cli.main import main
from lightning_prompts.lm.batch import unpadded

GUIDED, FLUENT = "guided_search", "fluent_prompt"


@pytest.mark.parametrize(
    ("tuner", "args", "said"),
    [
        (
            GUIDED,
            ["--model.edits.proposals", "2"],
            "--model.edits.proposals is 2.0; give a number from 0 to 1",
        ),
        (
            GUIDED,
            ["--model.edits.swop", "2"],
            "--model.edits.swop: EditSettings has no such option",
        ),
        (GUIDED, ["--model.race", "[8,8]"], "--model.race is [8, 8]"),
        (GUIDED, ["--model.max_length", "4"], "starts from 10 tokens"),
        (GUIDED, ["--model.also_lm", "./no"], "--model.also_lm './no': no such folder"),
        (GUIDED, ["--model.also_lm", '["a", "a"]'], "--model.also_lm names a twice"),
        (GUIDED, ["--model.match", "./no"], "--model.match: no is not there; give a run's folder"),
        (GUIDED, ["--model.keep_near", ""], "--model.keep_near is an empty text"),
        (GUIDED, ["--model.keep_near_weight", "-1"], "keep_near_weight is -1.0; give at least 0"),
        (GUIDED, ["--model.floors", "{filler: 0}"], "--model.floors names filler, which passes"),
        (GUIDED, ["--model.floors", "{grammer: 0}"], "--model.floors names 'grammer', of which"),
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


@pytest.mark.slow
@pytest.mark.usefixtures("smollm2_installed")
def test_who_pastes_the_text_gets_what_was_measured(tmp_path: Path, monkeypatch):
    """A real tokenizer, which merges across the border of prompt and text where it can."""
    monkeypatch.chdir(tmp_path)
    args = [
        *("fit", "--config", "configs/task/demo.yaml", "--config", "configs/trainer/laptop.yaml"),
        *("--config", "configs/tuner/guided_search.yaml", "--lm.name", "smollm2"),
        *("--data.template", "{text}{prompt}", "--data.validation_rows", "24"),
        *("--model.init", "FromText", "--model.init.text", "ly, it was", "--model.candidates", "8"),
        *("--model.prompt_length", "null", "--model.min_length", "2", "--model.race", "[]"),
        *("--trainer.max_steps", "2", "--trainer.enable_progress_bar", "false"),
    ]
    cli = main([*args, "--experiment", "run"], show=False)
    run = tmp_path / "logs" / "run" / "version_0"
    prompt = json.loads((run / "prompt.json").read_text())
    metrics = prompt["metrics"]
    assert metrics["val/round_trip"] == 1.0
    assert metrics["val/round_trip_accuracy"] == metrics["val/hard_accuracy"]
    for batch in cli.datamodule.val_dataloader():
        before, after = (
            unpadded(batch[f"{side}_ids"], batch[f"{side}_lengths"]) for side in ("before", "after")
        )
        whole = [[*a, *prompt["ids"], *b] for a, b in zip(before, after, strict=True)]
        assert cli.model.template.paste(prompt["text"], batch["texts"]) == whole
