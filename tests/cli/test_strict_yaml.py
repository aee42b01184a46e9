"""YAML is read as a person means it."""

import pytest
import yaml

from lightning_prompts.cli.strict_yaml import load_yaml

# `c` is made before `a`, which lies deeper.
MERGED = """
defs:
  base: &base {x: 1, z: 3}
  a: &a
    <<: *base
    x: 2
c:
  <<: *a
  y: 3
"""


def test_a_merge_may_be_overridden_wherever_it_stands():
    assert load_yaml(MERGED) == yaml.safe_load(MERGED)
    assert load_yaml(MERGED)["c"] == {"x": 2, "y": 3, "z": 3}


@pytest.mark.parametrize("text", ["a: 1\na: 2", "a: {b: 1, b: 1}", MERGED + "  y: 4", "1: a\n1: b"])
def test_a_key_stands_once(text: str):
    with pytest.raises(yaml.YAMLError, match="stands twice"):
        load_yaml(text)


def test_tags_make_nothing():
    with pytest.raises(yaml.YAMLError):
        load_yaml("!!python/object/apply:os.getcwd []")
