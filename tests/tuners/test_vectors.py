"""Prompts of other makers: what is read, what is refused, and where the model reads it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from lightning_prompts.files.errors import PromptError
from lightning_prompts.lm.batch import collate
from lightning_prompts.lm.class_scores import class_scores
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.lm.template import Template
from lightning_prompts.lm.verbalizer import Verbalizer
from lightning_prompts.tuners.imported import ImportedPrompt
from lightning_prompts.tuners.prompt_init import FromCheckpoint
from lightning_prompts.tuners.vectors import read_vectors

WORDS = {"bad": " bad", "good": " good"}
END = "<|endoftext|>"


@pytest.fixture
def rows() -> Tensor:
    """[3, H] A prompt for the tiny model."""
    return torch.randn(3, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def adapter(tmp_path: Path, rows: Tensor) -> Callable[..., Path]:
    """Writes a folder as PEFT does, with parts of its configuration replaced."""

    def write(tensors: dict[str, Tensor] | None = None, **changed: Any) -> Path:
        folder = tmp_path / "adapter"
        folder.mkdir(exist_ok=True)
        config = {"peft_type": "PROMPT_TUNING", "task_type": "CAUSAL_LM", "num_virtual_tokens": 3}
        config |= {"base_model_name_or_path": "tiny"}
        said = {name: changed.pop(name) for name in ("begins_with_bos",) if name in changed}
        (folder / "adapter_config.json").write_text(json.dumps(config | changed))
        file = folder / "adapter_model.safetensors"
        save_file(tensors or {"prompt_embeddings": rows}, file, {"format": "pt", **said})
        return folder

    return write


@pytest.mark.parametrize("kind", ["PROMPT_TUNING", "P_TUNING", "CPT"])
def test_an_adapter_of_vectors(adapter: Callable[..., Path], rows: Tensor, kind: str):
    found = read_vectors(str(adapter(peft_type=kind)))
    assert torch.equal(found.rows, rows)
    assert (found.adapter, found.base) == (True, "tiny")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"peft_type": "PREFIX_TUNING"}, "keys and values of every layer"),
        ({"peft_type": "MULTITASK_PROMPT_TUNING"}, "factors of each task"),
        ({"peft_type": "LORA"}, "an adapter of LORA, which learns other weights of the model"),
        ({"task_type": "SEQ_CLS"}, "an adapter for SEQ_CLS"),
        ({"num_virtual_tokens": 8}, "says 8 virtual tokens, and adapter_model.safetensors has 3"),
        ({"tensors": {"other": torch.zeros(3, 16)}}, "has no prompt_embeddings"),
        ({"tensors": {"prompt_embeddings": torch.zeros(16)}}, "save its vectors as"),
        ({"tensors": {"prompt_embeddings": torch.full((3, 16), torch.nan)}}, "not finite"),
    ],
)
def test_an_adapter_of_something_else(
    adapter: Callable[..., Path], changed: dict[str, Any], said: str
):
    with pytest.raises(PromptError, match=said):
        read_vectors(str(adapter(**changed)))


class _Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return open, ("ran.txt", "w")


def test_a_pickle_is_not_run(adapter: Callable[..., Path], rows: Tensor, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = adapter()
    (folder / "adapter_model.safetensors").unlink()
    torch.save({"prompt_embeddings": rows}, folder / "adapter_model.bin")
    assert torch.equal(read_vectors(str(folder)).rows, rows)
    torch.save({"prompt_embeddings": rows, "more": _Evil()}, folder / "adapter_model.bin")
    with pytest.raises(PromptError, match="more than tensors"):
        read_vectors(str(folder))
    assert not Path("ran.txt").exists()
    (folder / "adapter_model.bin").unlink()
    with pytest.raises(PromptError, match=r"beside its adapter_config.json lies no"):
        read_vectors(str(folder))


def test_tensors_in_files(rows: Tensor, tmp_path: Path):
    half = rows.to(torch.bfloat16)
    save_file({"prompt_embeddings": half, "other": rows}, tmp_path / "named.safetensors")
    save_file({"mine": rows, "bias": rows[0].clone()}, tmp_path / "alone.safetensors")
    torch.save(rows[None], tmp_path / "bare.pt")
    torch.save({"state_dict": {"prompt": rows}}, tmp_path / "inner.pt")
    assert torch.equal(read_vectors(str(tmp_path / "named.safetensors")).rows, half.float())
    for name in ("alone.safetensors", "bare.pt", "inner.pt"):
        found = read_vectors(str(tmp_path / name))
        assert torch.equal(found.rows, rows), name
        assert not found.adapter
    save_file({"a": rows, "b": rows + 1}, tmp_path / "two.safetensors")
    (tmp_path / "damaged.pt").write_bytes(b"no tensors")
    (tmp_path / "empty").mkdir()
    for name, said in (
        ("two.safetensors", "has 2 matrices"),
        ("damaged.pt", "damaged, or more than tensors"),
        ("empty", r"has no adapter_config.json"),
        ("nothing.pt", "no such file or folder"),
    ):
        with pytest.raises(PromptError, match=said):
            read_vectors(str(tmp_path / name))


def test_a_name_of_the_hub_that_is_not_there(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("lightning_prompts.files.hub.hub_reachable", lambda: False)
    with pytest.raises(PromptError, match=r"the hub cannot be reached.*begin it with a space"):
        read_vectors("nobody/no-such-adapter")


def test_a_start_from_an_adapter(adapter: Callable[..., Path], rows: Tensor, lm: FrozenLM):
    start = FromCheckpoint(str(adapter()))
    verbalizer = Verbalizer(WORDS, lm)
    assert torch.equal(start(lm, verbalizer, None, 0), rows)
    wide = FromCheckpoint(str(adapter({"prompt_embeddings": torch.zeros(3, 8)})))
    with pytest.raises(PromptError, match=r"have 8 numbers, as tiny has, and those of .* have 16"):
        wide(lm, verbalizer, None, 0)


def plain(lm: FrozenLM, pieces: list[Tensor], verbalizer: Verbalizer) -> Tensor:
    """[C] By the model itself, of vectors in their order."""
    with torch.no_grad():
        logits = lm.model(inputs_embeds=torch.cat(pieces)[None]).logits[0, -1]
    return logits[verbalizer.token_ids]


def test_of_a_model_with_a_bos_it_is_read_before_it(
    adapter: Callable[..., Path], rows: Tensor, lm_folder: Path
):
    lm = FrozenLM(str(lm_folder), add_bos=True)
    verbalizer, path = Verbalizer(WORDS, lm), str(adapter())
    text = lm.embed(torch.tensor(lm.encode("Fine. It was")))
    bos = lm.embed(torch.tensor([lm.bos_id]))

    def scores(template: Template, prompt: ImportedPrompt) -> Tensor:
        batch = collate([template.encode({"text": "Fine."})], [-1], [0])
        return class_scores(lm, template, verbalizer, prompt.prompt_embeddings()[None], batch)[0, 0]

    usual = Template("{prompt}{text} It was", lm)
    with pytest.raises(PromptError, match=r"set template='{prompt}<\|endoftext\|>"):
        ImportedPrompt(lm, usual, verbalizer, path)
    with pytest.raises(PromptError, match="PEFT puts a prompt before everything"):
        ImportedPrompt(lm, Template("{text}{prompt}", lm), verbalizer, path)
    behind = Template("{prompt}" + END + "{text} It was", lm)
    prompt = ImportedPrompt(lm, behind, verbalizer, path)
    expected = plain(lm, [rows, bos, text], verbalizer)
    assert torch.allclose(scores(behind, prompt), expected, atol=1e-5)
    assert not torch.allclose(plain(lm, [bos, rows, text], verbalizer), expected, atol=1e-2)
    # Pasted, the text stands where the vectors do.
    example = behind.encode({"text": "Fine."})
    (ids,) = behind.paste(" a", [(example.before, example.after)])
    assert ids == [*lm.encode(" a"), lm.bos_id, *lm.encode("Fine. It was")]

    # As `export` writes it: BOS is the first vector, and the prompt follows.
    own = str(adapter({"prompt_embeddings": torch.cat([bos, rows[1:]])}, begins_with_bos="true"))
    prompt = ImportedPrompt(lm, usual, verbalizer, own)
    assert torch.equal(prompt.soft_prompt(), rows[1:])
    expected = plain(lm, [bos, rows[1:], text], verbalizer)
    assert torch.allclose(scores(usual, prompt), expected, atol=1e-5)
