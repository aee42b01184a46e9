"""Files as people export them: read as they are, or with the option that the message names."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from lightning_prompts.files.errors import PromptError
from tests.tasks.everyday import RECORDS, ROWS, Make, lines


def table(
    separator: str, header: str = "text label", end: str = "\n", space: str = "", more: str = ""
) -> str:
    lines = [separator.join(header.split()).replace(separator, separator + space)] * bool(header)
    for text, label in ROWS:
        quoted = text.replace('"', '""')
        lines.append(f'"{quoted}"{separator}{space}{label}{more}')
    return "".join(line + end for line in lines)


def tweets(label: str = "0", text: str = "café, so bad") -> bytes:
    """Sentiment140: no header, latin-1, everything quoted."""
    fields = (label, "0", "Mon Apr 06 22:19:45 PDT 2009", "NO_QUERY", "_A_", text)
    return (",".join(f'"{field}"' for field in fields) + "\n").encode("latin-1")


FILES: dict[str, tuple[str, str | bytes, dict[str, Any]]] = {
    "pandas with its index": ("a.csv", "," + table(",").replace("\n", "\n0,")[:-2], {}),
    "pandas, tabs in a .csv": ("a.csv", table("\t"), {}),
    "Excel, semicolons and a mark": ("a.csv", "\ufeff" + table(";", end="\r\n"), {}),
    "Excel, sep=;": ("a.csv", "sep=;\r\n" + table(";", end="\r\n"), {}),
    "Excel, Unicode text": ("a.csv", table("\t", end="\r\n").encode("utf-16"), {}),
    "Excel, Unicode text by its name": (
        "a.txt",
        table("\t", end="\r\n").encode("utf-16"),
        {"separator": "tab"},
    ),
    "UTF-16 without a mark": ("a.csv", table(",").encode("utf-16-be"), {}),
    "pipes": ("a.csv", table("|"), {}),
    "a caret": ("a.csv", table("^"), {"separator": "^"}),
    "old Mac line ends": ("a.csv", table(",", end="\r"), {}),
    "spaces after the commas": ("a.csv", table(",", space=" "), {}),
    "a comma too many in each row": ("a.csv", table(",", more=","), {}),
    "empty columns": (
        "a.csv",
        table(",", header="text label , ,", more=",,").replace(" ", " "),
        {},
    ),
    "a comma too few past what is read": ("a.csv", table(",", header="text label note"), {}),
    "another column twice": ("a.csv", table(",", header="text label x x", more=",1,2"), {}),
    "empty last lines": ("a.csv", table(",") + ",\n,\n\n", {}),
    "no header": ("a.csv", table(",", header=""), {"columns": "text,label"}),
    "no header, semicolons": ("a.csv", table(";", header=""), {"columns": ["text", "label"]}),
    "no header, columns by number": (
        "a.csv",
        table(",", header=""),
        {"header": False, "text_column": "column_1", "label_column": "column_2"},
    ),
    "a header that is replaced": (
        "a.csv",
        table(",", header="Frage Urteil"),
        {"header": True, "columns": "text,label"},
    ),
    "a column with a space": (
        "a.csv",
        table(",").replace("text,", "Review Text,"),
        {"template": "{prompt} {Review Text} It was"},
    ),
    "an array over many lines": ("a.json", json.dumps(RECORDS, indent=2), {}),
    "an array in a .jsonl": ("a.jsonl", json.dumps(RECORDS), {}),
    "objects over many lines": ("a.json", "\n".join(json.dumps(r, indent=2) for r in RECORDS), {}),
    "rows in a field": (
        "a.json",
        json.dumps({"version": "1.1", "data": RECORDS, "fields": [{"name": "text"}]}),
        {},
    ),
    "rows in a field over many lines": ("a.json", json.dumps({"rows": RECORDS}, indent=1), {}),
    "columns of pandas": (
        "a.json",
        json.dumps({k: {str(i): r[k] for i, r in enumerate(RECORDS)} for k in RECORDS[0]}),
        {},
    ),
    "columns as lists": (
        "a.json",
        json.dumps({k: [r[k] for r in RECORDS] for k in RECORDS[0]}),
        {},
    ),
    "nested tweets": (
        "a.jsonl",
        lines(*({"tweet": {"full_text": t}, "entities": [], "label": v} for t, v in ROWS)),
        {"template": "{prompt} {tweet.full_text} It was"},
    ),
    "a name with a dot comes first": (
        "a.jsonl",
        lines(*({"a.b": t, "a": {"b": "not this"}, "label": v} for t, v in ROWS)),
        {"text_column": "a.b"},
    ),
    "Label Studio": (
        "a.json",
        json.dumps(
            [
                {"data": {"text": t}, "annotations": [{"result": [{"value": {"choices": [v]}}]}]}
                for t, v in ROWS
            ]
        ),
        {
            "text_column": "data.text",
            "label_column": "annotations.0.result.0.value.choices",
        },
    ),
    "doccano": ("a.jsonl", lines(*({"text": t, "label": [v]} for t, v in ROWS)), {}),
    "the first of several labels": (
        "a.jsonl",
        lines(*({"text": t, "label": [v, "positive"]} for t, v in ROWS)),
        {"label_column": "label.0"},
    ),
    "a key twice where nobody reads": (
        "a.jsonl",
        lines(*RECORDS).replace('"label"', '"x": 1, "x": 2, "label"'),
        {},
    ),
    "packed by bz2": ("a.jsonl.bz2", __import__("bz2").compress(lines(*RECORDS).encode()), {}),
    "packed by xz": ("a.csv.xz", __import__("lzma").compress(table(";").encode()), {}),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_read_as_it_is_meant(task: Make, tmp_path: Path, name: str) -> None:
    file, content, options = FILES[name]
    path = tmp_path / file
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    rows = task(path, split="1,0,0", **options).read("train")
    # A file is not shuffled: rows that are read wrongly would not stand in this order.
    assert [(*row.values(), label) for row, label in zip(rows.rows, rows.labels, strict=True)] == [
        (text, int(label == "positive")) for text, label in ROWS
    ]


def test_what_was_found_out_is_said_once(
    task: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.csv"
    path.write_text(table(";"))
    with caplog.at_level("INFO"):
        data = task(path)
        data.read("train"), data.read("validation")
        task(path, separator=";").read("train")
    assert caplog.messages == [f"{path}: its columns are separated by ';'."]


def test_sentiment140_needs_the_two_options_that_the_messages_name(
    task: Make, tmp_path: Path
) -> None:
    path = tmp_path / "training.1600000.processed.noemoticon.csv"
    path.write_bytes((tweets("0") + tweets("4", "so good")) * 20)
    words = {"0": " bad", "4": " good"}
    with pytest.raises(PromptError, match=r"line 1 is not UTF-8.*encoding: cp1252 reads 'café'"):
        task(path, verbalizer=words).read("train")
    with pytest.raises(PromptError, match=r"no column 'text'.*no header.*columns"):
        task(path, verbalizer=words, encoding="latin-1").read("train")
    columns = "label,id,date,query,user,text"
    data = task(path, verbalizer=words, encoding="latin-1", columns=columns, split="1,0,0")
    rows = data.read("train")
    assert rows.rows[:2] == [{"text": "café, so bad"}, {"text": "so good"}]
    assert rows.labels == [0, 1] * 20
    assert data.slug == "training.1600000.processed.noemoticon"


def test_an_encoding_is_never_guessed(task: Make, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(table(";").replace("film", "süß").encode("cp1252"))
    with pytest.raises(PromptError) as caught:
        task(path).read("train")
    assert "line 2 is not UTF-8 text" in str(caught.value)
    assert "cp1252 reads 'süß', cp1251 reads 'sьЯ', mac_roman" in str(caught.value)
    rows = task(path, encoding="cp1252", split="1,0,0").read("train").rows
    assert rows[0] == {"text": "A warm, funny süß; really"}


AMBIGUOUS: dict[str, tuple[str | bytes, dict[str, Any], str]] = {
    # By either separator each row has two fields.
    "no header": (
        "1;gut, ja\n0;schlecht, nein\n",
        {"columns": "label,text"},
        r"columns by ',' and by ';'; say by which with separator",
    ),
    # A comma at the end of some rows may be a text's.
    "an end of some rows": ("label,text\n1,good\n0,bad,\n", {}, r"line 3 has 3 fields but .* 2"),
    "one column": ("text\ngood\n,\n", {}, r"line 3 has 2 fields but the header names 1"),
    "UTF-16 that does not begin so": (
        "текст,text\n,b\n".encode("utf-16-le"),
        {},
        r"line 1 (is not UTF-8|holds bytes of 0).*encoding",
    ),
    "a NUL": (b"text\na\0b\n", {}, r"line 2 holds bytes of 0.*encoding"),
    "an open quote": ('text,label\n"a,1\nb,0\n', {"skip_bad_rows": True}, r"cannot be parsed"),
    "two fields with rows": (
        json.dumps({"a": RECORDS, "b": RECORDS}),
        {},
        r"rows in 'a', 'b'; write those",
    ),
}


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_what_may_be_this_or_that_is_refused(task: Make, tmp_path: Path, name: str) -> None:
    content, options, says = AMBIGUOUS[name]
    path = tmp_path / ("a.json" if name == "two fields with rows" else "a.csv")
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(PromptError, match=says):
        task(None, predict=str(path), **options).read("predict")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"separator": "||"}, r"separator is '\|\|'; give the one character"),
        ({"separator": '"'}, r"separator"),
        ({"encoding": "latin1000"}, r"encoding is 'latin1000', which names no encoding"),
        ({"encoding": "base64"}, r"encoding"),
        ({"columns": "a,,b"}, r"columns is 'a', '', 'b'; give each column"),
        ({"columns": ["a", "a"]}, r"columns"),
    ],
)
def test_options_that_cannot_be(task: Make, options: dict[str, Any], says: str) -> None:
    with pytest.raises(PromptError, match=says):
        task(None, **options)


# ---- bad rows

BAD: dict[str, tuple[str, str, str]] = {
    "too many fields": (
        "b.csv",
        "not quoted, at all,positive\n",
        "3 fields in place of 2 (row 21)",
    ),
    "no text": ("b.csv", ",positive\n", "an empty 'text' (row 21)"),
    "no label": ("b.csv", "what,\n", "no label (row 21)"),
    "unknown label": ("b.csv", "what,neutral\n", "the unknown label 'neutral' (row 21)"),
    "several labels": ("b.csv", "what,positive;negative\n", "several labels (row 21)"),
    "broken JSON": ("b.jsonl", '{"text": \n', "no JSON object (row 21)"),
    "no object": ("b.jsonl", "[1]\n", "no JSON object (row 21)"),
    "no column": ("b.jsonl", '{"label": "positive"}\n', "no column 'text' (row 21)"),
    "a list": ("b.jsonl", '{"text": ["a"], "label": "positive"}\n', "no text but a list"),
    "a key twice": ("b.jsonl", '{"text": "a", "text": "b"}\n', "'text' twice (row 21)"),
    "half a character": ("b.jsonl", '{"text": "\\ud800", "label": "positive"}\n', "half a char"),
}


@pytest.mark.parametrize("fault", BAD)
def test_bad_rows_are_left_out_on_demand_alone(
    task: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    file, row, reason = BAD[fault]
    path = tmp_path / file
    good = table(",") if file.endswith(".csv") else lines(*RECORDS)
    path.write_text(good + row + (good.partition("\n")[2] if file.endswith(".csv") else good))
    with pytest.raises(PromptError, match=r"row 21|line 2[12]"):
        task(path).read("train")
    with caplog.at_level("INFO"):
        data = task(path, skip_bad_rows=True, split="1,0,0")
        data.rows("train")
    assert data.report.rows["train"] == 40
    assert data.report.left_out["train"] == 1
    (said,) = caplog.messages
    assert said.startswith(f"{path}: 1 of 41 rows left out: {reason}")
    # Rows keep the numbers that they have in the file.
    assert data.rows("train").numbers == [*range(20), *range(21, 41)]


def test_a_file_without_a_good_row_is_refused(task: Make, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text,label\na,\nb,\n")
    with pytest.raises(PromptError, match=r"row 1 has no label"):
        task(path, skip_bad_rows=True).read("train")


@pytest.mark.parametrize("label", ["positive;negative", ["positive", "negative"]])
def test_several_labels_say_what_to_do(task: Make, tmp_path: Path, label: Any) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(lines(*RECORDS, {"text": "both", "label": label}))
    with pytest.raises(PromptError, match=r"row 21 has several labels") as caught:
        task(path).read("train")
    hint = "label.0 for the first" if isinstance(label, list) else "'positive;negative' a word"
    for part in ("label_column", "a row for each", "skip_bad_rows=True", hint):
        assert part in str(caught.value)


def test_rows_to_predict_may_have_empty_texts(task: Make, tmp_path: Path) -> None:
    path = tmp_path / "new.csv"
    path.write_text("id,text\na7,good\nb8, \nc9,fine\n")
    rows = task(None, predict=str(path), id_column="id").read("predict")
    assert [row["text"] for row in rows.rows] == ["good", "fine"]
    assert rows.numbers == [0, 2]
    assert rows.left_out == {1: "an empty 'text'"}
    assert rows.ids == {0: "a7", 1: "b8", 2: "c9"}
    with pytest.raises(PromptError, match=r"row 1 has no column 'key'.*id_column"):
        task(None, predict=str(path), id_column="key").read("predict")


def test_the_identity_of_rows_does_not_depend_on_how_they_are_written(
    task: Make, tmp_path: Path
) -> None:
    (tmp_path / "a.csv").write_text(table(";"))
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines(*RECORDS).encode()))
    given = [("a.csv", {"skip_bad_rows": True}), ("a.jsonl.gz", {"id_column": "text"})]
    found = {task(tmp_path / f, **options).read("train").fingerprint for f, options in given}
    assert len(found) == 1
