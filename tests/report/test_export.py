"""Exported prompts: the program in their card answers as the prompt does, whatever the setting."""

import json
import re
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from lightning_prompts.cli.export import push, require_token
from lightning_prompts.cli.main import main
from lightning_prompts.files.errors import PromptError
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.lm.template import Template
from lightning_prompts.lm.verbalizer import Verbalizer
from lightning_prompts.report import snippet
from lightning_prompts.report.export import export
from lightning_prompts.runs.prompt import Prompt, load_prompt
from lightning_prompts.tuners.vectors import read_vectors
from tests.records import make_record
from tests.tiny import CHATML, END, save_chat_model

WORDS = {"bad": " bad", "good": " good"}
SEVERAL: dict[str, Any] = {"bad": [" bad", "no way"], "good": " fine, {really}"}


def made(
    lm: FrozenLM,
    template: Any = "{prompt}{text} It was",
    words: dict[str, Any] | None = None,
    score: Any = "sum",
    text: str = "a {b} \n",
    vectors: bool = False,
) -> Prompt:
    """A prompt of a text, or of vectors whose nearest tokens it might be."""
    ids = lm.encode(text)
    rows = lm.embed(torch.tensor(ids))
    if vectors:
        rows = rows + torch.randn(rows.shape, generator=torch.Generator().manual_seed(1))
    words = words or WORDS
    record = make_record(
        template=template,
        verbalizer=words,
        answer_score=score,
        text=text,
        ids=ids,
        tokens=lm.token_strings(ids),
        in_use="vectors" if vectors else "tokens",
        metrics={"val/accuracy": 0.8},
        rows={"validation": 100},
    )
    return Prompt(lm, rows, Template(template, lm), Verbalizer(words, lm, score), record)


def program(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What the program of a folder's card defines, run there."""
    (code,) = re.findall(r"```python\n(.*?)^```", (folder / "README.md").read_text(), re.S | re.M)
    assert code == (folder / "example.py").read_text(encoding="utf-8")
    with monkeypatch.context() as patch:
        patch.chdir(folder)
        return runpy.run_path("example.py")["probabilities"]


SETTINGS: dict[str, dict[str, Any]] = {
    "vectors first": {"vectors": True},
    "vectors last": {"vectors": True, "template": "{text}{prompt}", "score": "mean"},
    "a fixed text before": {"template": "So:{prompt}{text} It {{was}}", "vectors": True},
    "two columns": {"template": "{text}{prompt} {the title}", "words": SEVERAL},
    "means": {"words": SEVERAL, "score": "mean"},
    "pmi": {"words": SEVERAL, "score": "pmi", "vectors": True},
}


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("as_text", [False, True])
def test_the_program_answers_as_the_prompt(
    lm: FrozenLM, tmp_path: Path, monkeypatch, setting: str, as_text: bool
):
    prompt, folder = made(lm, **SETTINGS[setting]), tmp_path / "out"
    kind: Any = ("json", "safetensors")[len(setting) % 2]
    kind = "text" if as_text else kind
    ran = export(prompt, kind, folder)
    assert "largest difference" in ran
    assert not list(tmp_path.glob(".*"))
    probabilities = program(folder, monkeypatch)
    row = dict.fromkeys(prompt.template.columns, "Some other text.")
    if not as_text:
        assert probabilities(row) == pytest.approx(prompt.probabilities([row])[0], abs=1e-5)
        return
    # Pasted by hand, each answer behind it by itself.
    expected = {}
    for label, answers in zip(prompt.verbalizer.labels, prompt.verbalizer.answers, strict=True):
        found = [pasted(prompt, row, answer) for answer in answers]
        if prompt.record.answer_score == "pmi":
            without = [pasted(prompt, dict.fromkeys(row, ""), answer) for answer in answers]
            expected[label] = torch.stack(found).logsumexp(0) - torch.stack(without).logsumexp(0)
        else:
            expected[label] = torch.stack(found).logsumexp(0)
    shares = torch.stack([*expected.values()]).softmax(0).tolist()
    assert [*probabilities(row).values()] == pytest.approx(shares, abs=1e-5)


@torch.no_grad()
def pasted(prompt: Prompt, row: dict[str, str], answer: str) -> torch.Tensor:
    """The score of one answer behind a whole string."""
    text = prompt.template.text.format_map({**row, "prompt": prompt.text})
    ids, own = prompt.lm.encode(text), prompt.lm.encode(answer)
    logits = prompt.lm.model(input_ids=torch.tensor([ids + own])).logits[0].log_softmax(-1)
    steps = torch.stack([logits[len(ids) - 1 + i, token] for i, token in enumerate(own)])
    return steps.mean() if prompt.record.answer_score == "mean" else steps.sum()


def test_a_conversation_is_trimmed_as_its_template_does(tmp_path: Path, monkeypatch):
    folder = tmp_path / "lm # 1\nraise SystemExit"
    save_chat_model(folder, CHATML.replace("m.content", "m.content | trim"))
    prompt = made(FrozenLM(str(folder)), {"chat": {"system": "{prompt}", "user": "{text}"}})
    for kind in ("json", "text"):
        export(prompt, kind, tmp_path / kind)
        probabilities = program(tmp_path / kind, monkeypatch)
        assert probabilities({"text": " x \n"}) == probabilities({"text": "x"})
        if kind == "json":
            (own,) = prompt.probabilities([" x \n"])
            assert probabilities({"text": " x \n"}) == pytest.approx(own, abs=1e-5)


def test_an_adapter_has_what_stands_before_the_prompt(lm_folder: Path, tmp_path: Path, monkeypatch):
    """What PEFT adds in front of a text's vectors, by hand; with the package: test_peft.py."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)  # no peft
    lm = FrozenLM(str(lm_folder), add_bos=True)
    prompt, folder = made(lm, "So:{prompt}{text} It was", vectors=True), tmp_path / "adapter"
    assert "peft was not installed" in export(prompt, "peft", folder)
    config = json.loads((folder / "adapter_config.json").read_text())
    rows = load_file(folder / "adapter_model.safetensors")["prompt_embeddings"]
    before = lm.embed(torch.tensor([lm.bos_id, *lm.encode("So:")]))
    assert torch.equal(rows, torch.cat([before, prompt.embeddings]))
    assert read_vectors(str(folder)).bos_first
    assert (config["num_virtual_tokens"], config["token_dim"]) == (len(rows), 16)
    text = lm.embed(torch.tensor(lm.encode("Fine. It was")))
    with torch.no_grad():
        logits = lm.model(inputs_embeds=torch.cat([rows, text])[None]).logits[0, -1]
    shares = logits[prompt.verbalizer.token_ids].softmax(0).tolist()
    (own,) = prompt.probabilities(["Fine."])
    assert [*own.values()] == pytest.approx(shares, abs=1e-5)
    card = (folder / "README.md").read_text()
    assert f"The first 4 virtual tokens of the adapter stand for '{END}So:'" in card
    assert "without special tokens" in card


def test_a_prompt_behind_the_text_is_no_adapter(lm: FrozenLM, tmp_path: Path):
    with pytest.raises(PromptError, match=r"column before it.* --format safetensors"):
        export(made(lm, "{text}{prompt}"), "peft", tmp_path / "out")
    with pytest.raises(PromptError, match=r"column 'a\.b' of the template has a dot"):
        export(made(lm, "{prompt}{a.b}"), "text", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_program_that_says_something_else_is_not_written(
    lm: FrozenLM, tmp_path: Path, monkeypatch
):
    for wrong, said in (("row)[0, ", "answers otherwise"), ("words]", "does not run")):
        with monkeypatch.context() as patch:
            scoring = snippet.ONE_TOKEN.replace(
                wrong, {"row)[0, ": "row)[0].neg()["}.get(wrong, "")
            )
            patch.setattr(snippet, "ONE_TOKEN", scoring)
            with pytest.raises(PromptError, match=said):
                export(made(lm), "text", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_the_card(lm: FrozenLM, tmp_path: Path):
    export(made(lm, text="a | b```\n"), "text", tmp_path / "out", "apache-2.0")
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    head = yaml.safe_load(card.split("---")[1])
    assert (head["license"], head["library_name"]) == ("apache-2.0", "transformers")
    assert "base_model" not in head  # no name of the hub
    assert "```\n'a | b```\\n'\n```" in card
    assert "| accuracy of the prompt in use | 0.800 \\[0.711, 0.867\\] |" in card
    assert "100 validation rows chose this prompt" in card
    assert "there was no test" in card
    assert "| answer for 'good' | ' good' |" in card


def test_the_text_of_a_run_has_its_round_trip_accuracy(
    lm_folder: Path, review_folder: Path, tmp_path: Path, monkeypatch, capsys
):
    """From the command line to the card's program, over all validation rows."""
    monkeypatch.chdir(tmp_path)
    args = ["fit", "--config", "configs/tuner/soft.yaml", "--config", "configs/task/demo.yaml"]
    args += ["--lm.name", str(lm_folder), "--data.path", str(review_folder)]
    args += ["--trainer.max_steps", "2", "--trainer.val_check_interval", "1"]
    args += ["--trainer.enable_progress_bar", "false", "--trainer.precision", "32-true"]
    main(args, show=False)
    run = Path("logs/soft-demo/version_0")
    main(["export", str(run), "--format", "text"])
    folder = run / "export-text"
    assert f"Exported: {folder} (README.md, example.py, prompt.txt)" in capsys.readouterr().out
    prompt = load_prompt(run)
    assert (folder / "prompt.txt").read_text(encoding="utf-8") == prompt.text
    probabilities = program(tmp_path / folder, monkeypatch)
    rows = [json.loads(line) for line in (review_folder / "validation.jsonl").open()]
    shares = [probabilities({"text": row["text"]}) for row in rows]
    right = [max(s, key=s.__getitem__) == r["label"] for s, r in zip(shares, rows, strict=True)]
    assert sum(right) / len(rows) == pytest.approx(prompt.metrics["val/round_trip_accuracy"])

    checkpoint = run / "checkpoints" / "best.ckpt"
    for given, said in (
        ([run, "--format", "text"], "something is there; name a new or empty folder"),
        (["nowhere", "--format", "text"], "no prompt is there"),
        ([run], "Say as what: lightning-prompts export RUN --format peft, text"),
        (["--format", "text"], "Say which prompt"),
        ([run, "--format", "onnx"], "--format"),
        ([checkpoint, "--format", "json", "--push_to_hub", "me/x"], "no token of the Hugging"),
    ):
        monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
        with pytest.raises(SystemExit) as stop:
            main(["export", *map(str, given)])
        assert stop.value.code == 2
        assert said in capsys.readouterr().err
    assert not (run / "export-json").exists()


def test_a_folder_goes_to_the_hub(tmp_path: Path, monkeypatch):
    folder = tmp_path / "out"
    said: list[Any] = []
    folder.mkdir()
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "a token")
    monkeypatch.setattr("lightning_prompts.cli.export.hub_reachable", lambda: len(said) > 0)
    with pytest.raises(PromptError, match="the Hugging Face hub cannot be reached"):
        require_token("me/x")
    monkeypatch.setattr(
        "huggingface_hub.HfApi.create_repo", lambda *a, **k: said.append((a[1:], k))
    )
    monkeypatch.setattr(
        "huggingface_hub.HfApi.upload_folder", lambda *a, **k: said.append(k) or "https://there"
    )
    assert push(folder, "me/x") == "https://there"
    assert said == [(("me/x",), {"exist_ok": True}), {"repo_id": "me/x", "folder_path": folder}]
    require_token("me/x")

    def refuse(*args: object, **kwargs: object) -> None:
        raise ValueError("403: not yours\nmore")

    monkeypatch.setattr("huggingface_hub.HfApi.create_repo", refuse)
    with pytest.raises(PromptError, match=r"did not take it \(403: not yours\); the files are in"):
        push(folder, "me/x")
