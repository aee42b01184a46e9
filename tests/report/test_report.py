"""`lightning-prompts report` on studies and runs: what it writes, what it refuses."""

import base64
import csv
import io
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from lightning_prompts.cli.main import main
from lightning_prompts.report.comparison import compare
from lightning_prompts.report.figures.faithfulness import faithfulness
from lightning_prompts.report.figures.looks import Drawn
from lightning_prompts.report.figures.training import training
from lightning_prompts.report.load import Material
from lightning_prompts.report.writing import write_report

HOSTILE = '=1+1|$x$ <script>alert("1")</script>\n\x1b[31m\u202e`*_'


class Page(HTMLParser):
    """Which elements and attributes a page has, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in ("img", "meta"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def page_of(folder: Path) -> Page:
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def test_a_study_becomes_a_page_with_figures_and_tables(study, runs, capsys):
    folder = study(runs, errors=["The loss is not a number."], running=1)
    main(["report", str(folder)])
    written = folder / "report"
    assert capsys.readouterr().out == f"Report: {written}/report.html\n"
    page = page_of(written)
    assert page.open == []
    names = {"pareto", "faithfulness", "training", "equal_compute", "budgets", "outcomes"}
    assert {attrs["id"] for tag, attrs in page.elements if tag == "figure"} == names
    for name in names | {"prompts"}:  # on the page the prompts are text
        assert (written / "figures" / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
        ET.fromstring((written / "figures" / f"{name}.svg").read_bytes())
    for said in ("What it asks.", "n = 3 seeds", "calibrated", "The loss is not a number."):
        assert said in page.text
    assert "also score it" not in page.text  # there are test scores
    table = (written / "results.md").read_text(encoding="utf-8")
    assert (
        "| ● SoftPrompt | 3 | 0.920 \\[0.870, 0.970\\] | 0.920 | 0.500 | 0.910 | 1,000 |" in table
    )
    rows = list(csv.DictReader(io.StringIO((written / "results.csv").read_text(encoding="utf-8"))))
    assert [row["outcome"] for row in rows].count("finished") == len(runs)
    assert {row["outcome"] for row in rows} == {"finished", "failed", "not finished"}
    assert float(rows[0]["test/accuracy"]) == 0.8


def test_a_page_of_prompts_that_nothing_learned(run, tmp_path: Path, monkeypatch):
    """By the names that they were given, without seeds and without what learning costs."""
    monkeypatch.chdir(tmp_path)
    given = {"logs/a/version_0": "adapter", "logs/b/version_0": "' So, is it?'"}
    made = [
        run(tuner, name=path, accuracy=accuracy, settings={"model.path": path})
        for tuner, path, accuracy in zip(
            ("ImportedPrompt", "ManualPrompt"), given, (0.9, 0.6), strict=True
        )
    ]
    material = Material(records=made)
    monkeypatch.setattr("lightning_prompts.report.writing.load", lambda paths: material)
    write_report([*given], Path("named"), names=given)
    page = page_of(Path("named"))
    for name in given.values():
        assert name in page.text
    assert "ImportedPrompt" not in page.text
    assert "ManualPrompt" not in page.text
    figures = {attrs["id"] for tag, attrs in page.elements if tag == "figure"}
    assert "budgets" not in figures
    assert "pareto" in figures
    assert "Budgets" not in page.text
    assert "seed 0" not in page.text
    assert "what another seed would give" not in page.text
    table = (Path("named") / "results.md").read_text(encoding="utf-8")
    assert "| setting | test accuracy |" in table
    assert "| majority | 0.510 |" in table


def test_a_setting_stays_on_its_line(study, run):
    pair = [run("PEZ", weight, seed=seed) for weight in (0.0, 5.0) for seed in (0, 1)]
    main(["report", str(study(pair))])
    page = Path("logs/studies/own/report/report.html").read_text(encoding="utf-8")
    assert ", <span class=setting>w = 5</span></td>" in page
    assert ".setting { white-space: nowrap" in page


def test_a_study_s_variants_have_their_names(study, run):
    two = [
        run("GuidedSearch", settings={"model.beam": i}, variant=v) for i, v in enumerate(["a", "b"])
    ]
    main(["report", str(study(two))])
    table = Path("logs/studies/own/report/results.md").read_text(encoding="utf-8")
    assert "GuidedSearch (a) |" in table
    assert "GuidedSearch (b) |" in table


def test_a_study_that_was_moved_away_is_not_taken_for_the_next_one(study, run, capsys):
    old = study([run(seed=seed, name=f"trials/{seed}") for seed in (0, 1)], name="old")
    new = study([run(seed=seed, name=f"trials/{seed}", accuracy=0.9) for seed in (1, 2)])
    main(["report", str(old), str(new), "--output", "both"])
    rows = list(csv.DictReader(io.StringIO(Path("both/results.csv").read_text(encoding="utf-8"))))
    # Seed 1 is in both, with the same settings: one of them stands apart.
    assert sorted(row["seed"] for row in rows) == ["0", "1", "1", "2"]
    assert "the settings and the seed of another one" in page_of(Path("both")).text
    main(["report", str(old), str(old / "."), "--output", "twice"])
    assert len(Path("twice/results.csv").read_text(encoding="utf-8").splitlines()) == 3


def test_untested_runs_are_scored_on_their_validation_rows(study, runs):
    for run in runs:
        run.metrics = {k: v for k, v in run.metrics.items() if k.startswith("val/")}
        run.test_baselines, run.rows, run.correct = {}, {"validation": 50}, None
    folder = study(runs)
    main(["report", str(folder)])
    table = (folder / "report" / "results.md").read_text(encoding="utf-8")
    heads = "| setting | seeds | validation accuracy | its nearest tokens | its text, pasted |"
    assert heads in table
    assert "| ● SoftPrompt | 3 | 0.920 \\[0.870, 0.970\\] | 0.500 | 0.910 |" in table
    assert "| majority |  | 0.510 |  |" in table
    assert "also score it" in page_of(folder / "report").text


def test_the_page_needs_nothing_else(study, runs):
    folder = study(runs)
    main(["report", str(folder)])
    page = page_of(folder / "report")
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.elements}
    for tag, attrs in page.elements:
        for name in ("src", "href", "srcset", "style"):
            value = attrs.get(name) or ""
            assert not re.search(r"https?:|//|url\(|file:", value.partition(",")[0]), (tag, value)
        assert not [name for name in attrs if name.startswith("on")]
        if tag == "img":
            assert attrs["alt"]
            ET.fromstring(base64.b64decode(attrs["src"].partition("base64,")[2]))


def test_the_same_study_is_the_same_report(study, runs):
    for name, records in (("one", runs), ("two", runs[::-1])):
        folder = study(records, name=name)
        main(["report", str(folder)])
    one, two = (Path("logs/studies") / name / "report" for name in ("one", "two"))
    for path in sorted(p.relative_to(one) for p in one.rglob("*.*")):
        first, second = ((folder / path).read_bytes() for folder in (one, two))
        assert first.replace(b"one", b"two") == second.replace(b"one", b"two"), path


def test_texts_are_data(study, run):
    hostile = {
        "text": HOSTILE,
        "tokens": [HOSTILE, "</b>"],
        "name": HOSTILE,
        "task": HOSTILE,
        "lm": HOSTILE,
        "settings": {"model.text": HOSTILE},
    }
    other = {**hostile, "settings": {"model.text": "@" + HOSTILE}, "name": "+b"}
    folder = study([run("A$b$", **hostile), run("A$b$", **other)], errors=[HOSTILE])
    main(["report", str(folder)])
    written = folder / "report"
    page = page_of(written)
    assert page.open == []
    assert "script" not in {tag for tag, _ in page.elements}
    assert '<script>alert("1")</script>' in page.text
    table = (written / "results.md").read_text(encoding="utf-8")
    assert "<script>" not in table.replace("\\<script\\>", "")
    heads = [line for line in table.splitlines() if line.startswith("| setting")]
    rows = [line for line in table.splitlines() if line.startswith(("| A", "| ● A"))]
    pipes = re.compile(r"(?<!\\)\|")
    assert {len(pipes.findall(line)) for line in heads + rows[:2]} == {len(pipes.findall(heads[0]))}
    content = (written / "results.csv").read_text(encoding="utf-8")
    for text in (page.text, table, content):
        assert "\x1b" not in text
        assert "\u202e" not in text
    for row in csv.reader(io.StringIO(content)):
        for value in row:
            number = re.fullmatch(r"-?[\d.e+-]+", value)
            assert number or not value.lstrip().startswith(("=", "+", "-", "@")), value


def test_runs_from_their_folders(lm_folder, review_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    options = [
        *("--config", "configs/task/demo.yaml", "--lm.name", str(lm_folder)),
        *("--data.path", str(review_folder), "--trainer.precision", "32-true"),
        *("--trainer.max_steps", "4", "--trainer.val_check_interval", "2"),
        *("--trainer.enable_progress_bar", "false"),
    ]
    for tuner in ("soft", "pez"):
        main(["fit", "--config", f"configs/tuner/{tuner}.yaml", *options])
    capsys.readouterr()
    main(["report", "logs", "logs/soft-demo/version_0", "--output", "out"])
    assert capsys.readouterr().out == "Report: out/report.html\n"
    page = page_of(Path("out"))
    assert "2 runs of 2 settings" in page.text
    assert "the validation rows that chose each prompt also score it" in page.text

    main(["test", "--config", "logs/soft-demo/version_0/config.yaml", "--ckpt_path", "best"])
    capsys.readouterr()
    main(["report", "logs/soft-demo/version_0"])
    page = page_of(Path("logs/soft-demo/version_0/report"))
    assert "also score it" not in page.text
    assert "scored on 8 test rows" in page.text
    main(["report", "logs"])  # a report inside a run is no run
    assert "2 runs of 2 settings" in page_of(Path("logs/report")).text


def refused(capsys, *args: str) -> str:
    with pytest.raises(SystemExit) as stop:
        main(["report", *args])
    assert stop.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    return said.err


def test_what_cannot_be_reported(study, runs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert "Say what to report" in refused(capsys)
    assert "nowhere: no such file or folder" in refused(capsys, "nowhere")
    assert "did you mean --output?" in refused(capsys, "nowhere", "--ouput", "x")
    Path("empty").mkdir()
    assert "empty: no study and no run is in it" in refused(capsys, "empty")
    Path("begun").mkdir()
    Path("begun/config.yaml").touch()
    assert "begun has not validated a prompt yet" in refused(capsys, "begun")
    assert "no such database" in refused(capsys, "sqlite:///nowhere.db")
    assert not Path("nowhere.db").exists()

    nothing = study([], name="nothing")
    assert "the study nothing has no runs" in refused(capsys, str(nothing))
    failed = study([], errors=["Out of luck."], running=2, name="failed")
    said = refused(capsys, str(failed))
    assert "none of the 3 runs is finished (1 failed, 2 not finished)" in said
    assert "Out of luck." in said


def test_a_damaged_study(study, runs, capsys):
    folder = study(runs)
    journal = folder / "journal.log"
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join([*lines[:-1], lines[-1][: len(lines[-1]) // 2]]))
    main(["report", str(folder)])  # a killed worker leaves half a line
    assert "11 runs" in page_of(folder / "report").text
    capsys.readouterr()
    journal.write_text("".join([*lines[:3], "no json\n", *lines[3:]]))
    assert "journal.log: not a whole journal" in refused(capsys, str(folder))
    journal.unlink()
    assert "the study has not run anything yet" in refused(capsys, str(folder))
    (folder / "study.yaml").write_text("study: [")
    assert "study.yaml: not as `study` writes it" in refused(capsys, str(folder))


def test_a_folder_that_cannot_be_written(study, runs, capsys):
    folder = study(runs)
    Path("file").touch()
    assert "give another folder with --output" in refused(capsys, str(folder), "--output", "file")


@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize("draw", [faithfulness, training])
def test_equal_numbers_have_room_on_an_axis(run, draw: Callable[..., Drawn | None]):
    equal = {f"test/{name}": 0.6 for name in ("hard_accuracy", "round_trip_accuracy")}
    made = [run("SoftPrompt", seed=seed, accuracy=0.6, metrics=equal) for seed in (0, 1)]
    for each in made:
        each.baselines = each.test_baselines = {"majority": {"accuracy": 0.6}}
    (comparison,), _ = compare(made)
    assert draw(comparison, "equal") is not None
