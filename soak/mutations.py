"""Random mistakes: configurations and data files that were good before, drawn by hypothesis."""

import copy
import gzip
import json
from collections.abc import Iterator, Mapping
from typing import Any

from hypothesis import strategies as st

from soak.case import Case
from soak.world import review_lines

Keys = tuple[str, ...]
CONFIG: dict[str, Any] = {
    "seed_everything": 0,
    "experiment": "x",
    "lm": {"name": "<lm>", "dtype": "float32", "add_bos": "auto", "text_cache": 1.0},
    "model": {
        "class_path": "lightning_prompts.SoftPrompt",
        "init_args": {
            "prompt_length": 3,
            "perplexity_weight": 0.5,
            "projection": "cosine",
            "exclude_special": True,
            "init": {
                "class_path": "lightning_prompts.FromVocabulary",
                "init_args": {"top": 50},
            },
            "optimizer": {
                "class_path": "torch.optim.AdamW",
                "init_args": {"lr": 0.01, "weight_decay": 0.0},
            },
            "lr_scheduler": {
                "class_path": "lightning_prompts.WarmupLinear",
                "init_args": {"warmup_steps": 1, "total_steps": 2, "final_fraction": 0.1},
            },
        },
    },
    "data": {
        "class_path": "lightning_prompts.TextClassification",
        "init_args": {
            "path": "<data>",
            "name": "reviews",
            "template": "{prompt} {text} It was",
            "verbalizer": {"negative": " terrible", "positive": " great"},
            "text_column": "text",
            "label_column": "label",
            "max_tokens": 60,
            "batch_size": 8,
            "val_batch_size": 4,
            "train_rows": 16,
            "validation_rows": 6,
            "num_workers": 0,
        },
    },
    "trainer": {
        "accelerator": "cpu",
        "precision": "32-true",
        "max_steps": 2,
        "val_check_interval": 2,
        "limit_val_batches": 2,
        "gradient_clip_val": 1.0,
        "accumulate_grad_batches": 1,
        "log_every_n_steps": 1,
        "enable_progress_bar": False,
    },
    "faithfulness": {"every_n_validations": 1, "max_batches": 2, "positions": "answer"},
    "prompt_text": {"neighbours": 4},
    "checkpoint": {"monitor": "val/objective", "mode": "min"},
}
# What would train for long, on another device, or in many processes, is right but takes its time.
COSTLY = {
    ("trainer", "max_steps"),
    ("trainer", "accelerator"),
    ("data", "init_args", "num_workers"),
}
VALUES = (
    *(None, True, False, -1, 0, 1, 3, 2.5, -0.5, 10**20, "", "x", "ü\u202e", "a\0b", "null", "1e3"),
    *(float("nan"), float("inf"), float("-inf"), [], [1, 2], ["a"], {}, {"a": 1}),
)
CHEAP_VALUES = (None, "", "x", [], {}, float("nan"), -5, 0.5)


def leaves(config: Mapping[str, Any], prefix: Keys = ()) -> Iterator[tuple[Keys, Any]]:
    """Paths of all values that are no mapping, or an empty one."""
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, (*prefix, str(key)))
        else:
            yield (*prefix, str(key)), value


PATHS = [path for path, _ in leaves(CONFIG)]


@st.composite
def configurations(draw: st.DrawFn) -> dict[str, Any]:
    """A configuration with one to three mistakes, or changes that happen to be none."""
    config = copy.deepcopy(CONFIG)
    for path in draw(st.lists(st.sampled_from(PATHS), min_size=1, max_size=3, unique=True)):
        parent = config
        for key in path[:-1]:
            parent = parent.get(key, {}) if isinstance(parent, dict) else {}
        if not isinstance(parent, dict) or path[-1] not in parent:
            continue
        kind = draw(st.sampled_from(("value", "value", "value", "drop", "misspell", "nest")))
        old = parent.pop(path[-1])
        if kind == "value":
            values = CHEAP_VALUES if path in COSTLY else VALUES
            parent[path[-1]] = draw(st.sampled_from(values))
        elif kind == "misspell":
            place = draw(st.integers(0, len(path[-1]) - 1))
            parent[path[-1][:place] + draw(st.sampled_from("xé_.")) + path[-1][place:]] = old
        elif kind == "nest":
            parent[path[-1]] = {"init_args": old}
        elif path in COSTLY:  # without it, a run would be long
            parent[path[-1]] = old
    return config


def of_configuration(config: Mapping[str, Any]) -> Case:
    """A fit of the configuration."""
    # JSON, as `json` writes it, is YAML but for its words for what is no number.
    text = json.dumps(config).replace("NaN", ".nan").replace("Infinity", ".inf")
    return Case("generated", "configuration", ("fit", "--config", "m.yaml"), (), {"m.yaml": text})


@st.composite
def data_files(draw: st.DrawFn) -> tuple[str, bytes]:
    """Name and content of a training file with some damage."""
    kind = draw(st.sampled_from(("jsonl", "json", "csv", "tsv", "jsonl.gz", "parquet")))
    content = good(kind)
    for _ in range(draw(st.integers(1, 3))):
        content = damaged(draw, content)
    return f"train.{kind}", content


def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """The content with one damage."""
    kind = draw(st.sampled_from(("flip", "flip", "cut", "lose", "twice", "rename", "insert")))
    place = draw(st.integers(0, max(0, len(content) - 1)))
    if kind == "flip" and content:
        bit = 1 << draw(st.integers(0, 7))
        return content[:place] + bytes([content[place] ^ bit]) + content[place + 1 :]
    if kind == "cut":
        return content[:place]
    if kind == "rename":
        old = draw(st.sampled_from((b"text", b"label")))
        return content.replace(
            old, draw(st.sampled_from((b"", b"Text", b"text", b"label ", b"\0")))
        )
    if kind == "insert":
        return content[:place] + draw(st.binary(min_size=1, max_size=20)) + content[place:]
    lines = content.splitlines(keepends=True)
    number = draw(st.integers(0, max(0, len(lines) - 1)))
    if kind == "lose":
        return b"".join(lines[:number] + lines[number + 1 :])
    return b"".join(lines[: number + 1] + lines[number:])


def good(kind: str) -> bytes:
    """A training file without damage."""
    lines = review_lines(12)
    rows = [json.loads(line) for line in lines.splitlines()]
    if kind == "jsonl":
        return lines.encode()
    if kind == "jsonl.gz":
        return gzip.compress(lines.encode(), mtime=0)
    if kind == "json":
        return json.dumps(rows).encode()
    if kind == "parquet":
        from soak.wrong_files import parquet

        return parquet()
    separator = {"csv": ",", "tsv": "\t"}[kind]
    table = [separator.join(("text", "label"))]
    table += [separator.join((row["text"].replace(",", ""), row["label"])) for row in rows]
    return ("\n".join(table) + "\n").encode()


def of_data(name: str, content: bytes) -> Case:
    """A fit on the training file."""
    config = copy.deepcopy(CONFIG)
    config["data"]["init_args"] |= {"path": "own", "train_rows": None}
    files = {
        "m.yaml": json.dumps(config),
        f"own/{name}": content,
        "own/validation.jsonl": review_lines(6),
    }
    return Case("generated", "data", ("fit", "--config", "m.yaml"), (), files)
