"""Local files of every format give the same rows, and every fault is named by its line."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from datasets import ClassLabel, Dataset, Features, Value

from lightning_prompts.files.errors import PromptError
from lightning_prompts.tasks.files import read_file, suffix

ROWS = [
    {"text": 'He said "no, thanks".', "label": "01"},
    {"text": "NA", "label": "null"},
    {"text": "Ünï\u2028code, and a comma", "label": "1.0"},
]


def write(path: Path, content: str | bytes) -> Path:
    data = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


CONTENTS = {
    "rows.jsonl": "".join(json.dumps(row) + "\n" for row in ROWS),
    "rows.ndjson": "\n\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS),
    "rows.json": "\ufeff " + json.dumps(ROWS, indent=1),
    "lines.json": "".join(json.dumps(row) + "\n" for row in ROWS),
    "rows.csv": "\ufefftext,label\r\n"
    + "".join('"{}",{}\r\n'.format(r["text"].replace('"', '""'), r["label"]) for r in ROWS),
    "rows.TSV": "text\tlabel\n" + "".join(f"{r['text']}\t{r['label']}\n" for r in ROWS),
}


@pytest.mark.parametrize("name", CONTENTS)
@pytest.mark.parametrize("ending", ["", ".gz"])
def test_formats_give_the_same_rows(tmp_path: Path, name: str, ending: str) -> None:
    rows = read_file(write(tmp_path / (name + ending), CONTENTS[name]))
    assert rows.rows == ROWS
    assert rows.columns == ("text", "label")
    assert rows.place(1) == f"{tmp_path / (name + ending)}, row 2"


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_parquet_knows_its_class_names(tmp_path: Path, ending: str) -> None:
    features = Features({"text": Value("string"), "label": ClassLabel(names=["no", "yes"])})
    rows = {"text": ["a", "b"], "label": [1, 0]}
    Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "plain")
    path = write(tmp_path / f"rows.parquet{ending}", (tmp_path / "plain").read_bytes())
    found = read_file(path)
    assert found.rows == [{"text": "a", "label": 1}, {"text": "b", "label": 0}]
    assert found.class_names == {"label": ["no", "yes"]}


def test_columns_may_mix_types(tmp_path: Path) -> None:
    path = write(tmp_path / "mixed.jsonl", '{"label": 1}\n{"label": "one"}\n{"label": true}\n')
    assert [row["label"] for row in read_file(path).rows] == [1, "one", True]


def test_csv_keeps_line_breaks_and_long_fields(tmp_path: Path) -> None:
    long = "x" * 200_000
    path = write(tmp_path / "long.csv", f'text,label\n"two\nlines",a\n{long},b\n')
    assert [row["text"] for row in read_file(path).rows] == ["two\nlines", long]


FAULTS: dict[str, tuple[str, Any, str]] = {
    "missing": ("no.csv", None, "does not exist"),
    "unknown format": ("rows.xlsx", "x", "unknown format; use one of .jsonl"),
    "empty": ("rows.jsonl", "", "has no rows"),
    "header alone": ("rows.csv", "text,label\n", "has no rows"),
    "broken JSON": ("rows.jsonl", '{"a": 1}\n\n{"a": \n', r"line 3 is not JSON \(Expecting value"),
    "JSON without columns": ("rows.jsonl", '{"a": 1}\n[1, 2]\n', r"line 2 holds \[1, 2\], not"),
    "array of texts": ("rows.json", '["a"]', 'row 1 is "a", not an object'),
    "broken array": ("rows.json", '[{"a": 1},', "is not JSON"),
    "encoding": ("rows.csv", b"text\nplain\ncaf\xe9\n", "line 3 is not UTF-8 text"),
    "encoding in gzip": ("rows.tsv.gz", b"text\ncaf\xe9\n", "line 2 is not UTF-8 text"),
    "column twice": ("rows.csv", "a,b,a\n1,2,3\n", "line 1 names the column 'a' twice"),
    "too many fields": ("rows.csv", "a,b\n1,2\n3,4,5\n", r"line 3 has 3 fields .* 2 \(a, b\)"),
    "too few fields": ("rows.tsv", "a\tb\n1\n", "line 2 has 1 fields"),
    "open quote": ("rows.csv", 'a,b\n"1,2\n3,4\n', r"line \d cannot be parsed"),
    "no gzip": ("rows.csv.gz", None, "cannot be read"),
    "no Parquet": ("rows.parquet", "text", "is not Parquet"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_named(tmp_path: Path, fault: str) -> None:
    name, content, reason = FAULTS[fault]
    path = tmp_path / name
    if content is not None:
        write(path, content)
    elif fault == "no gzip":
        path.write_text("text\nplain\n")
    with pytest.raises(PromptError, match=reason) as caught:
        read_file(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_suffix_tells_the_format() -> None:
    assert suffix(Path("a/train.JSONL.gz")) == ".jsonl"
    assert suffix(Path("a/train.json")) == ".json"
    assert suffix(Path("a/train.txt")) == ""
