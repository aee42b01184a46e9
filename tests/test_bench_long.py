"""The benchmark of whole commands goes on where it was stopped, and keeps others' results."""

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
TABLE = """
  prompt                       accuracy   macro-F1    loss   perplexity
 ───────────────────────────────────────────────────────────────────────
  majority                        0.500      0.333       -            -
  no prompt, calibrated           0.525      0.522   0.710            -
  written prompt (46 tokens)      1.000      0.361   0.846          113
  SoftPrompt (10 vectors)         0.717      0.405   0.784            -
    its nearest tokens            0.450          -   0.784          104
SoftPrompt, text of its nearest tokens: 'OJD47.x 0.5'
The learned vectors (0.500) do not beat the calibrated empty prompt (0.525) yet
"""


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """`python -m benchmarks.long` runs at the root of the project."""
    monkeypatch.syspath_prepend(str(ROOT))


def place(folder: Path) -> Any:
    from benchmarks.builds import Build
    from benchmarks.jobs import Place

    ours, theirs = Build(ROOT, "new"), Build(ROOT, "old")
    found = Place(ours, theirs, folder, folder, "none", lambda: folder, small=True)
    found.warm = lambda build: None
    return found


def job(way: Callable[[str, int], float], stops_at: str = "") -> Any:
    from benchmarks.jobs import Job, Measure, compared
    from benchmarks.lines import Line

    def of(side: str) -> Callable[[int], Measure]:
        def measured(repetition: int) -> Measure:
            if f"{side} {repetition}" == stops_at:
                raise KeyboardInterrupt
            return Measure({"seconds": way(side, repetition)}, {"text": side})

        return measured

    line = Line("work", "peer", 0.5, cost=True)
    ways = {side: of(side) for side in ("theirs", "ours")}
    return Job("a", ways, lambda records: iter([compared(line, records, "seconds", "texts")]))


def test_a_stopped_run_goes_on(tmp_path: Path) -> None:
    from benchmarks.long import made, measure
    from benchmarks.records import Records

    calls: list[str] = []

    def way(side: str, repetition: int) -> float:
        calls.append(f"{side} {repetition}")
        return (repetition + 1) * {"ours": 1.0, "theirs": 4.0}[side]

    path, here = tmp_path / "long.jsonl", place(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        measure(job(way, stops_at="ours 1"), here, Records(path), 3)
    assert calls == ["ours 0", "theirs 0", "theirs 1"]
    with path.open("a") as file:
        file.write('{"line": "a", "gro')  # killed while it wrote
    records = Records(path)
    measure(job(way), here, records, 3)
    assert calls == ["ours 0", "theirs 0", "theirs 1", "ours 1", "ours 2", "theirs 2"]
    assert [json.loads(line)["repetition"] for line in path.read_text().splitlines()] == [
        *(0, 0, 1, 1, 2, 2)
    ]
    (line,) = made(job(way), here, Records(path))
    assert (line.ours.median, line.theirs.median, line.ratio) == (2.0, 8.0, 0.25)
    assert line.ours.values == [1.0, 2.0, 3.0]
    assert line.met
    assert line.same == "texts"


def test_another_build_is_measured_anew_and_an_older_result_says_so(tmp_path: Path) -> None:
    from benchmarks.builds import Build
    from benchmarks.long import made, measure
    from benchmarks.records import Records

    records, here = Records(tmp_path / "a.jsonl"), place(tmp_path)
    (line,) = made(job(lambda side, n: 1.0), here, records)
    assert line.why_not == "not measured yet"
    measure(job(lambda side, n: 1.0), here, records, 1)
    here.ours = Build(ROOT, "newer")
    (line,) = made(job(lambda side, n: 1.0), here, records)
    assert line.same == "texts (ours new, theirs old)"
    measure(job(lambda side, n: 2.0), here, records, 1)
    (line,) = made(job(lambda side, n: 1.0), here, records)
    assert line.ours.values == [2.0]


def test_repetitions_that_one_side_lacks_are_left_out(tmp_path: Path) -> None:
    from benchmarks.records import Record, Records

    records = Records(tmp_path / "a.jsonl")
    for side, repetition in (("theirs", 0), ("ours", 1), ("ours", 0), ("theirs", 2)):
        records.add(Record("a", "g", side, repetition, {"seconds": 1.0}))
    found = Records(tmp_path / "a.jsonl").of("a", "g", ("theirs", "ours"))
    assert {side: [r.repetition for r in made] for side, made in found.items()} == {
        "theirs": [0],
        "ours": [0],
    }


def test_a_section_leaves_the_others(tmp_path: Path) -> None:
    from benchmarks.sections import sections, write_section

    path = tmp_path / "results.md"
    write_section(path, "growth", "## Growth\n\n| a |\n")
    write_section(path, "bench", "# Benchmarks\n")
    write_section(path, "long", "## Whole commands\n")
    write_section(path, "bench", "# Benchmarks, again\n")
    found = sections(path.read_text(encoding="utf-8"))
    assert list(found.items()) == [
        ("bench", "# Benchmarks, again"),
        ("long", "## Whole commands"),
        ("growth", "## Growth\n\n| a |"),
    ]


def test_the_results_have_marks() -> None:
    from benchmarks.sections import sections

    text = (ROOT / "benchmarks" / "results.md").read_text(encoding="utf-8")
    assert "# Benchmarks" in sections(text)["bench"]


def test_exponents() -> None:
    from benchmarks.exponents import exponent

    sizes = [16, 32, 64, 128, 256]
    assert exponent({n: 3e-4 * n**1.5 for n in sizes}) == pytest.approx(1.5)
    # What does not grow hides the exponent at the smallest size, which is left out.
    assert exponent({n: max(0.1 * n, 6.4) for n in sizes}, largest=3) == pytest.approx(1.0)


def test_the_first_number_of_the_demo() -> None:
    from benchmarks.outputs import first_number, table

    shown = [(float(i), line) for i, line in enumerate(TABLE.splitlines())]
    assert first_number(shown) == 3.0
    assert table(shown) == {
        "majority": 0.5,
        "no prompt, calibrated": 0.525,
        "written prompt": 1.0,
        "SoftPrompt": 0.717,
        "its nearest tokens": 0.45,
    }
    assert first_number([(0.1, "Study demo: 0.5"), (0.2, "no prompt: 0.61")]) == 0.2
    assert first_number([(0.1, "no prompt reads 46 tokens"), (0.2, "majority")]) is None


def test_who_does_not_arrive_counts_in_whole() -> None:
    from benchmarks.commands import arrival
    from benchmarks.processes import Ran

    ran = Ran(0.0, [], seconds=90.0)
    events = [(10.0, 20, 0.5), (20.0, 40, 0.9), (30.0, 60, 0.8)]
    assert arrival(ran, events, 0.84) == ({"seconds": 20.0}, {"said": "0.900 at step 40"})
    late = arrival(ran, events, 0.95)
    assert late.values == {"seconds": 90.0}
    assert late.found["said"].startswith("not yet (0.800 at step 60)")


def test_differences() -> None:
    from benchmarks.jobs import furthest, span

    assert furthest([([1.0, 2.0], [1.0, 2.1]), ([4.0], [4.0])]) == pytest.approx(0.05)
    assert math.isinf(furthest([([1.0], [1.0, 2.0])]))
    assert (span([0.5]), span([0.5, 0.25])) == ("0.500", "0.250 to 0.500")


def test_a_command_is_measured(tmp_path: Path) -> None:
    from benchmarks.processes import run

    code = "import os; print('majority 0.5'); print(os.environ['A'])"
    ran = run([sys.executable, "-I", "-c", code], tmp_path / "a", {"A": "b"})
    assert [line for _, line in ran.lines] == ["majority 0.5", "b"]
    assert 0 < ran.lines[0][0] < 60
    assert 0 < ran.seconds < 60
    # Of the command, not of this process, which holds torch.
    assert 2 < ran.peak_mib < 60
    with pytest.raises(SystemExit, match="ended with 3"):
        run([sys.executable, "-I", "-c", "raise SystemExit(3)"], tmp_path / "b", {})


def test_a_command_is_stopped_when_enough_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmarks import processes
    from benchmarks.processes import run

    monkeypatch.setattr(processes, "POLL_SECONDS", 0.1)
    sleeps = [sys.executable, "-I", "-c", "import time; time.sleep(600)"]
    ran = run(sleeps, tmp_path, {}, until=lambda: True)
    assert ran.seconds is None
