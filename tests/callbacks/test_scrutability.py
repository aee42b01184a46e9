"""Perplexity under the task's model and under a scorer with another tokenizer."""

import math
import string
from pathlib import Path

import pytest
import torch

from lightning_prompts.callbacks import Scrutability
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.tuners import PEZ, SoftPrompt

from .conftest import MakeTask, Reference, learned, validated, written


@pytest.fixture(scope="module")
def scorer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second tiny model, whose tokens are single characters in another order, H=8."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("scorer")
    characters = " \n" + string.punctuation + string.digits + string.ascii_letters
    vocabulary = {token: i for i, token in enumerate([*characters, "<s>"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<s>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>").save_pretrained(folder)
    config = GPT2Config(
        vocab_size=len(vocabulary),
        n_positions=64,
        n_embd=8,
        n_layer=1,
        n_head=1,
        bos_token_id=vocabulary["<s>"],
        initializer_range=0.5,
    )
    with torch.random.fork_rng():
        torch.manual_seed(1)
        GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", [SoftPrompt, PEZ])
def test_perplexity_of_the_nearest_tokens(
    kind: type[SoftPrompt], make_task: MakeTask, reference: Reference
) -> None:
    task = make_task()
    tuner = learned(kind, task, length=5)
    got = validated(tuner, task, Scrutability())
    expected = reference.log_perplexity(tuner.hard_prompt().tolist())
    assert got["val/log_perplexity"] == pytest.approx(expected, rel=1e-5)
    assert got["val/perplexity"] == pytest.approx(math.exp(expected), rel=1e-5)


def test_a_single_token_has_a_perplexity(make_task: MakeTask, reference: Reference) -> None:
    task = make_task()
    got = validated(written(task, " great"), task, Scrutability())
    assert got["val/log_perplexity"] == pytest.approx(
        reference.log_perplexity(reference.encode(" great")), rel=1e-5
    )


def test_autocast_does_not_blur_it(make_task: MakeTask, reference: Reference) -> None:
    task = make_task()
    tuner = learned(SoftPrompt, task)
    got = validated(tuner, task, Scrutability(), precision="bf16-mixed")
    expected = reference.log_perplexity(tuner.hard_prompt().tolist())
    assert got["val/log_perplexity"] == pytest.approx(expected, rel=1e-5)


def test_scorer_reads_the_text_with_its_own_tokens(
    make_task: MakeTask, scorer_folder: Path, reference: Reference
) -> None:
    task = make_task()
    tuner = written(task, " great film")
    got = validated(tuner, task, Scrutability(scorer=str(scorer_folder)))

    other = Reference(FrozenLM(str(scorer_folder)))
    ids = other.encode(" great film")
    assert (len(ids), len(tuner.hard_prompt())) == (11, 6)
    expected = other.log_perplexity(ids)
    assert got["val/log_perplexity"] == pytest.approx(expected, rel=1e-5)
    own = reference.log_perplexity(tuner.hard_prompt().tolist())
    assert abs(own - expected) > 0.1


def test_scorer_is_loaded_once_and_asked_once_a_text(
    make_task: MakeTask, scorer_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = make_task()
    calls = []
    init, score = FrozenLM.__init__, FrozenLM.token_nll
    monkeypatch.setattr(
        FrozenLM, "__init__", lambda self, *a: (calls.append("load"), init(self, *a))[1]
    )
    monkeypatch.setattr(
        FrozenLM, "token_nll", lambda self, *a: (calls.append("score"), score(self, *a))[1]
    )
    callback = Scrutability(scorer=str(scorer_folder))
    assert calls == []
    first = validated(written(task, " a film"), task, callback)
    again = validated(written(task, " a film"), task, callback)
    assert calls == ["load", "score"]
    assert first == again
    validated(written(task, " a mess"), task, callback)
    assert calls == ["load", "score", "score"]
