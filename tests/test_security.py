"""Nothing that others wrote is run: not from checkpoints, models, configurations or data."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from lightning_prompts.cli.strict_yaml import load_yaml
from lightning_prompts.files.errors import PromptError
from lightning_prompts.lm.frozen import FrozenLM
from soak.security import own_code
from soak.world import World
from tests.tiny import save_model

PACKAGE = Path(__file__).resolve().parent.parent / "lightning_prompts"
# Functions that run what they read, or may; `yaml.load` takes a loader that is looked at below.
RUN = {
    *("eval", "exec", "pickle.load", "pickle.loads", "pickle.Unpickler", "numpy.load", "np.load"),
    *("yaml.unsafe_load", "yaml.full_load", "yaml.Loader", "yaml.UnsafeLoader", "yaml.FullLoader"),
    *("os.system", "joblib.load", "marshal.loads", "shelve.open", "pandas.read_pickle"),
}


def calls() -> Iterator[tuple[Path, ast.Call, str]]:
    """Every call in the package, with its dotted name."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                yield path, node, ast.unparse(node.func)


def keyword(call: ast.Call, name: str) -> str | None:
    return next((ast.unparse(k.value) for k in call.keywords if k.arg == name), None)


def test_nothing_is_unpickled_or_evaluated():
    assert not [(str(path), name) for path, _, name in calls() if name in RUN]


def test_tensors_are_read_as_tensors_alone():
    found = [call for _, call, name in calls() if name == "torch.load"]
    assert found
    assert {keyword(call, "weights_only") for call in found} == {"True"}


def test_yaml_is_read_by_a_safe_loader():
    loaders = [ast.unparse(call.args[1]) for _, call, name in calls() if name == "yaml.load"]
    assert loaders == ["_Loader"]
    with pytest.raises(Exception, match="could not determine a constructor"):
        load_yaml("!!python/object/apply:os.getcwd []")


def test_a_models_own_code_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    save_model(tmp_path / "lm", seed=0)
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    with (
        own_code(World(tmp_path), here),
        pytest.raises(PromptError, match=r"FrozenLM\(trust_remote_code=True\)"),
    ):
        FrozenLM(str(here / "lm"))
    assert not (here / "pwned").exists()
