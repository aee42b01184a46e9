"""Ids past the embedding table are no tokens: a text that needs one is named, nothing breaks."""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, GPT2Config, GPT2ForSequenceClassification, GPT2Model

from lightning_prompts.callbacks.scrutability import Scrutability
from lightning_prompts.cli.main import main
from lightning_prompts.files.errors import PromptError
from lightning_prompts.lm.features import text_states
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.lm.template import Template
from lightning_prompts.lm.verbalizer import Verbalizer
from lightning_prompts.metrics.content import ContentScore
from lightning_prompts.metrics.transfer import text_nats
from lightning_prompts.tuners.manual import ManualPrompt
from lightning_prompts.tuners.prompt_init import FromModel, FromText
from lightning_prompts.tuners.rewards.style.scorers import load_style
from lightning_prompts.tuners.rl.policy import Policy, PolicySettings, other_writer

WORDS = {"positive": " good", "negative": " bad"}
NEEDS = r"needs the token '\[PAD\]' \(id 101 of 103 .*has embeddings for 101 tokens"


def added(lm_folder: Path, folder: Path, words: list[str], **special: str) -> str:
    """A copy of the model whose tokenizer has more tokens than the model has rows."""
    shutil.copytree(lm_folder, folder, dirs_exist_ok=True)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens(special)
    tokenizer.add_tokens(words)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def padded(lm_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> FrozenLM:
    """With `[PAD]` (id 101) and the word " film" (102)."""
    folder = tmp_path_factory.mktemp("padded")
    return FrozenLM(added(lm_folder, folder, [" film"], pad_token="[PAD]"))


def manual(lm: FrozenLM, text: str) -> ManualPrompt:
    return ManualPrompt(lm, Template("{prompt}{text}", lm), Verbalizer(WORDS, lm), text=text)


def test_the_model_is_as_without_them(padded: FrozenLM, lm: FrozenLM):
    assert len(padded.tokenizer) == 103 > padded.vocab_size
    assert padded.special_ids == lm.special_ids
    assert padded.vocabulary == lm.vocabulary
    assert (padded.bos_id, padded.eos_id) == (lm.bos_id, lm.eos_id)
    assert padded.encode("A cold, slow song") == lm.encode("A cold, slow song")


@pytest.mark.parametrize(
    ("use", "named"),
    [
        (lambda lm: lm.encode("a [PAD]"), r"The text 'a \[PAD\]'"),
        (lambda lm: Verbalizer({"0": "[PAD]", "1": " bad"}, lm), r"Verbalizer word '\[PAD\]'"),
        (lambda lm: Template("{prompt} {text}", lm).encode({"text": "[PAD]!"}), r"' \[PAD\]!'"),
        (lambda lm: FromText("x[PAD]").rows(lm, None, None, 0), r"prompt's text 'x\[PAD\]'"),
        (lambda lm: FromModel("x[PAD]").rows(lm, None, 3, 0), r"init\.text='x\[PAD\]'"),
        (
            lambda lm: Policy(PolicySettings(source_text="[PAD]"), lm, 3),
            r"policy\.source_text='\[PAD\]'",
        ),
        (lambda lm: manual(lm, "[PAD]"), r"prompt's text '\[PAD\]'"),
        (lambda lm: text_states(lm, ["fine", "a [PAD]"], 1), r"The text 'a \[PAD\]'"),
        (lambda lm: text_nats(lm, ["fine", "a [PAD]"]), r"The text 'a \[PAD\]'"),
    ],
)
def test_a_text_that_needs_one_is_named(
    padded: FrozenLM, use: Callable[[FrozenLM], object], named: str
):
    with pytest.raises(PromptError, match=named + ".*" + NEEDS):
        use(padded)


def arguments(lm: FrozenLM, data: Path, logs: Path, tuner: str) -> list[str]:
    args = ["fit", "--config", f"configs/tuner/{tuner}.yaml", "--config", "configs/task/sst2.yaml"]
    args += ["--lm.name", lm.name, "--data.path", str(data), "--trainer.accelerator", "cpu"]
    args += ["--data.verbalizer", json.dumps(WORDS), "--data.batch_size", "8"]
    args += ["--trainer.max_steps", "2", "--trainer.val_check_interval", "2"]
    return [*args, "--trainer.logger.init_args.save_dir", str(logs)]


def test_a_row_that_needs_one_is_named(
    padded: FrozenLM, review_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """In any split, before any step."""
    shutil.copytree(review_folder, tmp_path / "data")
    for split in ("train", "validation"):  # the tiny data speak of films
        file = tmp_path / "data" / f"{split}.jsonl"
        file.write_text(file.read_text().replace(" film", " song"))
    lines = file.read_text().splitlines()
    lines[3] = json.dumps({"text": "Dull [PAD]", "label": "negative"})
    file.write_text("\n".join(lines))
    with pytest.raises(SystemExit) as ended:
        main(arguments(padded, tmp_path / "data", tmp_path / "logs", "soft"))
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert f"{file}, row 4: The text ' Dull [PAD] It was' needs the token '[PAD]'" in error
    assert "Traceback" not in error


def test_a_written_prompt_that_needs_one_is_named_before_training(
    padded: FrozenLM, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    rows = [{"text": text, "label": label} for text in "abcd" for label in WORDS]
    (tmp_path / "all.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    args = arguments(padded, tmp_path / "all.jsonl", tmp_path / "logs", "soft")
    args += ["--data.split", "0.5,0.5,0"]
    with pytest.raises(SystemExit) as ended:
        main([*args, "--baselines.text", "[PAD]"])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert "--baselines.text '[PAD]' needs the token '[PAD]'" in error
    assert "step" not in error


def test_a_prompt_whose_text_needs_one_does_not_survive_it(padded: FrozenLM, tmp_path: Path):
    """The tokens are the model's; written down they become one that it does not know."""
    rows = [{"text": text, "label": label} for text in "abcdef" for label in WORDS]
    (tmp_path / "all.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    ids = [padded.vocabulary[character] for character in " film"]
    made = {"ids": ids, "lm": {"label": padded.label, "fingerprint": padded.fingerprint}}
    (tmp_path / "prompt.json").write_text(json.dumps(made))
    args = arguments(padded, tmp_path / "all.jsonl", tmp_path / "logs", "soft")
    args += ["--data.split", "0.5,0.5,0", "--model.init", "FromCheckpoint"]
    args += ["--model.init.path", str(tmp_path / "prompt.json"), "--model.prompt_length", "null"]
    main([*args, "--model.optimizer.lr", "1e-9"])
    (file,) = tmp_path.glob("logs/*/version_0/prompt.json")
    found = json.loads(file.read_text())
    assert found["ids"] == ids
    assert found["metrics"]["val/hard_accuracy"] > 0
    assert found["metrics"]["val/round_trip_accuracy"] == 0
    assert found["metrics"]["val/round_trip"] == 0


def test_a_scorer_gives_what_it_has_no_token_for_no_probability(padded: FrozenLM, lm: FrozenLM):
    callback = Scrutability(scorer=padded.name)
    tuner = manual(lm, "A film")
    callback.setup(None, tuner, "fit")  # type: ignore[arg-type]
    values = callback.values(None, tuner)  # type: ignore[arg-type]
    assert float(values["log_perplexity"]) == float("inf")


def test_a_bos_without_a_row_is_no_bos(
    lm_folder: Path, lm: FrozenLM, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    with caplog.at_level(logging.INFO):
        found = FrozenLM(added(lm_folder, tmp_path / "bos", [], bos_token="<s>"))
    assert (found.bos_id, found.eos_id) == (lm.bos_id, lm.bos_id)
    assert any("'<s>'" in message for message in caplog.messages)
    with pytest.raises(PromptError, match="no embedding for it; set one that the model knows"):
        FrozenLM(added(lm_folder, tmp_path / "both", [], bos_token="<s>", eos_token="</s>"))


def test_an_eos_without_a_row_is_no_eos(lm_folder: Path, lm: FrozenLM, tmp_path: Path):
    found = FrozenLM(added(lm_folder, tmp_path, [], eos_token="</s>"))
    assert (found.bos_id, found.eos_id) == (lm.bos_id, None)
    (mine,), (theirs,) = (text_states(x, ["ab"], 1, eos=True) for x in (found, lm))
    assert torch.equal(mine, theirs)  # BOS stands in


def test_the_policys_tokens_are_those_that_it_can_write(padded: FrozenLM, lm: FrozenLM):
    writer = other_writer(PolicySettings(lm=padded.name), lm)
    assert writer is not None
    assert writer.label == padded.label


@pytest.mark.parametrize("kind", ["classifier", "encoder"])
def test_other_models_tokenizers_are_looked_at_too(
    lm_folder: Path, lm: FrozenLM, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
):
    """What stands in every text is said at loading, what stands in one with the text."""
    monkeypatch.setenv("LIGHTNING_PROMPTS_CACHE", str(tmp_path / "cache"))
    make = {"classifier": GPT2ForSequenceClassification, "encoder": GPT2Model}[kind]
    with torch.random.fork_rng():
        model = make(GPT2Config.from_pretrained(lm_folder, num_labels=2))

    def use(folder: Path) -> object:
        model.save_pretrained(folder)
        if kind == "classifier":
            return load_style(str(folder), lm)(["A song", "A film"])
        return ContentScore(lm, str(folder), sentences=["a", "b", "c"])(["A song"], ["A film"])

    added(lm_folder, tmp_path / "pad", [], pad_token="[PAD]")
    with pytest.raises(PromptError, match=rf"(?i)^(style )?{kind} .* puts '\[PAD\]' .*101 tokens"):
        use(tmp_path / "pad")
    added(lm_folder, tmp_path / "word", [" film"])
    with pytest.raises(PromptError, match=r"^The text 'A film' needs the token ' film' \(id 101"):
        use(tmp_path / "word")
