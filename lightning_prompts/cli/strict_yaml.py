"""YAML as a person means it: plain values alone, and each key once."""

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from lightning_prompts.files.errors import PromptError


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice; PyYAML would keep the last one and drop the others."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._seen: set[yaml.MappingNode] = set()

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        # Every mapping passes here, and the first time without what it merges, which it overrides.
        if node not in self._seen:
            self._seen.add(node)
            self._refuse_doubles(node)
        super().flatten_mapping(node)

    def _refuse_doubles(self, node: yaml.MappingNode) -> None:
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable) and key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands twice", key_node.start_mark
                )
            if isinstance(key, Hashable):
                seen.add(key)


def load_yaml(text: str) -> Any:
    """The value that a YAML text holds.

    Raises:
        yaml.YAMLError: If it is no YAML, has a tag for anything but plain values, or a mapping has
            a key twice.

    >>> load_yaml("{a: 1, b: [x]}")
    {'a': 1, 'b': ['x']}
    """
    return yaml.load(text, _Loader)  # a SafeLoader


def read_config(path: Path, holds: str) -> dict[str, Any]:
    """What a file says that `--config` names.

    Args:
        path: The file.
        holds: What it should hold, for the message where it holds nothing of the kind.

    Raises:
        PromptError: If it cannot be read.
    """
    try:
        content = load_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise PromptError(f"--config {path}: no such file.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise PromptError(f"--config {path}: not readable as YAML ({reason}).") from error
    if not isinstance(content, dict):
        raise PromptError(f"--config {path}: holds no {holds} for how one looks.")
    return content


def option_value(text: str) -> Any:
    """An option of the command line as YAML reads it; what is no YAML stays a text."""
    try:
        return load_yaml(text)
    except yaml.YAMLError:
        return text
