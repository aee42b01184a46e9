"""Predictions as JSONL, CSV or Parquet: written in parts, which are joined at the end.

A part is a window of rows and a file of its own that is there whole or not at all, named by what it
was made of. So a killed `predict` goes on with the parts that are missing, no row is lost or twice,
and what was changed in the data in between is predicted anew.
"""

import csv
import io
import json
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

from lightning_prompts.files.atomic_files import DRAFT, replace, write_json, write_lines, write_text
from lightning_prompts.files.errors import PromptError
from lightning_prompts.files.text import short_path

ENDINGS = (".jsonl", ".csv", ".parquet")
FOLDER = ".parts"  # follows the file's name
SETTINGS = "settings.json"
GROUP = 2**16  # rows of a row group in Parquet
PART = re.compile(r"(\d+)-([0-9a-f]+)-(\d+)")  # window, what it is of, rows that were cut


class Part(NamedTuple):
    """A part that is there: its file, and how many of its rows were cut to fit."""

    path: Path
    cut: int


class PredictionFile:
    """A file of predictions, and the folder of its parts.

    Args:
        path: The file; its ending is the format.
        columns: What a row has but for its name, nested names with dots: `probabilities.1`.
        named: Kinds of the rows' names (see `KINDS` of the windows); None where they have none.

    Raises:
        PromptError: If the ending is none of `ENDINGS`.
    """

    def __init__(self, path: Path, columns: Sequence[str], named: set[str] | None) -> None:
        self.path, self.folder = path, parts_folder(path)
        self.ending = ending_of(path)
        self.columns = ["row", *(["id"] if named is not None else []), *columns, "left_out"]
        self.named = named or set()

    # ---- parts

    def parts(self, digests: Sequence[str]) -> dict[int, Part]:
        """By window, the parts that are there and of the rows that it has now."""
        found: dict[int, Part] = {}
        for path in self.folder.glob(f"*{self.ending}"):
            match = PART.fullmatch(path.stem)
            index = int(match[1]) if match else len(digests)
            if match and index < len(digests) and match[2] == digests[index]:
                found[index] = Part(path, int(match[3]))
        return found

    def write(self, index: int, digest: str, cut: int, lines: Iterable[Mapping[str, Any]]) -> None:
        """Write a part, whole or not at all."""
        path = self.folder / f"{index:06d}-{digest}-{cut}{self.ending}"
        if self.ending == ".jsonl":
            write_lines(path, lines)
        elif self.ending == ".csv":
            write_text(path, self._csv(flat(line) for line in lines))
        else:
            table = self._table([flat(line) for line in lines])
            replace(path, lambda file: _write_tables(file, [table], table.schema))

    def join(self, parts: Sequence[Part]) -> None:
        """Write the file from all its parts, in their order, and remove them."""
        if self.ending == ".parquet":
            schema = self._table([]).schema
            replace(self.path, lambda file: _write_tables(file, _tables(parts), schema))
        else:
            head = self._csv([dict(zip(self.columns, self.columns, strict=True))])
            begins = head.encode() if self.ending == ".csv" else b""
            replace(self.path, lambda file: _concatenate(file, begins, parts))
        # What is left of rows that have changed since, and of killed processes, goes as well.
        for path in (*self.folder.glob(f"*{self.ending}"), *self.folder.glob(f".*{DRAFT}")):
            path.unlink(missing_ok=True)
        (self.folder / SETTINGS).unlink(missing_ok=True)

    # ---- what they were begun with

    def begin(self, settings: Mapping[str, Any], resume: bool) -> None:
        """Begin the parts, or go on with those that were made in the same way.

        Args:
            settings: All that decides what is predicted, but for the rows.
            resume: Whether to go on.

        Raises:
            PromptError: If there are parts and they are not asked for, or of other settings; or if
                the file is there and whole.
        """
        there = self.folder / SETTINGS
        place = short_path(self.folder)
        if not there.is_file():
            if self.path.exists():
                raise PromptError(
                    f"--predictions.path {self.path}: the file is there and whole; give another "
                    "name, or remove it to predict again."
                )
            write_json(there, settings)
            return
        if not resume:
            raise PromptError(
                f"--predictions.path {self.path} was begun and not finished; go on with "
                f"--predictions.resume true, or remove {place} to begin anew."
            )
        known = json.loads(there.read_text(encoding="utf-8"))
        now = json.loads(json.dumps(settings))
        other = [name for name in {**known, **now} if known.get(name) != now.get(name)]
        if other:
            raise PromptError(
                f"--predictions.path {self.path} was begun with another {' and '.join(other)}; "
                f"go on with the same, or remove {place} to begin anew."
            )

    # ---- formats

    def _csv(self, rows: Iterable[Mapping[str, Any]]) -> str:
        text = io.StringIO()
        writer = csv.DictWriter(text, self.columns, lineterminator="\n", extrasaction="ignore")
        writer.writerows(rows)
        return text.getvalue()

    def _table(self, rows: Sequence[Mapping[str, Any]]) -> Any:
        import pyarrow  # type: ignore[import-untyped]

        types = {"row": pyarrow.int64(), "id": self._type_of_ids(pyarrow)}
        schema = pyarrow.schema(
            (name, types.get(name) or (pyarrow.float32() if _is_number(name) else pyarrow.string()))
            for name in self.columns
        )
        of_text = pyarrow.types.is_string(types["id"])
        columns = {name: [row.get(name) for row in rows] for name in self.columns}
        if "id" in columns and of_text:
            columns["id"] = [None if name is None else str(name) for name in columns["id"]]
        return pyarrow.Table.from_pydict(columns, schema)

    def _type_of_ids(self, pyarrow: Any) -> Any:
        kinds = self.named - {"none"}
        if kinds in ({"int"}, {"bool"}):
            return pyarrow.int64() if kinds == {"int"} else pyarrow.bool_()
        return pyarrow.float64() if kinds == {"float"} else pyarrow.string()


def parts_folder(path: Path) -> Path:
    """Where the parts of a file lie."""
    return path.with_name(path.name + FOLDER)


def ending_of(path: Path) -> str:
    """The ending that says the format.

    Raises:
        PromptError: If it says none.
    """
    if path.suffix.lower() not in ENDINGS:
        raise PromptError(
            f"--predictions.path {path}: its ending says no format; let it end in "
            f"{', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}."
        )
    return path.suffix.lower()


def flat(record: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested mapping by dotted names.

    >>> flat({"row": 0, "probabilities": {"no": 0.25, "yes": 0.75}})
    {'row': 0, 'probabilities.no': 0.25, 'probabilities.yes': 0.75}
    """
    found: dict[str, Any] = {}
    for name, value in record.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def _is_number(column: str) -> bool:
    """Whether a column is of shares."""
    return bool(re.search(r"(^|\.)(calibrated_)?probabilities\.", column))


def _concatenate(file: IO[bytes], begins: bytes, parts: Iterable[Part]) -> None:
    file.write(begins)
    for part in parts:
        with part.path.open("rb") as content:
            shutil.copyfileobj(content, file)


def _tables(parts: Iterable[Part]) -> Iterable[Any]:
    """The rows of all parts in groups that readers are quick with."""
    import pyarrow
    import pyarrow.parquet  # type: ignore[import-untyped]

    waiting: list[Any] = []
    for part in parts:
        waiting.append(pyarrow.parquet.read_table(part.path))
        if sum(map(len, waiting)) >= GROUP:
            yield pyarrow.concat_tables(waiting)
            waiting = []
    if waiting:
        yield pyarrow.concat_tables(waiting)


def _write_tables(file: IO[bytes], tables: Iterable[Any], schema: Any) -> None:
    import pyarrow.parquet

    with pyarrow.parquet.ParquetWriter(file, schema) as writer:
        for table in tables:
            writer.write_table(table)
