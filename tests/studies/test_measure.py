"""`measure`: the numbers of plain transformers for prompts of every kind, and mistakes."""

import json
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lightning_prompts.callbacks import Scrutability
from lightning_prompts.callbacks.baselines import KEPT
from lightning_prompts.cli.main import main
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.studies.given import Given, find
from lightning_prompts.studies.measure import divide
from lightning_prompts.studies.shared import stopped

WORDS = {"negative": " terrible", "positive": " great"}


def by_hand(lm: FrozenLM, prompt: torch.Tensor, rows: list[dict[str, str]]) -> float:
    """Accuracy of [P, H] vectors before each text, a row at a time by the model itself."""
    words = torch.tensor([lm.encode(word)[0] for word in WORDS.values()])
    right = 0
    for row in rows:
        text = lm.embed(torch.tensor(lm.encode(row["text"] + " It was")))
        logits = lm.model(inputs_embeds=torch.cat([prompt, text])[None]).logits[0, -1]
        right += list(WORDS)[int(logits[words].argmax())] == row["label"]
    return right / len(rows)


@torch.no_grad()
def test_prompts_of_every_kind(
    lm: FrozenLM,
    lm_folder: Path,
    review_folder: Path,
    tmp_path: Path,
    monkeypatch,
    capsys,
    models_read: list[int],
):
    monkeypatch.chdir(tmp_path)
    pages: list[dict[str, str]] = []  # drawing one takes seconds, and is another test's
    monkeypatch.setattr(
        "lightning_prompts.report.writing.write_report",
        lambda runs, folder, title, names: pages.append(names) or folder / "report.html",
    )
    vectors = torch.randn(4, 16, generator=torch.Generator().manual_seed(3))
    Path("mine").mkdir()
    save_file({"prompt_embeddings": vectors}, "mine/adapter_model.safetensors")
    config = {"peft_type": "PROMPT_TUNING", "base_model_name_or_path": str(lm_folder)}
    Path("mine/adapter_config.json").write_text(json.dumps(config))
    torch.save(-vectors[:2], "other.pt")
    Path("list.txt").write_text(" A  b \r\n\n In one word\n", encoding="utf-8")
    options = ["--config", "configs/task/demo.yaml", "--data.path", str(review_folder)]
    options += ["--data.template", "{prompt}{text} It was", "--trainer.precision", "32-true"]
    options += ["--trainer.enable_progress_bar", "false"]
    # The model is the one that the adapter names.
    args = ["measure", "--prompt", "mine", "other.pt", "list.txt", *options]
    assert main(args) is None
    assert models_read == [1] * 5
    out = capsys.readouterr().out

    rows = [json.loads(line) for line in (review_folder / "validation.jsonl").open()]
    texts = [" A  b ", " In one word"]
    expected = [vectors, -vectors[:2], *(lm.embed(torch.tensor(lm.encode(t))) for t in texts)]
    runs = [f"imported-demo/version_{i}" for i in range(2)]
    runs += [f"manual-demo/version_{i}" for i in range(2)]
    names = ["mine", "other.pt", "' A  b '", "' In one word'"]
    for run, prompt, name in zip(runs, expected, names, strict=True):
        record = json.loads(Path("logs", run, "prompt.json").read_text())
        accuracy = by_hand(lm, prompt, rows)
        assert record["metrics"]["val/accuracy"] == pytest.approx(accuracy), name
        if record["in_use"] == "tokens":
            assert record["text"] in texts
        kind = "vectors" if record["in_use"] == "vectors" else "tokens"
        line = next(line for line in out.splitlines() if f"{name} ({len(prompt)} {kind})" in line)
        assert f" {accuracy:.3f} " in line
        assert f"{name}: logs/{run}\n" in out
    assert out.count("Faithfulness: cosine distance") == 2
    assert out.count("Scrutability: perplexity") == 4
    # Rows are read alike for all, so that what no prompt changes was measured once.
    assert out.count("no prompt, calibrated") == 1
    assert len(list(Path("logs").glob(f"{KEPT}/*.json"))) == 1
    page = Path("logs/imported-demo/version_0/report/report.html")
    assert out.splitlines()[-1] == f"Open in a browser: {page}"
    called = {run.removeprefix(f"{tmp_path}/"): name for run, name in pages[0].items()}
    assert called == {f"logs/{run}": name for run, name in zip(runs, names, strict=True)}


def test_what_a_word_means(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path("texts.jsonl").write_text('{"text": " a"}\n{"text": "b\\nc"}\n', encoding="utf-8")
    assert [g.text for g in find("texts.jsonl")] == [" a", "b\nc"]
    assert [g.text for g in find(" and/or")] == [" and/or"]
    assert [g.text for g in find("word " * 80)] == ["word " * 80]  # no file can be called so
    assert divide(["--prompt", "a", " b", "--lm.name", "x", "--prompt=-c"]) == (
        ["a", " b", "-c"],
        ["--lm.name", "x"],
    )


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ([], "Say which prompts to measure"),
        (["--prompt"], "Say which prompts to measure"),
        (["--prompt", " "], "--prompt is empty"),
        (["--prompt", "a", "--model.lr", "1"], "--model.lr: a prompt that is measured has no"),
        (["--prompt", "./nowhere"], "./nowhere: no such file or folder"),
        (["--prompt", "gone.txt"], "gone.txt: no such file or folder"),
        (["--prompt", "empty.txt"], "empty.txt: has no text"),
        (["--prompt", "bad.jsonl"], "bad.jsonl: not readable as .jsonl"),
        (["--prompt", "run"], "run is a run of lightning-prompts; to measure it again: light"),
        (["--prompt", "table.csv"], "table.csv: no file of tensors"),
    ],
)
def test_mistakes_end_before_a_model_is_read(
    args: list[str], said: str, tmp_path: Path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    Path("empty.txt").write_text("\n\n")
    Path("bad.jsonl").write_text('{"prompt": "a"}\n')
    Path("table.csv").write_text("a,b\n")
    Path("run").mkdir()
    Path("run/prompt.json").write_text("{}")
    with pytest.raises(SystemExit) as stop:
        main(["measure", *args])
    assert stop.value.code == 2
    assert said in capsys.readouterr().err


def test_a_prompt_of_another_model_is_refused(
    lm_folder: Path, review_folder: Path, tmp_path: Path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    torch.save(torch.zeros(2, 8), "wide.pt")
    options = ["--config", "configs/task/demo.yaml", "--data.path", str(review_folder)]
    with pytest.raises(SystemExit) as stop:
        main(["measure", "--prompt", " fine", "wide.pt", *options, "--lm.name", str(lm_folder)])
    assert stop.value.code == 2
    assert "wide.pt: its vectors have 8 numbers" in capsys.readouterr().err
    assert not Path("logs").exists()


# Where a run ends there is nothing left of it to stop, but the runs behind it.
@pytest.mark.parametrize("hook", ["on_validation_epoch_start", "on_train_end"])
def test_a_signal_ends_with_a_word(
    lm_folder: Path, review_folder: Path, tmp_path: Path, monkeypatch, capsys, hook: str
):
    """The second of three prompts is stopped by Ctrl-C, within its validation or at its end."""
    monkeypatch.chdir(tmp_path)
    calls = []

    def interrupt(*args: object, **kwargs: object) -> None:
        calls.append(args)
        if len(calls) == 2:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Scrutability, hook, interrupt, raising=False)
    options = ["--config", "configs/task/demo.yaml", "--data.path", str(review_folder)]
    options += ["--trainer.enable_progress_bar", "false", "--lm.name", str(lm_folder)]
    with pytest.raises(SystemExit) as stop:
        main(["measure", "--prompt", " one", " two", " three", *options])
    assert stop.value.code == 130
    assert len(calls) == 2
    said = capsys.readouterr().err
    assert "Stopped at ' two', prompt 2 of 3. Those before it: lightning-prompts report " in said
    assert said.splitlines()[-1].endswith("logs/manual-demo/version_0")


def test_what_is_said_of_a_first_prompt_that_was_stopped():
    said = stopped(Given("'" + "a" * 40 + "'", []).name, [], 1)
    assert said.startswith("Stopped at 'aaaaaa…aaaaa', prompt 1 of 1. Nothing was measured; --tr")
