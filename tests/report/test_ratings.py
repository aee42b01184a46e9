"""Rating sheets: blinded, safe to open, read back as they were; what raters say, by hand."""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from lightning_prompts.cli.main import main
from lightning_prompts.files.errors import PromptError
from lightning_prompts.metrics.panel.frames import KINDS
from lightning_prompts.metrics.panel.written_texts import shipped_texts
from lightning_prompts.report.rated_sheets import read_sheets
from lightning_prompts.report.rating_sheet import COLUMNS, Key, make, read_key, write
from lightning_prompts.report.ratings import SAID, Ratings, comments
from lightning_prompts.runs.record import RunRecord

TEXTS = (
    *(
        "=1+1",
        "+cmd",
        "-2 films",
        "@SUM(A1)",
        " a warm film",
        "\tgood",
        'say "so", he;\nsaid\u202e',
    ),
)
Cells = Mapping[str, Mapping[str, str]]
"""What a rater fills in: by a text, then by the column's name."""


@pytest.fixture
def seven(run: Callable[..., RunRecord], tmp_path: Path, monkeypatch) -> list[RunRecord]:
    """Runs of seven texts, one of them twice, with perplexities that fall."""
    monkeypatch.chdir(tmp_path)
    return [
        run(
            "PEZ" if i % 2 else "SoftPrompt",
            seed=i,
            text=text,
            metrics={"test/perplexity": 900.0 - 100 * i, "val/grammar": 0.1 * i},
            settings={"data": "lightning_prompts.SST2"},
        )
        for i, text in enumerate([*TEXTS, TEXTS[0]])
    ]


def rows_of(path: Path) -> list[dict[str, str]]:
    text = path.read_text(encoding="utf-8-sig")
    return list(csv.DictReader(io.StringIO(text, newline="")))


def filled(sheet: Path, key: Key, rater: str, cells: Cells, separator: str = ",") -> Path:
    """A copy of the sheet with some cells filled, saved as a spreadsheet might."""
    texts = {item.id: item.text for item in key.items}
    rows = rows_of(sheet)
    for row in rows:
        for name, value in cells.get(texts[row["id"]], {}).items():
            row[COLUMNS[name]] = value
    path = sheet.with_name(f"{rater}.csv")
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=separator)
        writer.writeheader()
        writer.writerows(rows)
    return path


def sheet_of(records: Sequence[RunRecord], controls: int = 0) -> tuple[Path, Key]:
    path, key = Path("sheet.csv"), make(records, controls)
    write(path, key)
    return path, key


def test_a_sheet_is_blind_and_no_cell_a_formula(seven):
    path, key = sheet_of(seven, controls=2)
    rows = rows_of(path)
    assert len(rows) == len(TEXTS) + 4
    assert list(rows[0]) == list(COLUMNS.values())
    whole = path.read_text(encoding="utf-8-sig")
    for told in ("PEZ", "Soft", "runs/", "0.7", "tiny", "written", "shuffled", "sst2"):
        assert told not in whole
    for row in rows:
        assert not any(cell.lstrip()[:1] in ("=", "+", "-", "@") for cell in row.values())
        assert all(cell.isprintable() for cell in row.values())
        assert set(list(row.values())[2:]) == {""}
    assert [row["id"] for row in rows] == [f"{key.name}-{i:02d}" for i in range(1, 12)]
    own = [item.text for item in key.items if item.origin == "run"]
    assert sorted(own) == sorted(TEXTS)
    assert own not in (list(TEXTS), list(TEXTS)[::-1], sorted(TEXTS))
    # As they were, spaces and control characters too.
    assert read_key(Path("sheet.key.json")) == key
    assert {item.task for item in key.items if item.origin == "run"} == {"sentiment"}
    assert make(seven[::-1], 2) == key
    assert make(seven, 1).name != key.name


def test_controls_are_written_prompts_of_all_tasks(seven):
    tasks, _ = shipped_texts()
    key = make(seven[:1], 24)
    kept = [item for item in key.items if item.origin == "written"]
    mixed = [item for item in key.items if item.origin == "shuffled"]
    assert len(kept) == len(mixed) == 24
    assert {item.task for item in kept} == {item.task for item in mixed} == set(KINDS)
    used = {item.text for item in kept}
    assert all(item.text in tasks[item.task].texts for item in kept)
    for item in mixed:
        of = [
            text
            for text in tasks[item.task].texts
            if sorted(text.split()) == sorted(item.text.split()) and text != item.text
        ]
        assert len(of) == 1
        assert of[0] not in used  # nobody sees a text and its shuffle


def test_a_sheet_is_never_written_over(seven):
    path, key = sheet_of(seven)
    with pytest.raises(PromptError, match=r"^sheet.csv is there, and may have ratings"):
        write(path, key)
    with pytest.raises(PromptError, match=r"^--rating_sheet a.txt: the sheet is a CSV"):
        write(Path("a.txt"), key)


ANNA: Cells = {
    text: {"task": task, "read": str(1 + i % 5), "use": str(min(5, 1 + i))}
    for i, (text, task) in enumerate(
        zip(TEXTS, ["Sentiment", "none", "yes no", "sentiment", "spam", "none", ""], strict=True)
    )
}
BEN: Cells = {
    **{text: {"task": "sentiment", "read": "4.0", "use": " 2 "} for text in TEXTS[1:3]},
    TEXTS[0]: {"read": "5,0", "use": "1", "comment": "=odd; it\nseems"},
    TEXTS[4]: {"task": "spam", "read": "2"},
}


def test_what_raters_say_by_hand(seven):
    path, key = sheet_of(seven, controls=1)
    paths = [filled(path, key, "anna", ANNA), filled(path, key, "ben", BEN, ";")]
    paths.append(filled(path, key, "carl", {}, "\t"))
    found = Ratings(*read_sheets(paths), seven)
    assert [sheet.rater for sheet in found.raters] == ["anna", "ben"]
    of = {prompt.item.text: prompt for prompt in found.prompts}
    first, second = of[TEXTS[0]], of[TEXTS[1]]
    assert (first.named, first.named_n, first.most_named) == (1.0, 1, "sentiment")
    assert (first.read, first.read_n, first.use, first.use_n) == (3.0, 2, 1.0, 2)
    assert first.comments == {"ben": "=odd; it\nseems"}
    assert (first.made_by, second.made_by) == ("SoftPrompt, PEZ", "PEZ")
    assert (second.named, second.named_n, second.most_named) == (0.5, 2, "none, sentiment")
    last = of[TEXTS[6]]
    assert (last.named, last.named_n, last.read_n) == (None, 0, 1)
    assert {prompt.read for prompt in found.prompts if prompt.item.origin != "run"} == {None}
    agreed = found.agreement
    assert (agreed["read"].prompts, agreed["read"].raters) == (4, 2)
    assert (agreed["use"].prompts, agreed["task named"].prompts) == (3, 3)
    # Of three prompts one says none, yes_no, spam and the other sentiment, sentiment, spam.
    assert agreed["task named"].value == pytest.approx((1 / 3 - 1 / 9) / (1 - 1 / 9))
    means = {text: fmean([float(ANNA[text]["read"]), *_read(BEN, text)]) for text in TEXTS}
    (rank,) = [c for c in found.correlations if (c.measure, c.rating) == ("perplexity", "read")]
    perplexities = {run.text: run.metrics["test/perplexity"] for run in seven}
    perplexities[TEXTS[0]] = fmean([900.0, 200.0])  # of two runs
    assert rank.n == 7
    assert rank.value == pytest.approx(_spearman(perplexities, means))
    assert {c.measure for c in found.correlations} >= {"accuracy", "perplexity", "grammar"}
    assert not [c for c in found.correlations if c.rating == "task named" and c.n < 5]
    said = " ".join(found.findings())
    assert "2 raters (anna, ben); 7 of 9 prompts have a rating." in said
    assert "Without a filled cell, and left out: carl." in said
    assert comments(found).rows == [[f'"{TEXTS[0]}"', "ben", "=odd; it\nseems"]]
    assert json.loads(json.dumps(found.numbers()))["ratings"]["ben"]


def _read(cells: Cells, text: str) -> list[float]:
    given = cells.get(text, {}).get("read")
    return [float(given.replace(",", "."))] if given else []


def _spearman(first: dict[str, float], second: dict[str, float]) -> float:
    def ranks(values: dict[str, float]) -> list[float]:
        every = [values[text] for text in TEXTS]
        return [sum(o < v for o in every) + (every.count(v) + 1) / 2 for v in every]

    a, b = ranks(first), ranks(second)
    ma, mb = fmean(a), fmean(b)
    covariance = sum((x - ma) * (y - mb) for x, y in zip(a, b, strict=True))
    return covariance / (sum((x - ma) ** 2 for x in a) * sum((y - mb) ** 2 for y in b)) ** 0.5


def test_few_prompts_have_no_correlation(seven):
    path, key = sheet_of(seven[:4])
    found = Ratings(*read_sheets([filled(path, key, "anna", ANNA)]), seven[:4])
    assert found.correlations == []
    assert found.agreement["read"] == (None, 0, 0)
    assert "No rank correlation: fewer than 5 rated prompts" in " ".join(found.findings())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {TEXTS[4]: {"read": "7"}},
            r"has '7' for 'can you read it'; give 1, 2, 3, 4 or 5, or leave",
        ),
        ({TEXTS[4]: {"use": "2.5"}}, r"has '2.5' for 'would you use it'; give 1"),
        ({TEXTS[4]: {"task": "sentimental"}}, r"'sentimental' for the task.*mean sentiment\?$"),
        ({TEXTS[4]: {"id": "{name}-99"}}, r"no text of sheet.key.json has the id '\w+-99'"),
        ({TEXTS[4]: {"id": "zzzz-01"}}, r"the id 'zzzz-01' is of another sheet than sheet.key"),
        ({TEXTS[4]: {"text": "other"}}, r"the text of \w+-\d\d is not that of sheet.key.json"),
        ({TEXTS[4]: {"comment": "fine"}}, r"^No cell of anna.csv is filled in; give sheets after"),
    ],
)
def test_what_is_no_rating_is_one_sentence(change: dict[str, Any], said: str, seven):
    path, key = sheet_of(seven)
    cells = {t: {k: v.format(name=key.name) for k, v in c.items()} for t, c in change.items()}
    with pytest.raises(PromptError, match=said):
        read_sheets([filled(path, key, "anna", cells)], Path("sheet.key.json"))


def test_sheets_that_do_not_go_together(seven):
    path, key = sheet_of(seven)
    anna = filled(path, key, "anna", ANNA)
    Path("two").mkdir()
    again = anna.rename("two/Anna.csv")
    anna = filled(path, key, "anna", ANNA)
    with pytest.raises(PromptError, match=r"^anna.csv and two/Anna.csv are both of the rater Anna"):
        read_sheets([anna, again])
    with pytest.raises(PromptError, match=r"^The key of the sheet \w{4} is not in two; name it"):
        read_sheets([again])
    other = make(seven[:2], 0)
    write(Path("other.csv"), other)
    with pytest.raises(PromptError, match=r"of another sheet than other.key.json, the key of \w+;"):
        read_sheets([anna], Path("other.key.json"))
    assert read_sheets([anna])[0] == key  # of the two keys that lie there
    with pytest.raises(PromptError, match=r"^No prompt of the sheet is one of these runs"):
        Ratings(*read_sheets([anna]), [])
    text = anna.read_text(encoding="utf-8")
    row = text.splitlines(keepends=True)[1]
    for damaged, said in (
        (text.replace("can you read it?", "read?"), "has no column 'can you read it"),
        (text + text[text.index(key.name) :], r"has \w+-\d\d twice; leave one"),
        (text[: text.index(row)], "has no row; give a copy"),
        ("", "has no column 'id'; give a copy of the sheet"),
    ):
        anna.write_text(damaged, encoding="utf-8", newline="")
        with pytest.raises(PromptError, match=said):
            read_sheets([anna])
    anna.write_bytes("é".encode("latin-1"))
    with pytest.raises(PromptError, match="not UTF-8; save it"):
        read_sheets([anna])
    with pytest.raises(PromptError, match=r"^none.csv: cannot be read \(No such file"):
        read_sheets([Path("none.csv")])
    Path("bad.key.json").write_text('{"sheet": "bcdf", "items": [{"id": 1}]}')
    with pytest.raises(PromptError, match=r"^bad.key.json: not a key as lightning-prompts report"):
        read_key(Path("bad.key.json"))


def test_from_the_command_line(seven, study, capsys):
    folder = str(study(seven))
    main(["report", folder, "--rating_sheet", "s/sheet.csv", "--controls", "8"])
    out = capsys.readouterr().out
    assert out == "Sheet: s/sheet.csv (23 texts; a copy for each rater)\n" + (
        "Key: s/sheet.key.json (not for raters)\n"
    )
    assert not Path(folder, "report").exists()
    key = read_key(Path("s/sheet.key.json"))
    paths = [filled(Path("s/sheet.csv"), key, n, c) for n, c in (("anna", ANNA), ("ben", BEN))]
    main(["report", folder, "--ratings", *map(str, paths)])
    out = capsys.readouterr().out
    for said in ("What people say of the prompts", "Agreement between raters", "2 raters (anna, b"):
        assert said in out
    page = Path(folder, "report/report.html").read_text(encoding="utf-8")
    assert "Ratings by people" in page
    assert "=odd; it\\nseems" in page
    assert "Rank correlation with each measure" in page
    numbers = json.loads(Path(folder, "report/ratings.json").read_text(encoding="utf-8"))
    assert {each["rating"] for each in numbers["rank_correlations"]} == set(SAID)
    assert len(numbers["prompts"]) == 23


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--rating_sheet", "a.csv", "--ratings", "b.csv"], "reads filled ones; give one of them."),
        (["--controls", "3"], "--controls goes with --rating_sheet; give both or none."),
        (["--rating_key", "a"], "--rating_key goes with --ratings; give both or none."),
        (["--rating_sheet", "a.csv", "--controls", "25"], "--controls 25: give a number from 1 to"),
        (["--ratings", "empty.csv"], "No cell of empty.csv is filled in; give sheets after people"),
    ],
)
def test_mistakes_end_with_status_2(args: list[str], said: str, seven, study, capsys):
    folder = str(study(seven))
    path, key = sheet_of(seven)
    filled(path, key, "empty", {})
    with pytest.raises(SystemExit) as stop:
        main(["report", folder, *args])
    assert stop.value.code == 2
    err = capsys.readouterr().err
    assert said in err
    assert "Traceback" not in err
