"""Imports point one way, transformers stays in few files, and nothing prints."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "lightning_prompts"
FILES = sorted(PACKAGE.rglob("*.py"))

# From the top down; a module may import its own layer and those below it. What is not named here is
# the command line's, at the top: nothing below can use a new module before it has its place here.
LAYERS = (
    set(),
    {"tuners", "tasks", "callbacks", "style_classifier", "sharding", "averaging"},
    {"metrics", "rewards", "policy", "soft_q", "search"},
    {"language_model", "model_files", "model_loading", "hub", "errors", "schedule"}
    | {"template", "verbalizer", "projection", "prompt_init", "generation", "features", "style"}
    | {"prefix_reuse", "text_cache", "reuse_choice", "reuse_check", "growing_rows"}
    | {"kernels", "compiled"}
    | {"tree_attention", "dtypes", "ranges", "inert", "model_identity", "stages", "whole_files"}
    | {"process_group", "model_weights", "gguf_parts", "known_tokens", "kept_ids"}
    | {"amounts"},
)
SIBLINGS = {"tuners", "tasks", "callbacks"}  # these three never import one another
KNOW_TRANSFORMERS = {
    "language_model.py",
    "model_loading.py",  # reads the model that language_model.py freezes
    "prefix_reuse.py",  # caches of keys and values
    "text_cache.py",
    "kernels.py",  # replaces parts of the model
    "compiled.py",
    "tree_attention.py",
    "generation.py",
    "style_classifier.py",
    "schedule.py",
    "tasks/base.py",
}
MAY_PRINT = {"cli.py", "summary.py"}


def layer(part: str) -> int:
    return next((i for i, names in enumerate(LAYERS) if part in names), 0)


def imported(path: Path) -> Iterator[str]:
    """Every module that a file imports, with its names: `a.b.c` for `from a.b import c`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def part(path: Path) -> str:
    """The package's part that a file belongs to: a subpackage, or the module's own name."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path: Path):
    here = part(path)
    for name in imported(path):
        top, _, rest = name.partition(".")
        if top == "lightning_prompts" and rest:
            there = rest.partition(".")[0]
            assert layer(here) <= layer(there), f"{here} imports {name}"
            if here in SIBLINGS and there in SIBLINGS - {here}:
                for_its_type = here == "callbacks" and rest.startswith("tuners.base")
                assert for_its_type, f"{here} imports {name}"
        if top in ("lightning", "pytorch_lightning"):
            assert layer(here) < 2, f"{here} imports Lightning"
        if top == "transformers":
            assert str(path.relative_to(PACKAGE)) in KNOW_TRANSFORMERS


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_prints(path: Path):
    calls = [
        node.lineno
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and getattr(node.func, "id", None) == "print"
    ]
    assert not calls or str(path.relative_to(PACKAGE)) in MAY_PRINT


def test_the_rules_see_the_package():
    """The walk finds files of every layer, so that the tests above cannot pass on nothing."""
    assert {layer(part(path)) for path in FILES} == {0, 1, 2, 3}
