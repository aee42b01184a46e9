"""A class that takes another one's place begins with its own defaults; what is given counts."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from lightning_prompts.cli.main import main
from lightning_prompts.cli.parser import CONFIGS

TUNERS = sorted((CONFIGS / "tuner").glob("*.yaml"))
SOFT = ("--config", "configs/tuner/soft.yaml")
PLAIN = ("--model", "SoftPrompt", "--model.prompt_length", "4")
ADAFACTOR = "torch.optim.Adafactor"


@pytest.fixture
def build(lm_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What the command line makes of the arguments."""
    monkeypatch.chdir(tmp_path)
    task = ("--config", "configs/task/demo.yaml", "--lm.name", str(lm_folder))
    return lambda *args: main(["fit", *task, *args], run=False)


def options(cli: Any, block: str = "optimizer") -> tuple[str, dict[str, Any]]:
    found = cli.config.fit.model.init_args[block]
    return found.class_path.rpartition(".")[2], vars(found.init_args)


def defaults(kind: type) -> dict[str, Any]:
    return kind([torch.nn.Parameter(torch.zeros(1))]).defaults


def test_an_optimizer_has_its_own_defaults(build):
    for args in (PLAIN, SOFT):
        name, given = options(build(*args, "--model.optimizer", "SGD"))
        own = defaults(torch.optim.SGD)
        assert name == "SGD"
        assert given == {key: own.get(key, value) for key, value in given.items()}
    name, given = options(build(*SOFT, "--model.optimizer", "torch.optim.Adafactor"))
    assert (name, given["eps"]) == ("Adafactor", defaults(torch.optim.Adafactor)["eps"])


@pytest.mark.slow
def test_what_is_given_counts(build, tmp_path: Path):
    rate = ("--model.optimizer.lr", "0.5")
    name, given = options(build(*SOFT, *rate, "--model.optimizer", "SGD"))
    assert (name, given["lr"], given["weight_decay"]) == ("SGD", 0.5, 0)
    # The same class keeps what was said of it.
    null = ("--model.lr_scheduler.warmup_steps", "3", "--model.lr_scheduler", "null")
    same = build(*SOFT, "--model.optimizer=AdamW", *null)
    assert (options(same)[1]["lr"], options(same)[1]["weight_decay"]) == (0.01, 0)
    assert same.config.fit.model.init_args.lr_scheduler is None
    overlay = {"class_path": "torch.optim.RMSprop", "init_args": {"alpha": 0.5}}
    (tmp_path / "a.yaml").write_text(yaml.dump({"model": {"init_args": {"optimizer": overlay}}}))
    name, given = options(build(*SOFT, "--config", "a.yaml", "--model.optimizer.momentum", "0.1"))
    assert (name, given["alpha"], given["momentum"], given["lr"]) == ("RMSprop", 0.5, 0.1, 0.01)


@pytest.mark.slow
def test_so_has_every_option_that_is_a_class(build, tmp_path: Path):
    init = ("--model.init", "FromText", "--model.init.text", "so", "--model.prompt_length", "null")
    others = ("--model.lr_scheduler", "LinearLR", "--trainer.logger", "CSVLogger")
    cli = build(*SOFT, *init, *others)
    assert options(cli, "lr_scheduler")[1]["total_iters"] == 5
    assert options(cli, "init") == ("FromText", {"text": "so"})
    # What has no default stays as it was given: where runs are written, and the template.
    logger = cli.config.fit.trainer.logger
    assert logger.class_path.endswith("CSVLogger")
    assert logger.init_args.save_dir == "logs"
    table = {"class_path": "SST2", "init_args": {"template": "{prompt}{text}?", "shots": 3}}
    table["init_args"] |= {"verbalizer": {"0": " bad", "1": " good"}, "path": "x.csv"}
    (tmp_path / "a.yaml").write_text(yaml.dump({"data": table}))
    pez = ("--model", "PEZ")
    other = ("--config", "a.yaml", "--data", "TextClassification", "--data.path", "y.csv")
    both = build(*SOFT, *pez, *other).config.fit
    data = both.data.init_args
    assert (data.template, data.shots, data.path) == ("{prompt}{text}?", 3, "y.csv")
    own = both.model.init_args
    assert (own.optimizer.init_args.lr, own.prompt_length) == (0.001, 10)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--model.optimizer", "Adam", "--model.optimizer.eps", "[1.0e-8, 1]"], "eps: expected"),
        (["--model.optimizer.betas", "[0.9, 1.5]"], "betas is [0.9, 1.5]; give a number from 0"),
        # By its whole path: another test may have loaded transformers' class of this name.
        (["--model.optimizer", ADAFACTOR, "--model.optimizer.eps", "[-1, 1]"], "give at least 0"),
        (["--model.optimizer", "Optimizer"], "Optimizer needs --model.optimizer.defaults"),
        (["--optimizer", "Adam"], "did you mean --model.optimizer?"),
        (["--model.lr_scheduler", "StepLR"], "StepLR needs --model.lr_scheduler.step_size"),
        (["--model.lr_scheduler", "ReduceLROnPlateau"], "several classes have this name"),
        (["--model.lr_scheduler", "SequentialLR"], "lightning_prompts.SequentialSchedule"),
        (
            ["--model.lr_scheduler", "{class_path: ChainedScheduler}"],
            "lightning_prompts.ChainedSchedule",
        ),
        (["--model.lr_scheduler", "transformers.get_cosine_schedule_with_warmup"], "a function"),
        (["--model.lr_scheduler", "transformers.GreedyLR"], "GreedyLR is no torch scheduler"),
    ],
)
def test_what_cannot_be_made_is_refused(build, args: list[str], message: str, capsys):
    with pytest.raises(SystemExit) as refused:
        build(*SOFT, *args)
    assert refused.value.code == 2
    said = capsys.readouterr().err.strip()
    assert message in said
    assert "\n" not in said


# ---- the examples in the comments of the tuners' configurations


def examples(path: Path) -> list[tuple[str, Any]]:
    """Blocks of YAML in comments, with the option that they stand at."""
    found, above = [], {}
    block: list[str] = []
    for line in [*path.read_text().splitlines(), ""]:
        if match := re.match(r"( *)(\w+):", line):
            above = {k: v for k, v in above.items() if k < len(match[1])} | {
                len(match[1]): match[2]
            }
        if re.match(r" *#   \w+:", line):
            block.append(line.partition("#   ")[2])
            indent = line.index("#")
        elif block:
            owner = [name for depth, name in sorted(above.items()) if depth < indent]
            names = [name for name in owner if name != "init_args"]
            found.append((".".join(names), yaml.safe_load("\n".join(block))))
            block = []
    return found


def commands(path: Path) -> list[list[str]]:
    """Command lines in comments."""
    text = path.read_text().replace("\\\n#", "")
    return [shlex.split(line) for line in re.findall(r"#   lightning-prompts (.+)", text)]


def test_the_comments_have_examples():
    found = {path.stem: examples(path) for path in TUNERS}
    assert [name for name, _ in found["soft"]] == ["model.optimizer", "model.optimizer"]
    assert [name for name, _ in found["pez"]] == ["model.optimizer"]
    assert sum(len(commands(path)) for path in TUNERS) >= len(TUNERS)


@pytest.mark.slow
@pytest.mark.parametrize("path", TUNERS, ids=lambda path: path.stem)
def test_the_comments_examples_run(build, path: Path, review_folder: Path, lm_folder: Path):
    short = (
        "--data.path",
        str(review_folder),
        "--trainer.max_steps",
        "1",
        "--data.batch_size",
        "8",
    )
    for name, value in examples(path):
        given = value if "class_path" not in value else {name.rpartition(".")[2]: value}
        args = [part for k, v in given.items() for part in (f"--model.{k}", json.dumps(v))]
        config = ("--config", f"configs/tuner/{path.name}")
        cli = build(*config, *args, *short, "--trainer.limit_val_batches", "0")
        before = cli.model.prompt.detach().clone()
        cli.start()
        assert not torch.equal(cli.model.prompt, before)
        for block, wanted in given.items():
            made = cli.config.fit.model.init_args[block]
            assert wanted is None or wanted["init_args"].items() <= vars(made.init_args).items()
    words = ("--data.verbalizer", "{a: ' bad', b: ' good'}", "--lm.name", str(lm_folder))
    if path.stem == "guided_search":  # its text has a token a letter here
        words += ("--model.max_length", "99")
    for command in commands(path):
        assert main([*command, *words], run=False) is not None
