"""What is asked first is answered at once: help, the version, that a command is missing."""

import subprocess
import sys

import pytest

from lightning_prompts import __version__
from lightning_prompts.cli.app import PromptCLI
from lightning_prompts.cli.commands import COMMANDS, NO_COMMAND, RUNS, answer, command_of
from tests.patience import PATIENCE

# Lightning itself loads transformers, torch's compiler and scipy.
SLOW = {"torch", "lightning", "transformers", "datasets", "peft", "matplotlib", "scipy"}


def run(*args: str) -> tuple[str, set[str]]:
    """What Python prints, and every module that it loads."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *args],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return done.stdout, {line.rpartition("|")[2].strip() for line in lines}


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_and_version_load_no_library_that_takes_seconds(option: str):
    said, loaded = run("-m", "lightning_prompts", option)
    assert "lightning_prompts.cli.commands" in loaded
    assert not SLOW & loaded
    if option == "--version":
        assert said == f"lightning-prompts {__version__}\n"
    else:
        assert all(f"\n    {name} " in said for name in COMMANDS)


@pytest.mark.slow
def test_a_command_loads_no_data_and_no_model_classes_before_it_needs_them():
    code = (
        "import lightning_prompts.cli.app as cli; "
        "cli.import_all(cli.lightning_prompts.tuners); cli.import_all(cli.lightning_prompts.tasks)"
    )
    _, loaded = run("-c", code)
    assert {"lightning_prompts.tasks.yelp", "lightning_prompts.tuners.rlprompt"} <= loaded
    # torchmetrics loads matplotlib wherever it is installed.
    assert not {"datasets", "peft", "optuna", "transformers.modeling_utils"} & loaded
    assert not [name for name in loaded if name.startswith("lightning_prompts.report.figures")]


def test_the_commands_are_those_that_lightning_runs_and_some_more():
    assert set(RUNS) == set(PromptCLI.subcommands())
    others = {"check", "style", "study", "measure", "inspect", "transfer", "validity", "export"}
    others |= {"report", "demo"}
    assert set(COMMANDS) - set(RUNS) == others


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_left_to_itself(name: str):
    answer([name, "--help"])
    answer(["--config", "a.yaml", name])


@pytest.mark.parametrize("args", [["--help"], ["-h"], ["--config", "a.yaml", "-h"], ["-h", "fit"]])
def test_help_before_a_command_lists_them(args: list[str], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stop:
        answer(args)
    assert not stop.value.code
    listed = "check,style,study,measure,inspect,transfer,validity,export,report,demo"
    assert f"{{fit,validate,test,predict,{listed}}}" in capsys.readouterr().out


@pytest.mark.parametrize("args", [[], ["train"], ["--config", "a.yaml"]])
def test_no_command_is_a_mistake(args: list[str], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stop:
        answer(args)
    assert stop.value.code == 2
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", NO_COMMAND + "\n")


@pytest.mark.parametrize(
    ("args", "command"),
    [
        (["--config", "a.yaml", "test", "--experiment", "fit"], "test"),
        (["demo"], ""),
        ({"predict": {}}, "predict"),
        ({"subcommand": "test", "fit": {}, "test": {}}, "test"),
        ({"fit": {}, "test": {}}, ""),  # left to the parser
        (None, ""),
    ],
)
def test_the_command_that_is_asked_for(args, command: str):
    assert command_of(args) == command


@pytest.mark.parametrize("command", RUNS)
def test_only_the_parser_that_is_asked_for_is_complete(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    complete = []
    add = PromptCLI.add_arguments_to_parser
    monkeypatch.setattr(
        PromptCLI,
        "add_arguments_to_parser",
        lambda cli, parser: (complete.append(parser.description), add(cli, parser)),
    )
    with pytest.raises(SystemExit) as stop:
        PromptCLI([command, "--help"])
    assert not stop.value.code
    assert complete == [RUNS[command]]
    said = capsys.readouterr().out
    assert RUNS[command] in said
    assert "--lm.name" in said
