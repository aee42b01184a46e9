"""Every shipped configuration builds through the real command line, in every combination."""

import re
from pathlib import Path

import pytest
import torch
import yaml

from lightning_prompts.cli.app import PromptCLI
from lightning_prompts.cli.main import main
from lightning_prompts.cli.parser import CONFIGS

TUNERS, TASKS, TRAINERS = (
    sorted(f"configs/{group}/{path.name}" for path in (CONFIGS / group).glob("*.yaml"))
    for group in ("tuner", "task", "trainer")
)
TASKS.remove("configs/task/yelp_style.yaml")  # of `style`, which trains no prompt
NUMBER = re.compile(r"^\s*[\w.]+:\s*(-?[\d.]+(e-?\d+)?|null)\s*(#.*)?$")


def build(lm_folder: Path, *args: str) -> PromptCLI:
    """The command line's parts for the tiny model, whose only words are those of film reviews."""
    words = "{a: ' bad', b: ' good'}"
    model = ("--lm.name", str(lm_folder), "--data.verbalizer", words)
    return main(["fit", *args, *model], run=False)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("tuner", TUNERS)
def test_every_tuner_meets_every_task(
    tuner: str, task: str, lm_folder: Path, chat_folder: Path, tmp_path, monkeypatch, capsys
):
    lm_folder = chat_folder if "_chat" in task else lm_folder
    monkeypatch.chdir(tmp_path)  # where no configs/ lies: the shipped ones are found
    if "yelp.yaml" in task and "rlprompt" not in tuner:  # its reward is for a policy
        with pytest.raises(SystemExit) as refused:
            build(lm_folder, "--config", tuner, "--config", task)
        assert refused.value.code == 2
        assert "no such option, RLPrompt has" in capsys.readouterr().err
        return
    cli = build(lm_folder, "--config", tuner, "--config", task)
    model, data = cli.model, cli.datamodule
    assert model.lm is data.lm
    assert model.template is data.template
    assert model.verbalizer is data.verbalizer
    written = yaml.safe_load((CONFIGS.parent / tuner).read_text())["model"]
    assert type(model).__name__ == written["class_path"].rpartition(".")[2]
    assert cli.trainer.logger.name == f"{model.slug}-{data.slug}"


@pytest.mark.parametrize("trainer", TRAINERS)
def test_trainers_go_on_top(trainer: str, lm_folder: Path):
    cli = build(
        lm_folder,
        *("--config", "configs/tuner/soft.yaml", "--config", "configs/task/sst2.yaml"),
        *("--config", trainer, "--trainer.accelerator", "cpu", "--trainer.devices", "1"),
    )
    written = yaml.safe_load((CONFIGS.parent / trainer).read_text())
    for name, value in written.get("data", {}).get("init_args", {}).items():
        assert cli.config.fit.data.init_args[name] == value
    assert cli.config.fit.data.class_path.endswith("SST2")
    assert "max_steps" not in written["trainer"] or (
        cli.trainer.max_steps == written["trainer"]["max_steps"]
    )


def test_words_are_single_tokens_of_gpt2(tmp_path_factory, shared_data: Path):
    """The shipped verbalizers fit the model that is the default, by its real tokenizer."""
    from transformers import GPT2Config, GPT2LMHeadModel, GPT2TokenizerFast

    folder = tmp_path_factory.mktemp("gpt2_words")
    GPT2TokenizerFast.from_pretrained(shared_data / "gpt2_tokenizer").save_pretrained(folder)
    GPT2LMHeadModel(GPT2Config(n_embd=4, n_layer=1, n_head=1)).save_pretrained(folder)
    for task in TASKS:
        tuner = "configs/tuner/rlprompt.yaml" if "yelp.yaml" in task else "configs/tuner/soft.yaml"
        args = ("--config", tuner, "--config", task, "--lm.name", str(folder))
        # An example of words, which its user replaces; and GPT-2 knows no conversations.
        if "custom" in task or "_chat" in task:
            continue
        cli = main(["fit", *args], run=False)
        assert len(cli.model.verbalizer.token_ids) >= 2


def test_default_loads_by_itself_and_gives_reasons(lm_folder: Path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cli = build(lm_folder, "--model", "SoftPrompt", "--model.prompt_length", "3", "--data", "Demo")
    assert cli.trainer.max_steps == 300
    assert cli.trainer.gradient_clip_val == 1.0
    assert cli.trainer.logger.save_dir == "logs"
    lines = (CONFIGS / "default.yaml").read_text().splitlines()
    for before, line in zip(["", *lines], lines, strict=False):
        if NUMBER.match(line):
            assert "#" in line or before.strip().startswith("#"), f"no reason beside {line!r}"


def test_precision_follows_the_processor(lm_folder: Path, monkeypatch):
    args = ("--model", "SoftPrompt", "--model.prompt_length", "3", "--data", "Demo")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    for known, expected in (
        ({"amx_bf16": True, "avx512_bf16": True}, "bf16-mixed"),
        ({"amx_bf16": False, "avx512_bf16": True}, "32-true"),
        ({"avx2": True}, "32-true"),
        ({}, "32-true"),
    ):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda known=known: known)
        assert build(lm_folder, *args).config.fit.trainer.precision == expected
    cli = build(lm_folder, *args, "--trainer.precision", "64-true")
    assert cli.trainer.precision == "64-true"
