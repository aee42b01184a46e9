"""What a model reads for a token and makes of its last states: its own calls, in one space."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from lightning_prompts import PEZ, FromText
from lightning_prompts.files.errors import PromptError
from lightning_prompts.lm.ends import Ends
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.lm.nearest import nearest_tokens
from lightning_prompts.lm.template import Template
from lightning_prompts.lm.verbalizer import Verbalizer
from tests.model_types import save_type


@pytest.fixture(scope="module")
def gemma(lm_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> FrozenLM:
    folder = tmp_path_factory.mktemp("gemma")
    save_type("gemma3_text", lm_folder, folder)
    return FrozenLM(str(folder))


def own(name: str, lm_folder: Path, folder: Path, **changed: Any) -> Any:
    save_type(name, lm_folder, folder)
    return AutoModelForCausalLM.from_pretrained(folder, **changed).eval()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_vectors_are_those_that_the_model_reads(
    lm_folder: Path, tmp_path: Path, dtype: torch.dtype
):
    model = own("gemma3_text", lm_folder, tmp_path, dtype=dtype)
    ends = Ends(model, "gemma")
    # sqrt(32) in the type of the weights, as the model's buffer becomes it: 5.65625 in bfloat16.
    scale = torch.tensor(32**0.5, dtype=dtype)
    assert torch.equal(ends.table, model.get_input_embeddings().weight * scale)
    assert ends.table.dtype == dtype


def test_nearest_tokens_and_projection_are_in_that_space(gemma: FrozenLM):
    ids = torch.tensor([7, 50, 99])
    vectors = gemma.embed(ids)
    for metric in ("cosine", "euclidean"):
        found = nearest_tokens(vectors + 1e-3, gemma.index, metric)
        assert found.ids.tolist() == ids.tolist()
        exact = (vectors.double() + 1e-3 - gemma.embedding_table[found.ids].double()).norm(dim=1)
        if metric == "euclidean":
            torch.testing.assert_close(found.distances.double(), exact, rtol=1e-4, atol=1e-6)
    words = Verbalizer({"0": "a", "1": "b"}, gemma)
    tuner = PEZ(gemma, Template("{prompt} {text}", gemma), words, init=FromText("red"))
    used = tuner.prompt_embeddings()
    assert torch.equal(used, gemma.embed(tuner.hard_prompt()))
    used.sum().backward()
    assert torch.equal(tuner.prompt.grad, torch.ones_like(tuner.prompt))


def test_perplexity_of_vectors_is_the_models_own(gemma: FrozenLM):
    ids = torch.tensor([[7, 50, 99, 12]])
    whole = torch.cat([torch.tensor([[gemma.bos_id]]), ids], 1)
    model = copy.deepcopy(gemma.model).double()
    expected = -model(input_ids=whole).logits.log_softmax(-1)[0, :-1].gather(1, ids.T)[:, 0]
    for embeds in (None, gemma.embed(ids)):
        got = gemma.token_nll(ids, embeds)[0].double()
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def test_another_device_or_type_gets_its_own_copy(gemma: FrozenLM):
    lm = copy.deepcopy(gemma)
    before = lm.embedding_table
    assert lm.embedding_table is before
    lm.model.double()
    assert lm.embedding_table.dtype == torch.float64
    torch.testing.assert_close(lm.embedding_table, before.double(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["modernbert-decoder", "rembert", "minicpm3", "gemma2", "cohere"])
def test_some_tokens_logits_are_those_of_all(name: str, lm_folder: Path, tmp_path: Path):
    """Behind a transform, a divisor, a cap and a factor."""
    model = own(name, lm_folder, tmp_path)
    lm = FrozenLM(str(tmp_path))
    ids = torch.tensor([[5, 6, 7, 8]])
    expected = model(input_ids=ids, use_cache=False).logits
    hidden = lm.states(lm.embed(ids))
    torch.testing.assert_close(lm.logits(hidden), expected, rtol=1e-4, atol=1e-4)
    some = torch.tensor([4, 90])
    torch.testing.assert_close(lm.logits(hidden, some), expected[..., some], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("gemma3n_text", "reads an embedding for each layer beside the first one"),
        ("gemma4_text", "reads an embedding for each layer beside the first one"),
        ("cpmant", "takes token ids alone, and no vectors in their place"),
        ("xlnet", "lets a token change what stands before it"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_reason(
    name: str, why: str, lm_folder: Path, tmp_path: Path
):
    save_type(name, lm_folder, tmp_path)
    with pytest.raises(PromptError, match=rf"\({name}\) {why}.*; use another model") as raised:
        FrozenLM(str(tmp_path))
    assert str(raised.value).count(". ") == 0  # one sentence


def test_nothing_is_copied_where_nothing_is_scaled(lm: FrozenLM):
    assert lm.embedding_table is lm.model.get_input_embeddings().weight
