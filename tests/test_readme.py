"""README and pages are true: commands parse, Python runs, and what they name is there."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import lightning_prompts
from lightning_prompts.report.statistics import wilson
from tests.pages import DOCS, OURS, PAGES, ROOT, blocks, commands, named_files, ours
from tests.test_imports import ORDER
from tests.tiny import reviews

README, PYTHON = PAGES["README.md"], PAGES["docs/python.md"]
ARCHITECTURE = PAGES["docs/architecture.md"]


@pytest.fixture
def folder_of_a_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder but for what the commands name: runs, and files that the pages show."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for name, text in (named_files("yaml") | named_files("python")).items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    demo = ROOT / "configs/task/demo.yaml"
    for experiment, tuner, task in (
        ("soft-demo", "soft", demo),
        ("rlprompt-yelp_transfer", "rlprompt", demo),
        ("emails", "guided_search", tmp_path / "emails.yaml"),
    ):
        run = tmp_path / "logs" / experiment / "version_0"
        (run / "checkpoints").mkdir(parents=True)
        for name in ("best", "last"):
            content = {"global_step": 1, "state_dict": {}, "pytorch-lightning_version": "2.6"}
            torch.save(content, run / "checkpoints" / f"{name}.ckpt")
        parts = [ROOT / "configs" / "tuner" / f"{tuner}.yaml", task]
        config = {k: v for part in parts for k, v in yaml.safe_load(part.read_text()).items()}
        (run / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    return tmp_path


def test_every_subcommand_is_shown():
    assert {args[0] for args in ours(README)} >= {"fit", "validate", "test", "report"}
    shown = {args[0] for args in OURS}
    others = {"check", "demo", "style", "study", "report"}
    others |= {"measure", "inspect", "transfer", "export", "validity"}
    assert shown == {"fit", "validate", "test", "predict"} | others


@pytest.mark.parametrize("args", OURS, ids=" ".join)
def test_commands_parse(args: tuple[str, ...], folder_of_a_user: Path):
    from lightning_prompts.cli.export import parser as export_parser
    from lightning_prompts.cli.parser import find_configs
    from lightning_prompts.cli.report import parser as report_parser
    from lightning_prompts.cli.style import parser as style_parser
    from lightning_prompts.studies.command import parse as parse_study
    from lightning_prompts.studies.demo import BASE
    from lightning_prompts.studies.files import read_config
    from lightning_prompts.studies.inspect import divide as divide_inspect
    from lightning_prompts.studies.measure import divide
    from lightning_prompts.studies.needs import OnlyParses
    from lightning_prompts.studies.transfer import divide as divide_transfer
    from lightning_prompts.studies.validity import parse as parse_validity

    command, *options = args
    if command == "style":
        assert style_parser().parse_args(find_configs(options)[0]).lm.name == "smollm2"
        return
    if command == "report":
        assert report_parser().parse_args(options).paths
        return
    if command == "study":
        asked = parse_study(options)
        assert read_config(asked.configs, asked.options).name
        return
    if command == "validity":
        assert parse_validity(options).models
        return
    if command == "export":
        assert export_parser().parse_args(options).format
        return
    if command == "measure":
        prompts, options = divide(options)
        assert prompts
        command, options = "fit", ["--model=ImportedPrompt", "--model.path=a", *options]
    if command == "transfer":
        asked = divide_transfer(options)
        assert asked.prompts
        assert asked.models
        command, options = "fit", ["--model=ManualPrompt", "--model.text=a", *asked.options]
    if command == "inspect":
        asked = divide_inspect(options)
        of_run = ["--config", f"{asked.prompt}/config.yaml"] if Path(asked.prompt).is_dir() else []
        command = "fit"
        options = [*of_run, "--model=ManualPrompt", "--model.text=a", *asked.options]
    if command == "check":
        command = "fit"
    if command == "demo":
        command, options = "fit", ["--config", "configs/tuner/soft.yaml", *BASE, *options]
    config = OnlyParses([command, *options], run=False).config[command]
    if "--lm.name" in options:
        assert config.lm.name == options[options.index("--lm.name") + 1]


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):.*## ", makefile, flags=re.MULTILINE))
    everything = "\n".join(PAGES.values())
    named = {word for words in commands(everything) if words[0] == "make" for word in words[1:2]}
    named |= set(re.findall(r"`make\s([a-z-]+)", everything))
    assert {"demo", "test"} <= named
    assert named <= targets
    page = PAGES["docs/quickstart.md"]
    help_line = page[page.index("`make help` lists every target") :].partition("\n\n")[0]
    assert targets - {"help"} == set(re.findall(r"`([a-z-]+)`", help_line))


@pytest.mark.parametrize("page", ["README.md", "docs/quickstart.md"])
def test_versions_are_the_pinned_ones(page: str):
    pinned = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    named = re.findall(r"[\w-]+==[\w.]+", PAGES[page])
    assert named
    assert set(named) <= set(pinned)


def test_a_newcomer_finishes_the_readme():
    assert len(README.splitlines()) <= 150


def test_intervals_are_wilson_s():
    """Of the README's results, from the accuracy and the rows beside each, both rounded."""
    found = re.findall(r"([\d.]+)\**\s+\[([\d.]+), ([\d.]+)\] \| ([\d,]+) \|", README)
    assert len(found) == 8
    for accuracy, low, high, rows in found:
        expected = wilson(float(accuracy), int(rows.replace(",", "")))
        assert (float(low), float(high)) == pytest.approx(expected, abs=1.1e-3)


# ---- links and paths


def anchors(text: str) -> set[str]:
    """What links may name in a page: its headings, as GitHub turns them into anchors."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    titles = re.findall(r"^#+ (.+)$", prose, flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str):
    for target in re.findall(r"\]\((?!https?://)([^)\s]+)\)", PAGES[page]):
        path, _, anchor = target.partition("#")
        found = ((ROOT / page).parent / path).resolve() if path else ROOT / page
        assert found.is_file(), target
        if anchor:
            assert anchor in anchors(PAGES[found.relative_to(ROOT).as_posix()]), target


def test_the_index_has_every_page():
    linked = set(re.findall(r"\]\(([\w/]+\.md)\)", PAGES["docs/README.md"]))
    of_the_site = {"README.md", "index.md", "changelog.md", "contributing.md"}
    assert (
        linked == {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")} - of_the_site
    )


@pytest.mark.parametrize("page", PAGES)
def test_named_files_exist(page: str):
    text = re.sub(r"<!-- (\w+) -->.*?<!-- /\1 -->", "", PAGES[page], flags=re.DOTALL)
    folders = "configs|docs|lightning_prompts|tests|findings"
    for path in re.findall(rf"(?<![\w/.-])((?:{folders})/[\w/.-]*\w/?)", text):
        assert (ROOT / path).exists() or path.startswith("docs/_build"), path


def test_places_have_what_they_are_named_for():
    """Of the table *Where is ...*: each file has the functions and classes that it names."""
    named = re.findall(r"`(lightning_prompts/[\w/]+\.py)`: ((?:`[\w.]+`(?:, )?)+)", ARCHITECTURE)
    assert len(named) > 20
    for path, names in named:
        text = (ROOT / path).read_text(encoding="utf-8")
        for name in re.findall(r"[\w.]+", names):
            for part in name.split("."):
                assert re.search(rf"^ *(?:def|class) {part}\b", text, flags=re.MULTILINE), name


def test_the_ten_folders_are_named_from_the_bottom_up():
    assert tuple(re.findall(r"^\| `lightning_prompts/(\w+)/` \|", ARCHITECTURE, re.M)) == ORDER
    assert tuple(re.findall(r"^  (\w+)/  +", README, flags=re.MULTILINE)) == ORDER


# ---- Python


def test_every_public_name_is_told():
    table = PYTHON.partition("## Public names")[2]
    assert set(re.findall(r"`(\w+)`", table)) == set(lightning_prompts.__all__)


@pytest.mark.parametrize("page", ["README.md", "docs/python.md"])
def test_the_python_runs(page: str, lm_folder: Path, folder_of_a_user: Path):
    """As one script, on the tiny model, and in fewer steps."""
    queues = {"positive": "billing", "negative": "technical"}
    rows = [f"{json.dumps(row['text'])},{queues[row['label']]}" for row in reviews(40)]
    Path("tickets.csv").write_text("\n".join(["body,queue", *rows]))
    code = "\n".join(block for block in blocks("python", PAGES[page]) if "soft-demo" not in block)
    smaller = re.sub(r"\b(\d)00\b", lambda number: str(2 * int(number[1])), code)
    ours = {'"smollm2"': f'"{lm_folder}"', '" billing"': '" good"', '" technical"': '" bad"'}
    for theirs, tiny in ours.items():
        assert theirs in smaller
        smaller = smaller.replace(theirs, tiny)
    names: dict[str, Any] = {}
    exec(smaller, names)
    assert "val/accuracy" in names["prompt"].metrics
    assert set(names["prompt"].classify(["My card was charged twice."])) <= set(queues.values())
    assert names["best"].folder.is_dir()


@pytest.mark.parametrize(
    ("tuner", "template", "add_bos"),
    [
        ("soft", "{prompt} {text} It was", "auto"),
        ("soft", "{prompt} {text} It was", "true"),
        ("soft", "{prompt}<|endoftext|>{text} It was", "true"),
        ("pez", "{text}{prompt}", "auto"),
    ],
)
def test_the_vectors_by_hand_give_what_predict_gives(
    tuner: str,
    template: str,
    add_bos: str,
    lm_folder: Path,
    review_folder: Path,
    tmp_path: Path,
    monkeypatch,
):
    from lightning_prompts.cli.main import main

    monkeypatch.chdir(tmp_path)
    options = ["--config", f"configs/tuner/{tuner}.yaml", "--config", "configs/task/demo.yaml"]
    options += ["--lm.name", str(lm_folder), "--data.path", str(review_folder)]
    options += [
        "--lm.add_bos",
        add_bos,
        "--data.template",
        template,
        "--model.prompt_length",
        "4",
        "--data.batch_size",
        "8",
    ]
    main(["fit", *options, "--trainer.max_steps", "3", "--experiment", "soft-demo"], show=False)
    text = "A {warm} and funny film."
    Path("new.jsonl").write_text(json.dumps({"text": text}) + "\n")
    run = Path("logs/soft-demo/version_0")
    resume = ["--config", str(run / "config.yaml"), "--ckpt_path", "best"]
    main(["predict", *resume, "--data.predict", "new.jsonl"], show=False)
    (predicted,) = (run / "predictions.jsonl").read_text().splitlines()

    (code,) = (block for block in blocks("python", PYTHON) if "soft-demo" in block)
    shown = '"A warm and funny film."'
    assert shown in code
    names: dict = {}
    exec(code.replace(shown, repr(text)), names)
    found = dict(zip(names["words"], names["answers"].tolist(), strict=True))
    assert found == pytest.approx(json.loads(predicted)["probabilities"], abs=1e-5)


def test_the_tuner_of_a_user_trains(lm_folder: Path, review_folder: Path, folder_of_a_user: Path):
    from lightning_prompts.cli.main import main

    files = ["--config", "noisy.yaml", "--config", "configs/task/demo.yaml"]
    options = ["--lm.name", str(lm_folder), "--data.path", str(review_folder)]
    short = ["--trainer.max_steps", "2", "--model.sigma", "0.5"]
    cli = main(["fit", *files, *options, *short], show=False)
    assert cli is not None
    assert (type(cli.model).__name__, vars(cli.model)["sigma"]) == ("NoisyPrompt", 0.5)
    assert Path("logs/noisy-demo/version_0/prompt.json").is_file()
