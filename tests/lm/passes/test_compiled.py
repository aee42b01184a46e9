"""Compiled passes give the eager numbers and gradients, in few shapes, and fail softly."""

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lightning_prompts.lm.batch import Batch, collate
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.lm.passes import compiled
from lightning_prompts.lm.passes.compiled import CompiledPasses, padded_length
from lightning_prompts.lm.passes.reuse import concatenated
from lightning_prompts.lm.template import Template
from tests.lm.passes.test_reuse import rotary_folder  # noqa: F401
from tests.model_types import save_type

FIRST, LAST, AROUND = "{prompt} {text} It was", "{text}{prompt}", "So:{prompt} {text}"
SHORT = ["Dull", "A warm film", "No"]
P = 3
needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None and shutil.which("clang++") is None,
    reason="torch.compile needs a C++ compiler",
)


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Names of what is compiled; traced and guarded alone, which takes no C++ compiler."""
    found: list[str] = []
    compile_it = torch.compile

    def trace(function, **kwargs):
        found.append(function.__name__)
        assert kwargs == {"fullgraph": True, "dynamic": False, "mode": None}
        del kwargs["mode"]
        return compile_it(function, backend="eager", **kwargs)

    monkeypatch.setattr(torch, "compile", trace)
    yield found
    torch._dynamo.reset()


def make_batch(lm: FrozenLM, text: str, texts: list[str]) -> Batch:
    examples = [Template(text, lm).encode({"text": t}) for t in texts]
    return collate(examples, [0] * len(texts), range(len(texts)))


def random_prompt(lm: FrozenLM, length: int = P) -> Tensor:
    generator = torch.Generator().manual_seed(length)
    return torch.randn(1, length, lm.hidden_size, generator=generator).requires_grad_()


def gradient(hidden: Tensor, prompt: Tensor) -> Tensor:
    # Random weights: a layer norm's sum of squares is constant, so its gradient is all rounding.
    weights = torch.randn(hidden.shape, generator=torch.Generator().manual_seed(0))
    return torch.autograd.grad((hidden.float() * weights).sum(), prompt)[0]


def assert_eager(passes: CompiledPasses, prompt: Tensor, batch: Batch, reuse: bool = True) -> None:
    got, expected = passes(prompt, batch, reuse), concatenated(passes.lm, prompt, batch)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    own, reference = gradient(got, prompt), gradient(expected, prompt)
    assert reference.abs().max() > 1e-3
    assert (own - reference).abs().max() < 1e-5 * reference.abs().max()


# ---- the numbers


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("gpt2-sdpa", FIRST),
        ("gpt2-auto", LAST),
        ("gpt2-eager", AROUND),
        ("rotary-sdpa", LAST),
        ("rotary-eager", FIRST),
        ("rotary-auto", AROUND),
    ],
)
def test_generated_code_gives_the_eager_numbers(
    kind: str,
    text: str,
    lm_folder: Path,
    rotary_folder: Path,  # noqa: F811
):
    family, attention = kind.split("-")
    folder = {"gpt2": lm_folder, "rotary": rotary_folder}[family]
    lm = FrozenLM(str(folder), attn_implementation=attention)
    assert_eager(CompiledPasses(lm), random_prompt(lm), make_batch(lm, text, SHORT))
    torch._dynamo.reset()


@pytest.mark.parametrize(
    ("family", "attention"), [("gpt2", "sdpa"), ("gpt2", "eager"), ("rotary", "auto")]
)
def test_the_traced_pass_gives_the_eager_numbers(
    family: str,
    attention: str,
    lm_folder: Path,
    rotary_folder: Path,  # noqa: F811
    compilations: list[str],
):
    folder = {"gpt2": lm_folder, "rotary": rotary_folder}[family]
    lm = FrozenLM(str(folder), attn_implementation=attention)
    passes = CompiledPasses(lm)
    for text in (FIRST, LAST):
        assert_eager(passes, random_prompt(lm), make_batch(lm, text, SHORT))
    assert compilations == ["prompts_first", "concatenated"]


def test_a_model_that_scales_its_embeddings(
    lm_folder: Path, tmp_path: Path, compilations: list[str]
):
    save_type("gemma3_text", lm_folder, tmp_path)
    lm = FrozenLM(str(tmp_path))
    passes, batch = CompiledPasses(lm), make_batch(lm, FIRST, SHORT)
    assert_eager(passes, random_prompt(lm), batch)
    assert_eager(passes, random_prompt(lm), batch, reuse=False)
    assert compilations == ["prompts_first", "concatenated"]


def test_without_reuse_it_concatenates(lm: FrozenLM, compilations: list[str]):
    assert_eager(CompiledPasses(lm), random_prompt(lm), make_batch(lm, AROUND, SHORT), reuse=False)
    assert compilations == ["concatenated"]


def test_texts_that_fill_the_positions(lm: FrozenLM, compilations: list[str]):
    """Padding ends at the last position, where GPT-2's table of positions does."""
    passes = CompiledPasses(lm)
    for text, others, reuse in ((FIRST, 8, True), (LAST, 0, True), (AROUND, 4, False)):
        batch = make_batch(lm, text, ["a" * (lm.max_positions - P - others), "No"])
        assert batch["num_tokens"] + P == lm.max_positions
        assert_eager(passes, random_prompt(lm), batch, reuse)


# ---- few shapes


@pytest.mark.parametrize(
    ("length", "padded"),
    [(0, 0), (1, 16), (16, 16), (17, 32), (64, 64), (65, 96), (97, 128), (129, 192), (1025, 1536)],
)
def test_padded_length(length: int, padded: int):
    assert padded_length(length, 2000) == padded
    assert padded_length(length, length + 1) == min(length + 1, padded)


def test_few_lengths_up_to_a_model_s_positions():
    assert len({padded_length(length, 1024) for length in range(1, 1025)}) == 12


def test_lengths_and_incomplete_batches_share_a_shape(lm: FrozenLM, compilations: list[str]):
    passes, prompt = CompiledPasses(lm), random_prompt(lm)
    for texts in (SHORT, ["A warm one", "Dull", "No"], ["Fine", "Not dull!"], ["Not dull!"]):
        assert_eager(passes, prompt, make_batch(lm, FIRST, texts))
    assert len(compilations) == 1
    assert_eager(passes, prompt, make_batch(lm, FIRST, ["A much longer text, by far", *SHORT[1:]]))
    assert len(compilations) == 2


def test_a_last_text_alone_is_no_shared_prefix(lm: FrozenLM, compilations: list[str]):
    passes, prompt, text = CompiledPasses(lm), random_prompt(lm), "{text}{prompt} So"
    assert_eager(passes, prompt, make_batch(lm, text, SHORT))
    assert passes(prompt, make_batch(lm, text, ["Fine"]), True) is None
    assert compilations == ["concatenated"]


def test_more_shapes_than_the_compiler_keeps_of_one_function(
    lm: FrozenLM, compilations: list[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(torch.compiler.config, "recompile_limit", 1)
    passes = CompiledPasses(lm)
    for length in (1, 2, 3):
        assert_eager(passes, random_prompt(lm, length), make_batch(lm, LAST, SHORT))
    assert len(compilations) == 3


def test_shapes_without_end_go_uncompiled(
    lm: FrozenLM,
    compilations: list[str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    monkeypatch.setattr(compiled, "MAX_SHAPES", 1)
    passes = CompiledPasses(lm)
    with caplog.at_level(logging.INFO):
        assert_eager(passes, random_prompt(lm), make_batch(lm, LAST, SHORT))
    assert "1 shapes are compiled" in caplog.text
    assert passes(random_prompt(lm, 5), make_batch(lm, LAST, SHORT), True) is None
    assert_eager(passes, random_prompt(lm), make_batch(lm, LAST, SHORT))
    assert len(compilations) == 1


def test_what_is_no_case_for_it(lm: FrozenLM, compilations: list[str]):
    passes, batch, prompt = CompiledPasses(lm), make_batch(lm, FIRST, SHORT), random_prompt(lm)
    assert passes(prompt.repeat(2, 1, 1), batch, True) is None
    assert passes(prompt[:, :0], batch, True) is None
    assert passes(torch.tensor([[1, 2]]), batch, True) is None
    assert not compilations


# ---- modes


def test_each_mode_is_compiled_once(lm: FrozenLM, compilations: list[str]):
    """A guard that fails within a mode would compile again, in the middle of a run."""
    passes, prompt = CompiledPasses(lm), random_prompt(lm)
    full = make_batch(lm, "{prompt}{text}", ["a" * 16, "b" * 16, "c" * 16])  # needs no padding
    part = make_batch(lm, "{prompt}{text}", SHORT)

    def check(*batches: Batch) -> None:
        with torch._dynamo.config.patch(error_on_recompile=True):
            for given in batches:
                torch.testing.assert_close(
                    passes(prompt, given, True), concatenated(lm, prompt, given), rtol=0, atol=1e-5
                )

    with torch.no_grad():
        check(part)
    with torch.inference_mode():
        check(full, part)
        inner = prompt * 1  # made in inference mode, as PEZ's projection is
        assert passes(inner, part, True) is not None
    check(part)
    assert not passes._failed
    assert len(compilations) == 4
    with torch.autocast("cpu", torch.bfloat16):
        assert_eager_bf16(passes, prompt, part)
    assert len(compilations) == 5


def assert_eager_bf16(passes: CompiledPasses, prompt: Tensor, batch: Batch) -> None:
    expected = concatenated(passes.lm, prompt, batch)
    torch.testing.assert_close(passes(prompt, batch, True), expected, rtol=0.1, atol=0.1)


def test_what_leaves_is_a_copy(lm: FrozenLM, monkeypatch: pytest.MonkeyPatch):
    """As with CUDA graphs: each replay writes its states and gradients into the same memory."""
    out, slope = torch.zeros(1, 3, lm.hidden_size), torch.zeros(1, P, lm.hidden_size)

    class Replay(torch.autograd.Function):
        @staticmethod
        def forward(ctx, prompt):
            return out.add_(1).detach()

        @staticmethod
        def backward(ctx, grad):
            return slope.add_(1).detach()

    monkeypatch.setattr(
        torch, "compile", lambda function, **kwargs: lambda lm, prompt, batch: Replay.apply(prompt)
    )
    passes, batch, prompt = CompiledPasses(lm), make_batch(lm, FIRST, SHORT), random_prompt(lm)
    first = passes(prompt, batch, True)
    kept = first.detach().clone()
    first.sum().backward()
    held = prompt.grad.clone()
    second = passes(prompt, batch, True)
    assert torch.equal(first, kept)
    torch.autograd.grad(second.sum(), prompt)
    assert torch.equal(prompt.grad, held)


# ---- warm-up and failure


def test_warm_up_compiles_each_shape_ahead(
    lm: FrozenLM, compilations: list[str], caplog: pytest.LogCaptureFixture
):
    passes, prompt = CompiledPasses(lm), random_prompt(lm)
    long = make_batch(lm, FIRST, ["A much longer text, by far", *SHORT[1:]])
    batches = [make_batch(lm, FIRST, ["Not dull!"]), make_batch(lm, FIRST, SHORT), long, long]
    with caplog.at_level(logging.INFO):
        passes.warm_up(prompt, batches, reuse=True)
    assert len(compilations) == 2
    assert "(1 of 2): 3 texts of up to" in caplog.text
    assert "(2 of 2): 3 texts of up to 48 tokens" in caplog.text
    for batch in batches:
        assert_eager(passes, prompt, batch)
    assert len(compilations) == 2
    assert prompt.grad is None


@pytest.mark.parametrize("stage", ["forward", "backward"])
def test_a_compiler_that_fails_is_named_once(
    lm: FrozenLM, stage: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    attempts = []
    compile_it = torch.compile

    def broken(graph, inputs):
        raise OSError("no compiler found\nlong story")

    def compile_badly(function, **kwargs):
        from torch._dynamo.backends.common import aot_autograd

        attempts.append(function)
        fine = lambda graph, inputs: graph  # noqa: E731
        backend = aot_autograd(
            fw_compiler=broken if stage == "forward" else fine, bw_compiler=broken
        )
        return compile_it(function, backend=backend, fullgraph=True)

    monkeypatch.setattr(torch, "compile", compile_badly)
    passes, batch, prompt = CompiledPasses(lm), make_batch(lm, LAST, SHORT), random_prompt(lm)
    with caplog.at_level(logging.WARNING, "lightning_prompts"):
        for _ in range(2):
            assert passes(prompt, batch, True) is None
    assert [record.getMessage() for record in caplog.records] == [
        "The language model's pass goes on uncompiled, with the same numbers: "
        "OSError: no compiler found."
    ]
    assert len(attempts) == 1
    torch._dynamo.reset()
