"""The benchmark's ways compute the same rewards; `make bench` times them on a real model's size."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
import torch

SCRIPT = Path(__file__).resolve().parent.parent / "benchmarks" / "rlprompt_reward.py"


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("rlprompt_reward", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(benchmark: ModuleType, folder: Path) -> str:
    with torch.random.fork_rng():
        benchmark.main(["--small", "--repetitions", "2", "--output", str(folder / "a.md")])
    return (folder / "a.md").read_text(encoding="utf-8")


def test_it_writes_a_table(benchmark: ModuleType, tmp_path: Path, capsys):
    report = run(benchmark, tmp_path)
    assert report in capsys.readouterr().out
    rows = re.findall(r"^\| ([a-z].*) \| ([\d.]+) \(.*\) \| ([\d.]+) \|$", report, re.MULTILINE)
    assert len(rows) == 3
    assert rows[0][0].startswith("published")
    assert rows[0][2] == "1.0"
    apart, spread = re.search(r"at most (\S+), where .* prompts is (\S+)\.$", report, re.M).groups()
    assert float(apart) < 1e-4 < float(spread)


def test_it_refuses_ways_that_differ(benchmark: ModuleType, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(benchmark, "batched", lambda reward, prompts, batch: torch.zeros(16))
    with pytest.raises(SystemExit, match="rewards differ by"):
        run(benchmark, tmp_path)
    assert not (tmp_path / "a.md").exists()
