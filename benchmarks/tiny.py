"""A tiny model and a few rows, to try the scripts."""

import json
from pathlib import Path

from tests.tiny import BAD, GOOD, save_model


def save_tiny(folder: Path) -> Path:
    """Write `lm/` and `data/` with the three splits of SST-2, and return the folder."""
    lm, data = folder / "lm", folder / "data"
    for path in (lm, data):
        path.mkdir(parents=True)
    save_model(lm)
    rows = [
        {"text": t, "label": label}
        for pair in zip(BAD, GOOD, strict=True)
        for label, t in enumerate(pair)
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    for split in ("train", "validation", "test"):
        (data / f"{split}.jsonl").write_text(text, encoding="utf-8")
    return folder
