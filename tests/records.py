"""Records of runs that nothing trained, with what a test chooses."""

from typing import Any

from lightning_prompts.runs.record import RunRecord
from lightning_prompts.tuners.record import LMRecord


def make_record(**chosen: Any) -> RunRecord:
    """Two tokens of a soft prompt; `chosen` replaces fields."""
    fields: dict[str, Any] = {
        "tuner": "SoftPrompt",
        "lm": LMRecord("tiny"),
        "template": "{prompt} {text}",
        "verbalizer": {"bad": " bad", "good": " good"},
        "text": " a movie",
        "ids": [1, 2],
        "averaged_by": None,
        "step": 20,
        "metrics": {},
        "tokens": [" a", " movie"],
        "token_distances": None,
        "in_use": "tokens",
        "task": "sst2",
        "perplexity_weight": 0.0,
        "seed": 0,
    }
    return RunRecord(**{**fields, **chosen})
