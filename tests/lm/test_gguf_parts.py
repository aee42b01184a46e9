"""Models in `.gguf` files: whole, in parts, or refused before anything is kept."""

import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_prompts.files.errors import PromptError
from lightning_prompts.lm.frozen import FrozenLM
from tests.tiny_gguf import NUM_TENSORS, save_gguf, tensors


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own."""
    monkeypatch.setenv("LIGHTNING_PROMPTS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def kept(cache: Path) -> list[str]:
    return [path.name for path in cache.glob("gguf/*")]


def test_parts_are_joined(tmp_path: Path, cache: Path, caplog: pytest.LogCaptureFixture):
    """From any of them; the second run finds the same, without a word."""
    save_gguf(tmp_path / "whole.gguf")
    parts = save_gguf(tmp_path / "tiny.gguf", parts=3)
    whole, joined = FrozenLM(str(tmp_path / "whole.gguf")), FrozenLM(str(parts[1]))
    assert joined.label == "tiny (dequantised)"
    pairs = list(zip(whole.model.named_parameters(), joined.model.named_parameters(), strict=True))
    assert len(pairs) == NUM_TENSORS
    for (name, mine), (other_name, other) in pairs:
        assert name == other_name
        assert torch.equal(mine, other)
    assert joined.encode(" good film") == whole.encode(" good film")
    table = torch.from_numpy(tensors()["token_embd.weight"])
    assert torch.equal(joined.embedding_table, table)

    assert len(kept(cache)) == 2
    caplog.clear()
    with caplog.at_level(logging.INFO):
        again = FrozenLM(str(parts[0]))
    assert caplog.messages == []
    assert again.fingerprint == whole.fingerprint
    assert again.revision == joined.revision != whole.revision


def test_a_part_that_is_not_there_is_named(tmp_path: Path, cache: Path):
    first, second, third = save_gguf(tmp_path / "tiny.gguf", parts=3)
    third.unlink()
    for part in (first, second):
        with pytest.raises(PromptError, match=f"split into 3 files, of which 1 .*{third.name}"):
            FrozenLM(str(part))
    assert kept(cache) == []


def test_a_part_under_another_name_is_refused(tmp_path: Path, cache: Path):
    first = save_gguf(tmp_path / "tiny.gguf", parts=2)[0].rename(tmp_path / "whole.gguf")
    for _ in range(2):  # nothing is kept that a second run would find
        with pytest.raises(PromptError, match="part 1 of 2 of a model; put all parts into one"):
            FrozenLM(str(first))
    assert kept(cache) == []


def test_parts_of_two_models_are_refused(tmp_path: Path, cache: Path):
    (tmp_path / "other").mkdir()
    _, second = save_gguf(tmp_path / "tiny.gguf", parts=2)
    other = save_gguf(tmp_path / "other" / "tiny.gguf", parts=2)
    shutil.copy(other[0], second)  # the first one twice
    with pytest.raises(PromptError, match="not the parts of one model"):
        FrozenLM(str(second))
    assert kept(cache) == []


def test_a_missing_weight_is_named_before_anything_is_kept(tmp_path: Path, cache: Path):
    file = tmp_path / "tiny.gguf"
    save_gguf(file, without="blk.1.ffn_up.weight")
    for _ in range(2):
        with pytest.raises(PromptError, match=r"1 of its 21 .*layers\.1\.mlp\.up_proj\.weight"):
            FrozenLM(str(file))
    assert kept(cache) == []


@pytest.mark.parametrize(
    ("rope", "parts", "words"),
    [
        ({"type": "linear", "factor": 8.0}, 1, r"\(linear, factor 8\)"),
        ({"type": "yarn", "factor": 4.0}, 3, r"\(yarn, factor 4\)"),
        ({"factor": 2.0}, 1, r"\(linear, factor 2\)"),
        ({"freqs": [1, 1, 4, 8]}, 1, r"\(a factor for each frequency\)"),
    ],
)
def test_scaled_positions_are_refused(
    tmp_path: Path, cache: Path, rope: dict[str, Any], parts: int, words: str
):
    """transformers leaves them out without a word."""
    file = save_gguf(tmp_path / "tiny.gguf", parts=parts, rope=rope)[0]
    with pytest.raises(PromptError, match=rf"{words}.* give a folder or hub id"):
        FrozenLM(str(file))
    assert kept(cache) == []


@pytest.mark.parametrize(
    "rope", [{"type": "none"}, {"type": "linear", "factor": 1.0}, {"freqs": [1, 1, 1, 1]}]
)
def test_a_scale_of_one_is_none(tmp_path: Path, rope: dict[str, Any]):
    save_gguf(tmp_path / "tiny.gguf")
    save_gguf(tmp_path / "scaled.gguf", rope=rope)
    plain, scaled = (FrozenLM(str(tmp_path / f"{name}.gguf")) for name in ("tiny", "scaled"))
    assert scaled.fingerprint == plain.fingerprint


def test_what_an_earlier_version_kept_is_not_trusted(tmp_path: Path, cache: Path):
    """It may be half of a model, filled up at random."""
    file, old = tmp_path / "tiny.gguf", tmp_path / "old.gguf"
    save_gguf(file)
    save_gguf(old, seed=1)
    other = FrozenLM(str(old))
    (made,) = cache.glob("gguf/*")
    digest = FrozenLM(str(file)).revision
    shutil.copytree(made, cache / "gguf" / str(digest)[:16])  # as it was named
    for new in set(cache.glob("gguf/*-*")):
        shutil.rmtree(new)
    found = FrozenLM(str(file))
    assert found.fingerprint != other.fingerprint
    table = torch.from_numpy(tensors()["token_embd.weight"])
    assert torch.equal(found.embedding_table, table)


def test_a_damaged_copy_in_the_cache_is_named(tmp_path: Path, cache: Path):
    save_gguf(tmp_path / "tiny.gguf")
    FrozenLM(str(tmp_path / "tiny.gguf"))
    (made,) = cache.glob("gguf/*/model.safetensors")
    made.write_bytes(made.read_bytes()[:-100])
    with pytest.raises(PromptError, match=rf"converted in {made.parent}\).* remove that folder"):
        FrozenLM(str(tmp_path / "tiny.gguf"))
    shutil.rmtree(made.parent)
    assert FrozenLM(str(tmp_path / "tiny.gguf"))


@pytest.mark.parametrize("size", [4, 3000, 20000])
def test_a_file_that_was_cut_off_is_refused(tmp_path: Path, cache: Path, size: int):
    file = tmp_path / "tiny.gguf"
    save_gguf(file)
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(PromptError, match=r"tiny\.gguf"):
        FrozenLM(str(file))
    assert kept(cache) == []
