"""The benchmarks run, say what was not run, and end without a table where two ways differ."""

import re
from pathlib import Path

import pytest
import torch

from lightning_prompts.lm.frozen import FrozenLM

ROOT = Path(__file__).resolve().parent.parent
HEAVY_PEERS = {"soft": "peft", "projection": "sentence_transformers"}
RUN = ("soft", "memory", "loop", "pez", "projection", "reward", "validation")


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """`python -m benchmarks` runs at the root of the project."""
    monkeypatch.syspath_prepend(str(ROOT))


def run(folder: Path, *only: str) -> str:
    from benchmarks.__main__ import main
    from benchmarks.sections import sections

    args = ["--small", "--repetitions", "1", "--only", ",".join(only)]
    main([*args, "--output", str(folder / "a.md")])
    return sections((folder / "a.md").read_text(encoding="utf-8"))["bench"]


def rows(report: str) -> list[list[str]]:
    table = re.findall(r"^\| (.*) \|$", report, re.MULTILINE)
    return [re.split(r" ?\| ", line) for line in table[2:]]


def test_it_writes_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = run(tmp_path, *RUN)
    assert report in capsys.readouterr().out
    assert f"{torch.get_num_threads()} threads" in report
    lines = rows(report)
    assert {len(line) for line in lines} == {9}
    for work, _, count, theirs, ours, ratio, asked, met, same in lines:
        if ratio.startswith("not run: "):
            assert "bf16" in work or "GPU" in work or "installed" in ratio
            assert not any((count, theirs, ours, met, same))
            continue
        number, kind = re.fullmatch(r"([\d.]+) (times as fast|times the cost)", ratio).groups()
        their_s, our_s = (
            float(value.split()[0]) * (1e-3 if value.endswith(" ms") else 1)
            for value in (theirs, ours)
        )
        expected = their_s / our_s if kind == "times as fast" else our_s / their_s
        assert float(number) == pytest.approx(expected, rel=0.02, abs=0.01)
        assert same
        assert bool(asked) == bool(met)
    bars = {line[6] for line in lines}
    assert {"at least 2.7", "at least 2.4", "at least 6.5", "at most 0.6", "at most 2.2"} <= bars


def test_bars() -> None:
    from benchmarks.lines import Line, Measured

    fast, slow = Measured([1.0, 1.0, 9.0]), Measured([2.0, 2.0, 2.0])
    assert Line("", "", 2.0).result(slow, fast, "").met
    assert not Line("", "", 2.1).result(slow, fast, "").met
    assert Line("", "", 2.0, cost=True).result(fast, slow, "").met
    assert not Line("", "", 1.9, cost=True).result(fast, slow, "").met
    assert not Line("", "", 2.0).result(slow, fast, "", besides=False).met
    assert Line("", "").result(slow, fast, "").met is None


def test_ways_take_turns() -> None:
    from benchmarks.lines import alternate

    calls: list[str] = []
    ways = {name: lambda name=name: calls.append(name) for name in "ab"}
    measured = alternate(ways, 2, prepare=lambda repetition: calls.append(str(repetition)))
    assert "".join(calls) == "0ab1ba2ab"
    assert [len(m.values) for m in measured.values()] == [2, 2]


@pytest.mark.parametrize(
    ("part", "where"),
    [
        ("soft", "lightning_prompts.FrozenLM.answer_hidden"),
        ("pez", "lightning_prompts.tuners.pez.straight_through"),
        ("projection", "benchmarks.projection.nearest_tokens"),
        ("reward", "benchmarks.reward.batched"),
    ],
)
def test_it_refuses_ways_that_differ(
    part: str, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if part in HEAVY_PEERS:
        pytest.importorskip(HEAVY_PEERS[part])
    import benchmarks.__main__  # noqa: F401  (so that all that is replaced is there)

    honest = FrozenLM.answer_hidden
    wrong = {
        "soft": lambda *given: 1.001 * honest(*given),
        "pez": lambda continuous, projected: continuous,
        "projection": lambda prompt, index: index_of_zeros(len(prompt)),
        "reward": lambda way, prompts, batch: torch.zeros(len(prompts)),
    }
    monkeypatch.setattr(where, wrong[part])
    with pytest.raises(SystemExit) as stopped:
        run(tmp_path, part)
    assert re.search("they do not compute the same|find different tokens", str(stopped.value))
    assert not (tmp_path / "a.md").exists()


def index_of_zeros(count: int) -> object:
    from lightning_prompts.lm.nearest import Nearest

    return Nearest(torch.zeros(count, dtype=torch.long), torch.zeros(count))


def test_a_peer_that_is_not_installed_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import benchmarks.installed

    monkeypatch.setattr(benchmarks.installed.importlib.util, "find_spec", lambda name: None)
    lines = rows(run(tmp_path, "soft"))
    assert {line[5] for line in lines if "fp32" in line[0]} == {"not run: peft not installed"}


def test_a_partial_run_leaves_the_results(capsys: pytest.CaptureFixture[str]) -> None:
    from benchmarks.__main__ import RESULTS, main

    before = RESULTS.read_bytes()
    main(["--small", "--repetitions", "1", "--only", "memory"])
    assert RESULTS.read_bytes() == before
    assert "peak memory" in capsys.readouterr().out


def test_the_panel_s_costs_beside_a_validation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from benchmarks import panel

    monkeypatch.chdir(tmp_path)
    # A first batch, a validation, then each measure, twice where something can be remembered.
    seconds = iter([100.0, 4.0, 2.0, 0.001, 0.0, 50.0, 1.0])
    timed = panel._seconds
    monkeypatch.setattr(panel, "_seconds", lambda work: (timed(work), next(seconds))[1])
    panel.main(["--small", "--only", "grammar,repetition,simulatability", "--rows", "4"])
    out = capsys.readouterr().out
    assert (
        "A validation of 14 rows took 4 s of processor time; the costly measures are of 4 " in out
    )
    assert rows(out) == [
        ["`grammar`", "0.5", "< 0.001"],
        ["`repetition`", "< 0.001", "12"],
        ["`simulatability`", "0.25", "\N{EN DASH}"],
    ]
    with pytest.raises(SystemExit) as stop:
        panel.main(["--small", "--only", "beauty"])
    assert stop.value.code == 2
