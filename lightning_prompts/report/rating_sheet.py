"""A sheet on which people rate prompts without knowing what made them, and its key."""

import csv
import hashlib
import io
import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from lightning_prompts.files.atomic_files import write_json, write_text
from lightning_prompts.files.errors import PromptError, first_line
from lightning_prompts.files.public_names import MODULES, find_class
from lightning_prompts.files.text import PROGRAM, short_path
from lightning_prompts.metrics.panel.frames import KINDS
from lightning_prompts.metrics.panel.written_texts import shipped_texts
from lightning_prompts.report.text import quoted
from lightning_prompts.runs.record import RunRecord

Origin = Literal["run", "written", "shuffled"]
NONE_OF_THEM = "none"
NAMES = (*KINDS, NONE_OF_THEM)
"""What a rater may answer to the first question."""
COLUMNS = {
    "id": "id",
    "text": "text",
    "task": f"what task is this for? ({', '.join(NAMES)})",
    "read": "can you read it? 1 (not at all) to 5 (easily)",
    "use": "would you use it? 1 (never) to 5 (at once)",
    "comment": "comment",
}
"""Heads of the sheet, by what they are for."""
KEY = ".key.json"
MOST_CONTROLS = 24  # of 48 written texts one half stays as it is, the other is shuffled
# No vowels: ids are no words, and no spreadsheet takes them for a number or a date.
LETTERS = "bcdfghjklmnpqrstvwxz"
MARK = "\ufeff"  # by which spreadsheets know UTF-8


@dataclass(frozen=True)
class Item:
    """A text on the sheet.

    Attributes:
        id: On the sheet.
        text: As it is.
        origin: What it is: a run's prompt, a written one, or one with its words in disorder.
        task: Which of the described tasks it is for; None where that is not known.
    """

    id: str
    text: str
    origin: Origin
    task: str | None


@dataclass(frozen=True)
class Key:
    """What raters must not see.

    Attributes:
        name: Of the sheet: what all its ids begin with.
        items: In the order of the sheet.
    """

    name: str
    items: tuple[Item, ...]


def make(records: Sequence[RunRecord], controls: int) -> Key:
    """The texts of runs, each once, and controls among them, in random order.

    Order and ids follow from the texts alone, so that the same runs give the same sheet.

    Args:
        records: Of the runs; a soft prompt's text is that of its nearest tokens.
        controls: So many written prompts of the eight tasks in turn, and as many other ones whose
            words are shuffled; at most 24.

    Raises:
        PromptError: If no run has a text.
    """
    texts: dict[str, tuple[Origin, str | None]] = {}
    for record in records:
        if record.text.strip():
            known = texts.get(record.text, ("run", task_of(record)))
            texts[record.text] = "run", task_of(record) if known[1] == task_of(record) else None
    if not texts:
        raise PromptError("No prompt of these runs has a text to rate; give other runs.")
    for text, origin, task in _controls(controls):
        texts.setdefault(text, (origin, task))
    digest = hashlib.sha256(json.dumps(sorted(texts)).encode()).digest()
    name = "".join(LETTERS[byte % len(LETTERS)] for byte in digest[:4])
    order = sorted(texts)
    random.Random(digest).shuffle(order)
    items = (
        Item(f"{name}-{number:02d}", text, *texts[text]) for number, text in enumerate(order, 1)
    )
    return Key(name, tuple(items))


def write(path: Path, key: Key) -> Path:
    """Write the sheet, a CSV file, and the key beside it.

    Texts stand between quotes, with control characters as escapes: no spreadsheet takes one for a
    formula, and spaces at their ends are seen. The key has them as they are.

    Returns:
        The key's path.

    Raises:
        PromptError: If one of them is there, as ratings may be in it, or cannot be written.
    """
    beside = path.with_suffix(KEY)
    if path.suffix.lower() != ".csv":
        raise PromptError(f"--rating_sheet {path}: the sheet is a CSV file; give a name in .csv.")
    for each in (path, beside):
        if each.exists():
            raise PromptError(f"{each} is there, and may have ratings; give another name.")
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS.values())
    writer.writerows([item.id, quoted(item.text), "", "", "", ""] for item in key.items)
    try:
        write_json(beside, {"sheet": key.name, "items": list(map(asdict, key.items))})
        write_text(path, MARK + buffer.getvalue())
    except OSError as error:
        raise PromptError(
            f"{path}: cannot be written ({error.strerror}); give another name."
        ) from error
    return beside


def read_key(path: Path) -> Key:
    """Read a key.

    Raises:
        PromptError: If it is none.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        items = tuple(Item(**item) for item in content["items"])
        if not items or any(item.origin not in get_args(Origin) for item in items):
            raise ValueError("no items")
        return Key(content["sheet"], items)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PromptError(
            f"{path}: not a key as {PROGRAM} report --rating_sheet writes it "
            f"({first_line(error)}); give the one that was written beside the sheet."
        ) from error


def find_key(name: str, sheets: Sequence[Path]) -> Path:
    """The key of a sheet, beside one of its copies.

    Args:
        name: Of the sheet.
        sheets: Filled copies.

    Raises:
        PromptError: If it is not there.
    """
    folders = dict.fromkeys(path.parent for path in sheets)
    for candidate in (path for folder in folders for path in sorted(folder.glob(f"*{KEY}"))):
        if _name_in(candidate) == name:
            return candidate
    places = " and ".join(str(short_path(folder)) for folder in folders)
    raise PromptError(
        f"The key of the sheet {name} is not in {places}; name it with --rating_key FILE{KEY}."
    )


def task_of(record: RunRecord) -> str | None:
    """Which of the described tasks a run's is, where its configuration or its class says so."""
    given = record.settings.get("data.task_kind")
    if given is None:
        path = str(record.settings.get("data"))
        # Classes of one's own are not imported to draw a report.
        own = path.startswith("lightning_prompts.") and path.rpartition(".")[2] in MODULES
        given = getattr(find_class(path), "kind", None) if own else None
    return given if given in KINDS else None


def _controls(count: int) -> list[tuple[str, Origin, str]]:
    """Written prompts as they are, and others with their words in disorder."""
    tasks, _ = shipped_texts()
    found: list[tuple[str, Origin, str]] = []
    for number in range(count):
        turn, place = divmod(number, len(KINDS))
        # Of each task three go on behind a text and three stand before it.
        pair = [tasks[KINDS[place]].texts[i] for i in (turn, turn + 3)]
        kept, mixed = pair if (turn + place) % 2 else pair[::-1]
        found.append((kept, "written", KINDS[place]))
        found.append((_disorder(mixed), "shuffled", KINDS[place]))
    return found


def _disorder(text: str) -> str:
    """The words in another order, the same at each call."""
    words = text.split()
    dice, order = random.Random(text), list(words)
    while order == words:
        dice.shuffle(order)
    return text[: len(text) - len(text.lstrip())] + " ".join(order)


def _name_in(path: Path) -> Any:
    """The sheet that a file of JSON says it is the key of, None where it says nothing."""
    try:
        return json.loads(path.read_text(encoding="utf-8")).get("sheet")
    except (OSError, ValueError, AttributeError):
        return None
