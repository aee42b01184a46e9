"""The package is ten folders, and a folder imports only those below it; circles are nowhere."""

import ast
import graphlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "lightning_prompts"
# From the bottom up.
ORDER = (
    *("files", "lm", "metrics", "tasks", "tuners"),
    *("callbacks", "runs", "report", "cli", "studies"),
)
APART = {("tuners", "tasks")}  # a tuner knows no task, though tasks are below it
# Where a library may be imported: all that imports such a place needs the library, too.
LIBRARIES: Mapping[str, tuple[str, ...]] = {
    "transformers": ("lm", "tuners.schedule"),
    "lightning": ORDER[ORDER.index("tasks") :],
    "pytorch_lightning": (),
    "matplotlib": ("report.figures",),
    "optuna": ("studies", "report.load"),
}


def modules(package: Path) -> dict[str, Path]:
    """Every module by its name inside the package; a folder's `__init__` has the folder's."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(path: Path) -> Iterator[str]:
    """All that a file imports, wherever that stands: `a.b.c` for `from a.b import c`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = "." * node.level + (node.module or "")
            yield from (f"{start}.{alias.name}" for alias in node.names)


def owner(name: str, known: Mapping[str, Path]) -> str:
    """The module that a name inside the package is, or is in; empty where it is the package's."""
    while name and name not in known:
        name = name.rpartition(".")[0]
    return name


def rank(module: str) -> int:
    """Place of a module's folder in the order; `__main__` stands above all of it."""
    folder = module.partition(".")[0]
    return ORDER.index(folder) if folder in ORDER else len(ORDER)


def faults(package: Path) -> list[str]:
    """What breaks the rules, a line each."""
    known, found = modules(package), []
    graph: dict[str, set[str]] = {here: set() for here in known}
    for here, path in known.items():
        for name in imported(path):
            top, _, rest = name.partition(".")
            places = LIBRARIES.get(top)
            if not top:
                found.append(f"{here}: a relative import")
            elif places is not None and not f"{here}.".startswith(tuple(f"{p}." for p in places)):
                found.append(f"{here} imports {top}")
            elif top == package.name and here:  # the package itself may offer whatever is in it
                there = owner(rest, known)
                pair = here.partition(".")[0], there.partition(".")[0]
                # What it offers is of all modules, so none of them may ask it for anything.
                if not there or rank(there) > rank(here) or pair in APART:
                    found.append(f"{here} imports {there or rest}")
                graph[here] |= {there} - {""}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        found.append("a circle: " + " <- ".join(error.args[1]))
    return found


def test_a_folder_imports_only_those_below_it():
    assert faults(PACKAGE) == []


def test_the_order_names_what_is_at_the_top():
    there = {path.name for path in PACKAGE.iterdir()} - {"__pycache__"}
    assert there == {*ORDER, "__init__.py", "__init__.pyi", "__main__.py", "py.typed"}


# ---- the checker itself, on packages of a few lines

SOUND = {
    "__init__.py": "from made.tuners.soft import Soft\n__version__ = '1'",
    "__main__.py": "def run():\n    from made.cli.main import main",
    "files/__init__.py": "",
    "files/errors.py": "import os\nimport lightningrod",
    "lm/frozen.py": "import transformers\nfrom made.files.errors import Bad\nfrom made import lm",
    "lm/__init__.py": "",
    "tuners/soft.py": "import lightning.pytorch\nfrom made.lm import frozen",
    "tuners/schedule.py": "def get():\n    from transformers import get_scheduler",
    "report/load.py": "import optuna",
    "report/figures/looks.py": "from matplotlib import rc_context",
    "cli/main.py": "import made.report.load\nimport made.tuners.soft as soft",
}
LATE = "def f():\n    from {} import {}"
TYPES = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from {} import {}"


def made(folder: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        path = folder / "made" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder / "made"


def test_a_sound_package_has_no_fault(tmp_path: Path):
    assert faults(made(tmp_path, SOUND)) == []


@pytest.mark.parametrize(
    ("file", "text", "fault"),
    [
        ("files/text.py", "import made.lm.frozen", "files.text imports lm.frozen"),
        ("files/text.py", LATE.format("made.cli", "main"), "files.text imports cli.main"),
        ("lm/batch.py", TYPES.format("made.tuners.soft", "Soft"), "lm.batch imports tuners.soft"),
        ("metrics/mean.py", "from made.tasks import base", "metrics.mean imports tasks.base"),
        ("tuners/pez.py", LATE.format("made.tasks.base", "Task"), "tuners.pez imports tasks.base"),
        ("files/text.py", "from made.common.all import x", "files.text imports common.all"),
        ("cli/app.py", "import made.__main__", "cli.app imports __main__"),
        ("tuners/pez.py", "from .base import Tuner", "tuners.pez: a relative import"),
        ("report/page.py", "from made import __version__", "report.page imports __version__"),
        (
            "tasks/boolq.py",
            "from transformers import AutoModel",
            "tasks.boolq imports transformers",
        ),
        ("tuners/schedules.py", "import transformers", "tuners.schedules imports transformers"),
        ("metrics/mean.py", "import lightning", "metrics.mean imports lightning"),
        ("cli/app.py", "import pytorch_lightning", "cli.app imports pytorch_lightning"),
        ("report/page.py", LATE.format("matplotlib", "rc"), "report.page imports matplotlib"),
        ("report/page.py", "import optuna.trial", "report.page imports optuna"),
    ],
)
def test_a_fault_is_found(tmp_path: Path, file: str, text: str, fault: str):
    others = {"tasks/base.py": "", "common/all.py": ""}
    assert faults(made(tmp_path, {**SOUND, **others, file: text})) == [fault]


@pytest.mark.parametrize("text", ["from made.lm import {1}", LATE, TYPES])
def test_a_circle_inside_a_folder_is_found(tmp_path: Path, text: str):
    names = {"one": "two", "two": "three", "three": "one"}
    files = {f"lm/{name}.py": text.format("made.lm", other) for name, other in names.items()}
    (fault,) = faults(made(tmp_path, {**SOUND, **files}))
    assert fault.startswith("a circle: lm.")
    assert {part.strip() for part in fault[10:].split("<-")} == {"lm.one", "lm.two", "lm.three"}


def test_nothing_prints():
    for path in modules(PACKAGE).values():
        calls = [n for n in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(n, ast.Call)]
        assert "print" not in [getattr(call.func, "id", None) for call in calls], path
