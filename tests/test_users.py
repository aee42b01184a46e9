"""What users do first: their own table, a GPT-2 folder, a machine without a hub."""

import csv
import json
import random
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

from lightning_prompts.cli.main import main

SHORT = (
    *("--trainer.precision", "32-true", "--trainer.enable_progress_bar", "false"),
    *("--trainer.max_steps", "4", "--trainer.val_check_interval", "2"),
)
# Letters of the tiny model's alphabet stand for words: each is one of its tokens.
QUEUES = dict(
    zip(("billing", "delivery", "returns", "account", "technical", "other"), "bdratO", strict=True)
)
SHARES = (0.4, 0.25, 0.15, 0.1, 0.07, 0.03)


@pytest.fixture
def tickets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """3,000 rows, 6 unbalanced classes, columns `body` and `queue`, in the working directory."""
    monkeypatch.chdir(tmp_path)
    draw = random.Random(0)
    labels = draw.choices(list(QUEUES), SHARES, k=3000)
    with Path("tickets.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "body", "queue"])
        for i, label in enumerate(labels):
            words = [
                label[: draw.randint(1, 4)],
                *draw.choices(["the", "my", "a, b", 'so "x"'], k=5),
            ]
            draw.shuffle(words)
            writer.writerow([i, " ".join(words), label])
    return Path("tickets.csv")


@pytest.mark.parametrize("by", ["flags", "yaml"])
def test_an_own_table_trains_from_flags_or_yaml_alone(by: str, tickets: Path, lm_folder: Path):
    options = {
        "path": str(tickets),
        "text_column": "body",
        "label_column": "queue",
        "template": "{prompt} {text} Queue:",
        "verbalizer": QUEUES,
    }
    if by == "flags":
        given = ["--data", "TextClassification"]
        for name, value in options.items():
            text = value if isinstance(value, str) else json.dumps(value)
            given += [f"--data.{name}", text]
    else:
        block = {"class_path": "lightning_prompts.TextClassification", "init_args": options}
        Path("task.yaml").write_text(json.dumps({"data": block}), encoding="utf-8")
        given = ["--config", "task.yaml"]
    cli = main(
        ["fit", "--config", "configs/tuner/soft.yaml", *given, *SHORT, "--lm.name", str(lm_folder)]
    )
    report = cli.datamodule.report
    assert report.rows == {"train": 2400, "validation": 300}
    counts = report.classes["validation"]
    assert list(counts) == list(QUEUES)
    assert counts["billing"] > 3 * counts["technical"] > 0  # the shares are kept
    written = json.loads(Path("logs/soft-tickets/version_0/prompt.json").read_text())
    majority = counts["billing"] / 300
    assert written["baselines"]["majority"]["accuracy"] == pytest.approx(majority)
    assert written["verbalizer"] == QUEUES


@pytest.fixture(scope="module")
def gpt2_folder(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> Path:
    """GPT-2's real tokenizer and a narrow GPT2LMHeadModel with random weights."""
    folder = tmp_path_factory.mktemp("gpt2")
    AutoTokenizer.from_pretrained(shared_data / "gpt2_tokenizer").save_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = GPT2Config(n_embd=32, n_layer=2, n_head=2)
        GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("tuner", "template"),
    [("soft", "{prompt} {text} It was"), ("pez", "{text}{prompt}"), ("manual", "{text}{prompt}")],
)
def test_a_local_gpt2_runs_every_command(
    tuner: str,
    template: str,
    gpt2_folder: Path,
    shared_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.chdir(tmp_path)
    rows = {f"--data.{split}_rows": "40" for split in ("train", "validation", "test")}
    main(
        [
            *(
                "fit",
                "--config",
                f"configs/tuner/{tuner}.yaml",
                "--config",
                "configs/task/sst2.yaml",
            ),
            *("--lm.name", str(gpt2_folder), "--data.path", str(shared_data / "sst2")),
            *("--data.template", template, *SHORT),
            *(part for pair in rows.items() for part in pair),
        ]
    )
    run = Path(f"logs/{tuner}-sst2/version_0")
    Path("new.jsonl").write_text('{"text": "fun"}\n{"text": "a long , dull film"}\n')
    for command in ("validate", "test", "predict"):
        found = ["--config", str(run / "config.yaml"), "--ckpt_path", "best"]
        main([command, *found, "--data.predict", "new.jsonl"])
    predictions = (run / "predictions.jsonl").read_text().splitlines()
    assert len(predictions) == 2
    first = json.loads(predictions[0])
    assert first["label"] in ("0", "1")
    assert sum(first["probabilities"].values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (
            ("--config", "configs/task/demo.yaml", "--lm.name", "gpt2"),
            ("'gpt2'", "hub cannot be reached", "--lm.name FOLDER", "--lm.name smollm2"),
        ),
        (
            ("--config", "configs/task/sst2.yaml", "--lm.name", "TINY"),
            ("stanfordnlp/sst2", "hub cannot be reached", "--data.path"),
        ),
    ],
)
def test_without_a_hub_one_sentence_names_what_helps(
    options: tuple[str, ...],
    named: tuple[str, ...],
    lm_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("lightning_prompts.files.hub.hub_reachable", lambda: False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    options = tuple(str(lm_folder) if option == "TINY" else option for option in options)
    with pytest.raises(SystemExit) as stopped:
        main(["fit", "--config", "configs/tuner/soft.yaml", *options])
    assert stopped.value.code == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    for part in named:
        assert part in said
