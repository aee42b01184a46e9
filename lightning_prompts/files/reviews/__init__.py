"""The package's own short reviews, which README.md describes: data that is always there."""

import json
from pathlib import Path

FOLDER = Path(__file__).parent


def texts() -> list[str]:
    """All of them, in a fixed order."""
    lines = [
        line
        for file in sorted(FOLDER.glob("*.jsonl"))
        for line in file.read_text(encoding="utf-8").splitlines()
    ]
    return [json.loads(line)["text"] for line in lines if line]
