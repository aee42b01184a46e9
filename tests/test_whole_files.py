"""Files change whole or not at all, whatever happens while they are written."""

import json
from pathlib import Path

import pytest

from lightning_prompts.whole_files import write_json


def test_write_json_replaces_whole_files(tmp_path: Path):
    path = tmp_path / "prompt.json"
    write_json(path, {"a": [1.5, float("inf")], "b": {"c": float("nan")}, "t": "é\n"})
    assert json.loads(path.read_text(encoding="utf-8")) == {
        **{"a": [1.5, None], "b": {"c": None}},  # JSON has neither inf nor NaN
        "t": "é\n",
    }
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert "1.5" in path.read_text(encoding="utf-8")
