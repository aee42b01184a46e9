"""The README's commands parse, its targets exist, and its versions are the ones that are pinned."""

import json
import re
import shlex
from pathlib import Path

import pytest
import torch
import yaml

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


STARTS = ("lightning-prompts", "lightning_prompts")
CLUSTER = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


def commands(text: str = README) -> list[list[str]]:
    """Every command line of the bash blocks, split into words."""
    lines = "\n".join(blocks("bash", text)).replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


OURS = [words[1:] for words in commands() if words[0] == "lightning-prompts"]
# What starts the processes stands before the command line, or variables of a script within it.
OF_CLUSTERS = [
    words[max(words.index(name) for name in STARTS if name in words) + 1 :]
    for words in commands(CLUSTER)
    if any(name in words for name in STARTS) and not any("$run" in word for word in words)
]


@pytest.fixture
def folder_of_a_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder but for what the README's commands name: a run, and a task of one's own."""
    monkeypatch.chdir(tmp_path)
    for experiment, tuner in (("soft-demo", "soft"), ("rlprompt-yelp_transfer", "rlprompt")):
        run = tmp_path / "logs" / experiment / "version_0"
        (run / "checkpoints").mkdir(parents=True)
        for name in ("best", "last"):
            content = {"global_step": 1, "state_dict": {}, "pytorch-lightning_version": "2.6"}
            torch.save(content, run / "checkpoints" / f"{name}.ckpt")
        parts = [ROOT / "configs" / "tuner" / f"{tuner}.yaml", ROOT / "configs/task/demo.yaml"]
        config = {k: v for part in parts for k, v in yaml.safe_load(part.read_text()).items()}
        (run / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    for block in blocks("yaml"):
        name = re.match(r"# (\S+\.yaml)\n", block)[1]
        (tmp_path / name).write_text(block, encoding="utf-8")
    return tmp_path


def test_the_readme_shows_every_subcommand():
    assert {words[0] for words in OURS} >= {"fit", "validate", "test", "predict"}


@pytest.mark.parametrize("args", [*OURS, *OF_CLUSTERS], ids=" ".join)
def test_commands_parse(args: list[str], folder_of_a_user: Path):
    from lightning_prompts.cli.app import PromptCLI
    from lightning_prompts.cli.parser import find_configs
    from lightning_prompts.cli.report import parser as report_parser
    from lightning_prompts.cli.style import parser as style_parser
    from lightning_prompts.studies.command import parse as parse_study
    from lightning_prompts.studies.demo import BASE
    from lightning_prompts.studies.files import read_config

    if args[0] == "style":
        assert style_parser().parse_args(find_configs(args[1:])[0]).lm.name == "smollm2"
        return

    class OnlyParses(PromptCLI):
        """Builds no model and no data: neither is there."""

        def instantiate_classes(self) -> None:
            pass

    if args[0] == "report":
        assert report_parser().parse_args(args[1:]).paths
        return
    if args[0] == "study":
        asked = parse_study(args[1:])
        assert read_config(asked.configs, asked.options).name
        return
    if args[0] == "demo":
        args = ["fit", "--config", "configs/tuner/soft.yaml", *BASE, *args[1:]]
    config = OnlyParses(args, run=False).config[args[0]]
    assert "--lm.name" in args
    assert config.lm.name == args[args.index("--lm.name") + 1]


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):.*## ", makefile, flags=re.MULTILINE))
    named = {word for words in commands() if words[0] == "make" for word in words[1:2]}
    named |= set(re.findall(r"`make ([a-z-]+)", README))
    assert {"demo", "test"} <= named
    assert named <= targets
    help_line = README[README.index("`make help` lists every target") :].partition("\n\n")[0]
    assert targets - {"help"} == set(re.findall(r"`([a-z-]+)`", help_line))


def test_versions_are_the_pinned_ones():
    pinned = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    named = re.findall(r"[\w-]+==[\w.]+", README)
    assert named
    assert set(named) <= set(pinned)


def test_named_files_exist():
    paths = set(re.findall(r"(?:configs|docs|lightning_prompts)/[\w/]+\.\w+", README))
    assert paths
    assert all((ROOT / path).is_file() for path in paths), paths


@pytest.mark.parametrize("tuner", ["soft", "pez"])
@pytest.mark.parametrize("template", ["{prompt} {text} It was", "{text}{prompt}"])
def test_the_python_gives_what_predict_gives(
    tuner: str, template: str, lm_folder: Path, review_folder: Path, tmp_path: Path, monkeypatch
):
    from lightning_prompts.cli.main import main

    monkeypatch.chdir(tmp_path)
    options = ["--config", f"configs/tuner/{tuner}.yaml", "--config", "configs/task/demo.yaml"]
    options += ["--lm.name", str(lm_folder), "--data.path", str(review_folder)]
    options += ["--data.template", template, "--model.prompt_length", "4", "--data.batch_size", "8"]
    main(["fit", *options, "--trainer.max_steps", "3", "--experiment", "soft-demo"], show=False)
    text = "A {warm} and funny film."
    Path("new.jsonl").write_text(json.dumps({"text": text}) + "\n")
    run = Path("logs/soft-demo/version_0")
    resume = ["--config", str(run / "config.yaml"), "--ckpt_path", "best"]
    main(["predict", *resume, "--data.predict", "new.jsonl"], show=False)
    (predicted,) = (run / "predictions.jsonl").read_text().splitlines()

    (code,) = blocks("python")
    shown = '"A warm and funny film."'
    assert shown in code
    names: dict = {}
    exec(code.replace(shown, repr(text)), names)
    found = dict(zip(names["words"], names["answers"].tolist(), strict=True))
    assert found == pytest.approx(json.loads(predicted)["probabilities"], abs=1e-5)
