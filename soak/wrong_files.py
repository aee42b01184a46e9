"""Mistakes in data files, in the verbalizer and in the template."""

import gzip
import json
from collections.abc import Iterator, Mapping

from soak.case import Case
from soak.world import POSITIONS, fit, review_lines

GOOD = review_lines(8)
HEADER = "text,label\n"
TABLE = HEADER + "".join(f"{text} film.,{label}\n" for text, label in (
    ("A good", "positive"), ("A dull", "negative"), ("A kind", "positive"), ("A slow", "negative"),
))  # fmt: skip
ROW = {"text": "A warm and funny film.", "label": "positive"}


def cases() -> Iterator[Case]:
    """All of them."""
    yield from _single_files()
    yield from _folders()
    yield from _splits()
    yield from _words()
    yield from _templates()


def data(
    name: str, files: Mapping[str, str | bytes], *options: str, path: str = "<here>/own",
    says: tuple[str, ...] = (), status: int = 2,
) -> Case:  # fmt: skip
    """A fit with data of its own."""
    inside = {f"own/{key}": value for key, value in files.items()}
    args = fit("--data.path", path, *options)
    return Case("data", name, args, says, inside, status=status)


def train(name: str, content: str | bytes, *options: str, says: tuple[str, ...] = (),
          file: str = "train.jsonl", status: int = 2) -> Case:  # fmt: skip
    """A training file with something wrong, beside a good validation file."""
    given = {file: content, "validation.jsonl": GOOD}
    return data(name, given, *options, says=says, status=status)


def lines(*rows: object) -> str:
    """Rows as JSONL after some good ones."""
    return GOOD + "".join(json.dumps(row) + "\n" for row in rows)


def _single_files() -> Iterator[Case]:
    yield train("empty file", "", says=("train.jsonl", "no rows"))
    yield train("blank lines alone", "\n \n\n", says=("no rows",))
    yield train("a header alone", HEADER, file="train.csv", says=("no rows",))
    latin = TABLE.replace("film", "café").encode("latin-1")
    yield train("latin-1", latin, file="train.csv", says=("UTF-8", "line 2"))
    yield train("an unknown encoding", latin, "--data.encoding=latin1000", file="train.csv",
                says=("--data.encoding",))  # fmt: skip
    yield train("another encoding", latin, "--data.encoding=utf-16", file="train.csv",
                says=("--data.encoding",))  # fmt: skip
    yield train("UTF-16", TABLE.encode("utf-16"), file="train.csv", status=0)
    yield train("semicolons", TABLE.replace(",", ";"), file="train.csv", status=0)
    yield train("a separator of two characters", TABLE, "--data.separator=::", file="train.csv",
                says=("--data.separator",))  # fmt: skip
    yield train("no header", TABLE.partition("\n")[2], file="train.csv", says=("--data.columns",))
    yield train("fewer columns than there are", TABLE, "--data.columns=text", file="train.csv",
                says=("--data.columns",))  # fmt: skip
    yield train("a column twice in the options", TABLE, "--data.columns=text,text",
                file="train.csv", says=("--data.columns",))  # fmt: skip
    yield train("a byte order mark", "\ufeff" + TABLE, file="train.csv", status=0)
    yield train("Windows line ends", TABLE.replace("\n", "\r\n"), file="train.csv", status=0)
    yield train("broken JSON", GOOD + '{"text": "x", \n', says=("line 9", "JSON"))
    yield train("JSON that is no object", GOOD + "[1, 2]\n", says=("line 9", "object"))
    yield train("JSON with NaN for a text", lines({"text": float("nan"), "label": "positive"}))
    yield train("a JSON array in a .jsonl", json.dumps([ROW]), says=("negative",))
    yield train("JSON of great depth", GOOD + "[" * 100_000 + "\n", says=("line 9",))
    yield train("a number of many digits", GOOD + '{"text": ' + "9" * 5000 + "}\n")
    yield train("a key twice", GOOD + '{"text": "a", "text": "b", "label": "positive"}\n')
    yield train("a missing column", lines({"label": "positive"}), says=("row 9", "text"))
    yield train("no label column", lines({"text": "x"}), says=("row 9", "label"))
    yield train("a list for a text", lines({"text": ["a", "b"], "label": "positive"}))
    yield train("an object for a text", lines({"text": {"a": 1}, "label": "positive"}))
    yield train("null for a text", lines({"text": None, "label": "positive"}), says=("row 9",))
    yield train("a number for a text", lines({"text": 12.5, "label": "positive"}), status=0)
    yield train("a list of one label", lines({"text": "a", "label": ["positive"]}), status=0)
    yield train("a list of labels", lines({"text": "a", "label": ["positive", "negative"]}),
                says=("several labels", "--data.label_column"))  # fmt: skip
    yield train("labels in one text", lines({"text": "a", "label": "positive; negative"}),
                says=("several labels", "--data.label_column"))  # fmt: skip
    yield train("no good row", json.dumps({"text": "", "label": "positive"}) + "\n",
                "--data.skip_bad_rows=true", says=("row 1", "empty"))  # fmt: skip
    yield train("an empty text", lines({"text": "", "label": "positive"}), says=("empty", "row 9"))
    yield train("a text of spaces", lines({"text": "  \n", "label": "positive"}), says=("empty",))
    yield train("a text with NULs", lines({"text": "a\0b", "label": "positive"}), status=0)
    yield train("a lone surrogate", GOOD + '{"text": "a\\ud800b", "label": "positive"}\n')
    yield train("an unknown label", lines({"text": "x", "label": "mixed"}), says=("row 9", "mixed"))
    yield train("a label in capitals", lines({"text": "x", "label": "Positive"}), says=("row 9",))
    yield train("labels given as numbers", lines({"text": "x", "label": 1}), says=("row 9",))
    one = "".join(json.dumps(ROW) + "\n" for _ in range(4))
    yield train("one class alone", one, says=("negative",))
    yield train("two columns of one name", "text,text,label\na,b,positive\n", file="train.csv",
                says=("text", "twice"))  # fmt: skip
    yield train("too many fields", TABLE + "a,b,positive\n", file="train.csv", says=("line 6",))
    yield train("an open quote", TABLE + '"a,positive\n', file="train.csv", says=("line",))
    yield train("a CSV named .tsv", TABLE, file="train.tsv", status=0)
    yield train("a header without names", ",\nA good film,positive\n", file="train.csv")
    yield train("a gzip that is none", GOOD, file="train.jsonl.gz", says=("train.jsonl.gz",))
    cut = gzip.compress(GOOD.encode())[:-12]
    yield train("a gzip cut short", cut, file="train.jsonl.gz", says=("train.jsonl.gz",))
    yield train("a Parquet cut short", parquet()[:-40], file="train.parquet", says=("Parquet",))
    yield train("text named .parquet", GOOD, file="train.parquet", says=("Parquet",))
    yield train("an unknown format", GOOD, file="train.xlsx", says=("train",))
    long = {"text": "a very long text " * 400, "label": "positive"}
    yield train("a text longer than the model", lines(long), status=0)


def _folders() -> Iterator[Case]:
    yield data("no such folder", {}, says=("no such",))
    yield data("an empty folder", {"x/.keep": ""}, path="<here>/own/x", says=("train",))
    yield data("a folder without train", {"validation.jsonl": GOOD}, says=("train",))
    yield data(
        "two train files",
        {"train.csv": TABLE, "train.jsonl": GOOD, "validation.jsonl": GOOD},
        says=("train.csv", "train.jsonl"),
    )
    yield data("a shard that is missing", {"train-00001-of-00002.jsonl": GOOD},
               says=("train-00000-of-00002",))  # fmt: skip
    yield data("a pattern that nothing is called by", {}, "--data.train=part-*.jsonl",
               path="<data>", says=("part-*.jsonl",))  # fmt: skip
    yield data("a pattern that takes in the validation", {}, "--data.train=*.jsonl",
               path="<data>", says=("validation.jsonl",))  # fmt: skip
    pointer = "version https://git-lfs.github.com/spec/v1\n"
    yield data("a pointer of Git LFS", {"train.parquet": pointer}, says=("git lfs pull",))
    yield data("train is a folder", {"train.jsonl/x": GOOD, "validation.jsonl": GOOD})
    yield data("an empty path", {}, "--data.path=", says=("--data.path",))
    yield data("a hub set, without a hub", {}, path="owner/reviews", says=("hub",))
    yield data("a named file that is not there", {}, "--data.train", "no.csv", path="<data>",
               says=("no.csv",))  # fmt: skip
    yield data("no validation rows", {"train.jsonl": GOOD}, status=0)
    yield data("one row", {"train.jsonl": json.dumps(ROW) + "\n"})


def _splits() -> Iterator[Case]:
    yield data("more validation rows than there are", {}, "--data.validation_rows=1000",
               path="<data>", status=0)  # fmt: skip
    yield data("more training rows than there are", {}, "--data.train_rows=1000",
               path="<data>", status=0)  # fmt: skip
    yield data("too few rows for the classes", {}, "--data.train_rows=1", path="<data>",
               says=("label",))  # fmt: skip
    yield data("shares that leave no validation", {"all.jsonl": GOOD}, "--data.split=1,0,0",
               path="<here>/own/all.jsonl", says=("validation",))  # fmt: skip
    yield data("shares that are no numbers", {}, "--data.split=most,some,few", path="<data>",
               says=("split",))  # fmt: skip
    yield data("a column to cut that is none", {}, "--data.truncate=title", path="<data>",
               says=("title", "text"))  # fmt: skip
    yield data("a text column that is none", {}, "--data.text_column=body", path="<data>",
               says=("body",))  # fmt: skip
    yield data("a label column that is none", {}, "--data.label_column=stars", path="<data>",
               says=("stars",))  # fmt: skip
    validation = lines({"text": "x", "label": "mixed"})
    yield data("an unknown label in validation",
               {"train.jsonl": GOOD, "validation.jsonl": validation},
               says=("validation.jsonl", "mixed"))  # fmt: skip


def _words() -> Iterator[Case]:
    given: dict[str, tuple[str, tuple[str, ...]]] = {
        "an answer that begins another": ("{positive: ' bad no', negative: ' bad'}", ("never",)),
        "no answer in a list": ("{positive: [], negative: ' bad'}", ("empty list",)),
        "one word for two labels": ("{positive: ' good', negative: ' good'}", ("same token",)),
        "a missing label": ("{positive: ' good'}", ("label",)),
        "a label that the data has not": (
            "{positive: ' good', negative: ' bad', mixed: ' great'}",
            ("mixed",),
        ),
        "other labels than the data's": ("{yes: ' good', 'no': ' bad'}", ()),
        "labels that YAML reads as truth values": ("{yes: ' good', no: ' bad'}", ("quotes",)),
        "an empty word": ("{positive: ' good', negative: ''}", ("empty",)),
        "no words": ("{}", ("label",)),
        "no mapping": ("[' good', ' bad']", ("verbalizer",)),
        "a number for a word": ("{positive: 1, negative: 0}", ("verbalizer",)),
        "null for a word": ("{positive: ' good', negative: null}", ("verbalizer",)),
        "a label twice": ("{positive: ' good', positive: ' bad', negative: ' bad'}", ()),
        "a special token": ("{positive: ' good', negative: '<|endoftext|>'}", ()),
    }
    for name, (words, says) in given.items():
        yield Case("verbalizer", name, fit("--data.verbalizer", words), says)


def _templates() -> Iterator[Case]:
    given: dict[str, tuple[str, tuple[str, ...]]] = {
        "no {prompt}": ("{text} It was", ("{prompt}",)),
        "two {prompt}": ("{prompt} {text} {prompt}", ("{prompt}",)),
        "no column": ("{prompt} It was", ("column",)),
        "an unknown column": ("{prompt} {title} It was", ("title",)),
        "white space before {prompt}": ("{text} {prompt}", ("white space",)),
        "an open brace": ("{prompt} {text It was", ("{prompt} {text It was",)),
        "a number for a column": ("{prompt} {0}", ("{prompt} {0}",)),
        "an empty column": ("{prompt} {}", ("{}",)),
        "an attribute of a column": ("{prompt} {text.__class__}", ()),
        "an item of a column": ("{prompt} {text[0]}", ()),
        "a format of a column": ("{prompt} {text:>1000000000}", ()),
        "empty": ("", ()),
        "longer than the model": ("{prompt} {text} " + "It was " * (POSITIONS // 4), ()),
    }
    for name, (template, says) in given.items():
        yield Case("template", name, fit(f"--data.template={template}"), says)
    yield Case("template", "null", fit("--data.template=null"), ("template",))


def parquet() -> bytes:
    """A few good rows."""
    import io

    import pyarrow
    import pyarrow.parquet

    file = io.BytesIO()
    rows = [json.loads(line) for line in GOOD.splitlines()]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    return file.getvalue()
