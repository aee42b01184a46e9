"""A template that is a conversation, through every command and file that has a template."""

import json
from pathlib import Path

import pytest
import torch
import yaml

from lightning_prompts.cli.main import main
from lightning_prompts.files.errors import PromptError
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.lm.template import Template
from lightning_prompts.runs.one_call import fit
from lightning_prompts.runs.prompt import load_prompt
from lightning_prompts.runs.reading import read_run
from lightning_prompts.studies.plan import written
from lightning_prompts.tuners.prompt_init import RECORD
from lightning_prompts.tuners.soft import SoftPrompt
from tests.tiny import TURNS, reviews

CHAT = {"chat": {"system": "{prompt}", "user": "{text}"}}
WORDS = {"negative": "n", "positive": "p"}
START, END = TURNS


@pytest.fixture(scope="module")
def run(chat_folder: Path, review_folder: Path, tmp_path_factory) -> Path:
    """A short fit's folder."""
    folder = tmp_path_factory.mktemp("run")
    task = {
        "template": CHAT,
        "verbalizer": WORDS,
        "path": str(review_folder),
        "batch_size": 8,
    }
    content = {"data": {"class_path": "lightning_prompts.Demo", "init_args": task}}
    (folder / "chat.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    main(
        [
            *("fit", "--config", "configs/tuner/soft.yaml", "--config", f"{folder}/chat.yaml"),
            *("--lm.name", str(chat_folder), "--trainer.max_steps", "2"),
            *("--trainer.logger.save_dir", f"{folder}/logs", "--data.val_batch_size", "8"),
            *("--trainer.enable_progress_bar", "false", "--trainer.precision", "32-true"),
        ]
    )
    return folder / "logs/soft-demo/version_0"


def test_a_run_goes_all_the_way(run: Path, chat_folder: Path, tmp_path: Path):
    found = json.loads((run / "prompt.json").read_text())
    assert found["template"] == CHAT
    rendered = f"{START}system\n{{prompt}}{END}\n{START}user\n{{text}}{END}\n{START}assistant\n"
    assert found["rendered"] == rendered
    saved = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    assert saved[RECORD]["template"] == CHAT

    again = main(["validate", "--config", str(run / "config.yaml"), "--ckpt_path", "best"])
    measured = {name: float(value) for name, value in again.trainer.callback_metrics.items()}
    assert measured == pytest.approx(found["metrics"], abs=1e-5)
    main(["predict", "--config", str(run / "config.yaml"), "--ckpt_path", "best"])
    lines = (run / "predictions.jsonl").read_text().splitlines()
    predicted = [json.loads(line) for line in lines]
    texts = [row["text"] for row in list(reviews(42))[34:]]  # the test rows
    prompt = load_prompt(run, FrozenLM(str(chat_folder)))
    assert prompt.classify(texts) == [line["label"] for line in predicted]

    assert read_run(run).settings["data.template.chat.system"] == "{prompt}"
    main(["report", str(run), "--output", str(tmp_path)])
    assert "{text}" in next(tmp_path.rglob("*.csv")).read_text()


@pytest.mark.parametrize(
    ("chat", "named"),
    [
        ("{user: '{text}', system: '{prompt}'}", "template is"),
        ("{system: '{prompt}', user: 'Film: {text}'}", "template is"),
    ],
)
def test_another_conversation_is_another_run(run: Path, chat: str, named: str, capsys):
    capsys.readouterr()
    with pytest.raises(SystemExit) as refused:
        main(
            [
                *("fit", "--config", str(run / "config.yaml"), "--ckpt_path", "last"),
                *("--data.template", f"{{chat: {chat}}}", "--trainer.max_steps", "4"),
            ]
        )
    assert refused.value.code == 2
    assert named in capsys.readouterr().err


def test_a_changed_chat_template_is_another_run(run: Path):
    checkpoint = run / "checkpoints" / "last.ckpt"
    cli = main(["fit", "--config", str(run / "config.yaml"), "--ckpt_path", "last"], run=False)
    lm = cli.model.lm
    lm.tokenizer.chat_template = lm.tokenizer.chat_template.replace("assistant", "bot")
    other = SoftPrompt(lm, Template(CHAT, lm), cli.model.verbalizer, prompt_length=10)
    with pytest.raises(PromptError, match="rendered conversation"):
        other.on_load_checkpoint(torch.load(checkpoint, weights_only=True))


def test_a_study_gives_a_conversation(run: Path):
    """As an option of its runs' command lines, where a later one counts more."""
    other = {"chat": [{"role": "user", "content": "{text}:{prompt}"}]}
    args = ["fit", "--config", str(run / "config.yaml"), f"--data.template={written(other)}"]
    assert main(args, run=False).model.template.given == other


@pytest.mark.parametrize("template", ["{chat: {user: 3}}", "{chats: {user: '{text}'}}"])
def test_what_is_no_conversation_is_said(template: str, chat_folder: Path, capsys):
    args = ["fit", "--config", "configs/tuner/soft.yaml", "--config", "configs/task/demo.yaml"]
    with pytest.raises(SystemExit) as refused:
        main([*args, "--lm.name", str(chat_folder), "--data.template", template], run=False)
    assert refused.value.code == 2
    said = capsys.readouterr().err
    assert "{chat: {system: '{prompt}', user: '{text}'}}" in said
    assert said.count("\n") == 1


def test_one_call_takes_a_conversation(chat_folder: Path, tmp_path: Path):
    prompt = fit(
        "manual",
        data=list(reviews(30)),
        template=CHAT,
        verbalizer=WORDS,
        lm=FrozenLM(str(chat_folder)),
        options={"text": "Good?"},
        trainer={"logger": False, "accelerator": "cpu", "enable_progress_bar": False},
        folder=tmp_path,
    )
    assert prompt.template.given == CHAT
    assert "test/accuracy" in prompt.metrics
