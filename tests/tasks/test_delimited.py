"""Random tables of text come back as they were written, or are refused; never otherwise."""

import csv
import io
import random
from pathlib import Path

import pytest

from lightning_prompts.files.errors import PromptError
from lightning_prompts.tasks.files import read_file
from lightning_prompts.tasks.reading import Reading

NAMES = ["text", "label", "x;y", "n,m"]
CHARACTERS = "ab ,;|\t\"'\n\u00e9\u2028"
NEEDED = (("text",), ("label",))


def cell(draw: random.Random) -> str:
    return "".join(draw.choice(CHARACTERS) for _ in range(draw.randint(1, 9)))


@pytest.mark.parametrize("header", [True, False])
def test_a_table_is_read_as_it_was_written_or_not_at_all(tmp_path: Path, header: bool) -> None:
    draw = random.Random(0)
    path = tmp_path / "rows.csv"
    right = 0
    for _ in range(60):
        names = draw.sample(NAMES[: draw.randint(2, 4)], k=2) if header else NAMES[:2]
        names = list(dict.fromkeys([*names, *NAMES[:2]]))  # two that are needed, and others
        rows = [[cell(draw) for _ in names] for _ in range(draw.randint(2, 6))]
        text = io.StringIO(newline="")
        quoting = draw.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
        writer = csv.writer(text, delimiter=draw.choice(",;\t|"), quoting=quoting)
        writer.writerows([names, *rows] if header else rows)
        encoding = draw.choice(["utf-8", "utf-8-sig", "utf-16"])
        path.write_bytes(text.getvalue().encode(encoding))
        try:
            found = read_file(path, Reading(needed=NEEDED, columns=() if header else tuple(names)))
        except PromptError:
            continue
        right += 1
        wanted = [{n: row[names.index(n)] for n in ("text", "label")} for row in rows]
        assert found.rows == wanted, text.getvalue()
    assert right > 40
