"""What the pages show, and which of it runs: the tests and docs/tested.py read the same tables."""

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in (*sorted(ROOT.glob("*.md")), *sorted(DOCS.rglob("*.md")))
}
# What starts the processes stands before the command line.
STARTS = ("lightning-prompts", "lightning_prompts")
Args = tuple[str, ...]

# Pages whose Python runs, every block of it, on the tiny model.
PYTHON_RUNS = ("README.md", "docs/extend.md", "docs/python.md", "docs/scrutability.md")
# Why a command is not run: the first pattern that it matches says so.
NOT_RUN = {
    r"^make (setup|lint|test)$": "`.ci/run` runs it",
    r"^make demo$": "the workflow of GitHub runs it; it needs SmolLM2",
    r"^make tensorboard": "a server, which does not end by itself",
    r"(^|[ /])(venv|pip) |activate$": "installs this project; `.ci/run` does, "
    "by `make setup`, and a slow test installs a wheel",
    r"^python -": "needs data sets of the hub, or files of another project",
    r"torchrun|srun|^(if|else|fi|name=|last=|run=)|trainer.devices": "several processes or "
    "machines; `tests/test_ddp.py` runs two processes on the CPU",
    r"trainer/(ddp|model_parallel|slurm)\.yaml": "several GPUs",
    r"task/sst2\.yaml(?!.*data\.path)": "needs the hub: SST-2, GPT-2",
    r"^\S+ study ": "many runs; `tests/studies/test_study.py` runs small studies",
    r"^\S+ validity ": "some 500 texts; `tests/studies/test_validity.py` runs it on a few",
    r"^\S+ style |yelp": "needs Yelp's sentences; `tests/cli/test_style.py` and "
    "`tests/tasks/` run such commands on reviews",
    r"--ratings ": "needs sheets that people have filled in; `tests/report/test_ratings.py` does",
    r"--compare logs/": "needs a run that another page makes; `tests/studies/test_inspect.py` "
    "compares runs",
    r"^\S+ report logs/studies": "needs a study; `tests/report/` draws small ones",
}


def blocks(language: str, text: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


def commands(text: str) -> list[list[str]]:
    """Every command line of the bash blocks, split into words; without what a shell hands on."""
    found = "\n".join(blocks("bash", text)).replace("\\\n", " ")
    lines = re.sub(r"<<'EOF'\n.*?^EOF$", "", found, flags=re.DOTALL | re.MULTILINE).splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def args_of(words: list[str]) -> Args | None:
    """What follows the name of the program, but for lines with variables of a script."""
    if not any(name in words for name in STARTS) or any("$run" in word for word in words):
        return None
    return tuple(words[max(words.index(name) for name in STARTS if name in words) + 1 :])


def ours(text: str) -> list[Args]:
    """The command lines of this program."""
    return [args for words in commands(text) if (args := args_of(words))]


def why_not(words: list[str]) -> str | None:
    """Why no test runs a command; None where one does."""
    line = " ".join(words)
    return next((why for pattern, why in NOT_RUN.items() if re.search(pattern, line)), None)


OURS = list(dict.fromkeys(args for text in PAGES.values() for args in ours(text)))
# What the README begins with runs with the fast tests, all else with the slow ones: drawing a
# report takes seconds.
FAST = [args for args in ours(PAGES["README.md"]) if args[0] != "report"]
RUN = [args for args in OURS if args not in FAST and why_not(["lightning-prompts", *args]) is None]


def named_files(language: str) -> dict[str, str]:
    """Blocks that begin with the name of the file that they are."""
    found = [block for text in PAGES.values() for block in blocks(language, text)]
    names = [re.match(r"# (\w+\.\w+)\n", block) for block in found]
    return {name[1]: block for name, block in zip(names, found, strict=True) if name}
