"""The file of results: a section of each command, and none loses another's."""

import re
from pathlib import Path

NAMES = ("bench", "long", "growth")  # in the order of the file
SECTION = re.compile(r"<!-- (\w+) -->\n(.*?)\n<!-- /\1 -->", re.DOTALL)


def sections(text: str) -> dict[str, str]:
    """What stands between the marks, by name."""
    return {match[1]: match[2] for match in SECTION.finditer(text)}


def write_section(path: Path, name: str, text: str) -> None:
    """Replace a section, or add it; the others stay as they are.

    Args:
        path: The file, which need not be there.
        name: One of `NAMES`.
        text: The new section, without marks.
    """
    found = sections(path.read_text(encoding="utf-8")) if path.is_file() else {}
    found[name] = text.strip()
    parts = [f"<!-- {key} -->\n{found[key]}\n<!-- /{key} -->" for key in NAMES if key in found]
    path.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
