"""The commands of the pages run, on the tiny model, in few steps and on a few rows."""

import csv
import json
import re
import shutil
from pathlib import Path

import pytest

from lightning_prompts.cli.main import main
from tests.pages import FAST, PAGES, RUN, Args, args_of, blocks, commands, named_files, why_not
from tests.tiny import reviews, save_model, save_reviews

SHORT = (
    *("--trainer.max_steps", "2", "--trainer.val_check_interval", "1"),
    *("--trainer.precision", "32-true", "--trainer.enable_progress_bar", "false"),
)
# A policy in small.
POLICY = (
    *("--model.policy.top_k", "5", "--model.policy.mlp_size", "32"),
    *("--model.prompts_per_step", "8"),
)
# A letter is a token here: a start of some words is longer than a search of real tokens takes.
LETTERS = ("--model.max_length", "40")
FITS = ("fit", "check", "demo")  # what takes the options of SHORT


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the commands name: models, rows, files that the pages show, texts, new rows."""
    home = tmp_path_factory.mktemp("user")
    for i, name in enumerate(("tiny", "other")):
        save_model(home / name, seed=i)
    save_reviews(home / "reviews", {"train": 64, "validation": 40, "test": 8})
    for split in ("train", "validation", "test"):
        rows = [json.loads(line) for line in (home / f"reviews/{split}.jsonl").open()]
        text = "".join(
            json.dumps({"sentence": row["text"], "label": int(row["label"] == "positive")}) + "\n"
            for row in rows
        )
        (home / "sst2").mkdir(exist_ok=True)
        (home / f"sst2/{split}.jsonl").write_text(text)
    with (home / "tickets.csv").open("w", newline="") as file:
        queues = {"positive": "billing", "negative": "technical"}
        lines = [(row["text"], queues[row["label"]]) for row in reviews(40)]
        csv.writer(file).writerows([("body", "queue"), *lines])
    queue = ("Billing", "Shipping", "Technical")
    for name, texts in (("emails", reviews(90)), ("new", reviews(5))):
        with (home / f"{name}.csv").open("w", newline="") as file:
            lines = [(i, row["text"], queue[i % 3]) for i, row in enumerate(texts)]
            csv.writer(file).writerows([("Ticket", "Message", "Queue"), *lines])
    for name, text in (named_files("yaml") | named_files("python")).items():
        (home / name).write_text(text, encoding="utf-8")
    for name in ("new.jsonl", "many.jsonl"):
        (home / name).write_text('{"text": "A warm film."}\n{"text": "Dull."}\n')
    (home / "texts.txt").write_text(" It was\n In a word:\n")
    return home


def on_tiny(args: Args) -> list[str]:
    """A command of a page, with what stands for its models and rows, and in few steps."""
    models = {"smollm2": "tiny", "gpt2": "tiny", "path/to/gpt2": "tiny", "gemma3-270m": "other"}
    stand_in = models | {"path/to/sst2": "sst2", "data/held-out": "sst2"}
    # Random weights know no order, no likely text and no task.
    stand_in["{grammar: 0.8}"] = "{grammar: 0.0}"
    floors = "{{natural_percentile: {}, task_reciprocal_rank: {}}}"
    stand_in[floors.format(30, 1.0)] = floors.format(0, 0.1)
    if "--model.match" in args:
        stand_in["logs/soft-demo/version_0"] = "logs/last/version_0"
    found = [stand_in.get(word, word) for word in args]
    if "configs/task/demo.yaml" in args or args[0] == "demo":
        found += ["--data.path", "reviews"]
    if args[0] in FITS:
        found += SHORT
    if "configs/tuner/rlprompt.yaml" in args:
        found += POLICY
    if "configs/tuner/guided_search.yaml" in args and {"--model.init.text", "search.yaml"} & {
        *args
    }:
        found += LETTERS
    return found


def test_every_command_runs_or_has_a_reason_why_not():
    for text in PAGES.values():
        for words in commands(text):
            assert why_not(words) or args_of(words) in (*FAST, *RUN), words
    assert not any(why_not(["lightning-prompts", *args]) for args in FAST)


def test_the_measures_of_a_text_run(lm_folder: Path, capsys: pytest.CaptureFixture[str]):
    (code,) = blocks("python", PAGES["docs/scrutability.md"])
    assert '"gpt2"' in code
    exec(code.replace('"gpt2"', repr(str(lm_folder))), {})
    shown = capsys.readouterr().out
    assert re.fullmatch(r"\{('\w+': -?[\d.e-]+(, )?){3,}\}\n", shown), shown


def test_the_commands_of_the_readme_run(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """In their order: each goes on with what the one before it left."""
    monkeypatch.chdir(folder)
    assert [args[0] for args in FAST] == ["fit", "validate", "test"]
    for args in FAST:
        main(on_tiny(args), show=False)
    run = Path("logs/soft-demo/version_0")
    for name, measure in (("prompt", "val/accuracy"), ("test", "test/accuracy")):
        assert measure in json.loads((run / f"{name}.json").read_text())["metrics"]


@pytest.fixture(scope="module")
def used(folder: Path) -> Path:
    """The folder after the runs that other commands begin with: two soft prompts and a PEZ one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for tuner in ("soft", "pez"):
            shutil.rmtree(f"logs/{tuner}-demo", ignore_errors=True)
            files = (
                "--config",
                f"configs/tuner/{tuner}.yaml",
                "--config",
                "configs/task/demo.yaml",
            )
            main(on_tiny(("fit", *files, "--lm.name", "smollm2")), show=False)
            if tuner == "soft":
                last = ("--data.template", "{text}{prompt}", "--experiment", "last")
                main(on_tiny(("fit", *files, "--lm.name", "smollm2", *last)), show=False)
        run = "logs/soft-demo/version_0"
        main(["export", run, "--format", "peft", "--output", "path/to/adapter"])
    return folder


def ended(args: list[str]) -> int:
    """The exit status of a command."""
    try:
        main(args, show=False)
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@pytest.mark.slow
@pytest.mark.parametrize("args", RUN, ids=" ".join)
def test_the_commands_of_the_pages_run(args: Args, used: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(used)
    before = written(used)
    if args[0] == "check":  # which may warn, as of few rows, by its exit status
        assert ended(on_tiny(args)) in (0, 1)
        return
    main(on_tiny(args), show=False)
    assert written(used) != before


def written(folder: Path) -> dict[Path, int]:
    """When each file was written last, in nanoseconds."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
