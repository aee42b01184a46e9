"""Rows of reviews as people have them in files, for the tests that read such files."""

import json
from collections.abc import Callable
from typing import Any

from lightning_prompts.tasks import TextClassification

ROWS = [("A warm, funny film; really", "positive"), ('Dull "art" | too long', "negative")] * 10
TEXTS = {text for text, _ in ROWS}
WORDS = {"negative": " bad", "positive": " good"}
RECORDS = [{"text": text, "label": label} for text, label in ROWS]
Make = Callable[..., TextClassification]


def lines(*rows: Any) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)
