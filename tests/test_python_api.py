"""Python's front door: the README's script, and what people put beside it in a Trainer."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import lightning as L
import pandas as pd
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, LearningRateMonitor
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch.utils.data import DataLoader

import lightning_prompts
from lightning_prompts import (
    BestPrompt,
    FrozenLM,
    LastPrompt,
    Prompt,
    PromptError,
    SoftPrompt,
    TextClassification,
    fit,
    load_prompt,
    measures,
)
from lightning_prompts.cli.main import main
from tests.patience import PATIENCE
from tests.tiny import BAD, GOOD

TEMPLATE, WORDS = "{prompt} {text} It was", {"bad": " terrible", "good": " great"}
COLUMNS = {"text_column": "body", "label_column": "queue"}
STEPS: dict[str, Any] = {
    "max_steps": 4,
    "val_check_interval": 2,
    "check_val_every_n_epoch": None,
    "gradient_clip_val": 1.0,
    "num_sanity_val_steps": 0,
    "accelerator": "cpu",
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


@pytest.fixture
def frame() -> pd.DataFrame:
    rows = [(text, label) for texts, label in ((GOOD, "good"), (BAD, "bad")) for text in texts]
    return pd.DataFrame(rows * 4, columns=["body", "queue"])


@pytest.fixture
def task(lm: FrozenLM, frame: pd.DataFrame) -> TextClassification:
    return TextClassification(lm, TEMPLATE, WORDS, data=frame, batch_size=8, **COLUMNS)


def learn(
    task: TextClassification, folder: Path, *callbacks: L.Callback, **options: Any
) -> BestPrompt:
    """The README's script, without its test."""
    tuner = SoftPrompt.for_task(task, prompt_length=3)
    best = BestPrompt()
    options = {"default_root_dir": folder, **STEPS, **options}
    trainer = L.Trainer(**options, callbacks=[*measures(), best, *callbacks])
    trainer.fit(tuner, task)
    return best


def test_the_script(task: TextClassification, tmp_path: Path):
    tuner = SoftPrompt.for_task(task, prompt_length=3)
    trainer = L.Trainer(
        **STEPS, default_root_dir=tmp_path, callbacks=[*measures(), best := BestPrompt()]
    )
    trainer.fit(tuner, task)
    trainer.test(tuner, task, ckpt_path="best", verbose=False)
    prompt = load_prompt(best.folder, task.lm)
    assert len(prompt.tokens) == 3
    assert "".join(prompt.tokens) == prompt.text
    assert {"val/accuracy", "val/perplexity", "test/hard_accuracy"} <= prompt.metrics.keys()
    assert set(prompt.classify([GOOD[0], BAD[0]])) <= {"good", "bad"}
    # The very numbers of the test, by another road: row by row, without a trainer.
    rows = task.rows("test")
    right = prompt.classify([row["text"] for row in rows.rows])
    share = sum(WORDS_BY_INDEX[c] == said for c, said in zip(rows.labels, right, strict=True))
    assert share / len(rows) == pytest.approx(prompt.metrics["test/accuracy"])


WORDS_BY_INDEX = list(WORDS)


def test_it_is_the_command_lines_run(task, frame, lm_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    frame.to_csv("rows.csv", index=False)
    files = ["configs/tuner/soft.yaml", "configs/task/custom.yaml"]
    options = {
        **{"lm.name": lm_folder, "data.path": "rows.csv", "data.template": TEMPLATE},
        **{"data.verbalizer": json.dumps(WORDS), "data.batch_size": 8, "data.max_tokens": "null"},
        **{"data.val_batch_size": 64, "model.prompt_length": 3, "experiment": "run"},
        **{f"trainer.{name}": json.dumps(value).strip('"') for name, value in STEPS.items()},
        "trainer.precision": "32-true",
    }
    args = [f"--{name}={value}" for name, value in options.items()]
    main(["fit", *[part for file in files for part in ("--config", file)], *args], show=False)
    said = json.loads(Path("logs/run/version_0/prompt.json").read_text())
    L.seed_everything(0, verbose=False)
    found = load_prompt(learn(task, tmp_path / "python", precision="32-true").folder, task.lm)
    assert found.metrics == said["metrics"]
    saved = torch.load("logs/run/version_0/checkpoints/best.ckpt", weights_only=True)
    assert torch.equal(found.embeddings, saved["state_dict"]["prompt"])


@pytest.mark.parametrize("logger", ["none", "csv", "tensorboard", "default"])
def test_every_run_has_a_folder_of_its_own(logger: str, task, tmp_path: Path):
    """Twice in one process on one language model, whatever logs it."""

    def made() -> Any:
        return {
            "none": False,
            "csv": CSVLogger(tmp_path, "csv") if logger == "csv" else None,
            "tensorboard": TensorBoardLogger(tmp_path, "tb") if logger == "tensorboard" else None,
            "default": None,
        }[logger]

    folders = [learn(task, tmp_path, logger=made(), max_steps=2).folder for _ in range(2)]
    assert folders[0] != folders[1]
    assert all(f.is_relative_to(tmp_path) for f in folders)
    first, second = (load_prompt(folder, task.lm) for folder in folders)
    assert torch.equal(first.embeddings, second.embeddings)  # the same seed, the same run
    assert all((folder / "checkpoints" / "best.ckpt").is_file() for folder in folders)


def test_best_prompt_needs_nothing_beside_it(task: TextClassification, tmp_path: Path):
    tuner = SoftPrompt.for_task(task, prompt_length=3)
    best = BestPrompt()
    L.Trainer(**STEPS, default_root_dir=tmp_path, logger=False, callbacks=[best]).fit(tuner, task)
    prompt = load_prompt(best.folder, task.lm)
    assert prompt.record.baselines == {}
    assert "val/loss" in prompt.metrics


def test_lightnings_callbacks_stand_beside_ours(task: TextClassification, tmp_path: Path):
    stopping = EarlyStopping("val/loss", patience=1, min_delta=10.0)
    rates = LearningRateMonitor("step")
    best = learn(task, tmp_path, stopping, rates, max_steps=20, val_check_interval=1)
    assert stopping.stopped_epoch or len(best.history) == 2
    assert load_prompt(best.folder, task.lm).record.step <= 2


def test_a_signal_ends_the_script_as_it_should(task: TextClassification, tmp_path: Path):
    """Ctrl-C under `LastPrompt` saves, and the exit status says what it was."""

    class Interrupts(L.Callback):
        def on_train_batch_end(self, *args: Any) -> None:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(SystemExit) as stopped:
        learn(task, tmp_path, Interrupts(), LastPrompt(), logger=False)
    assert stopped.value.code == 128 + signal.SIGINT
    (last,) = tmp_path.rglob("last.ckpt")
    assert torch.load(last, weights_only=True)["global_step"] == 1


def loaders(tuner: SoftPrompt, rows: list[dict[str, str]]) -> Iterator[DataLoader]:
    for _ in range(2):
        yield DataLoader(rows, batch_size=8, collate_fn=tuner.collate)


def test_plain_loaders_take_the_tuners_collate(task, frame, tmp_path: Path):
    tuner = SoftPrompt.for_task(task, prompt_length=3)
    rows = frame.rename(columns={"body": "text", "queue": "label"}).to_dict("records")
    trainer = L.Trainer(
        **STEPS, default_root_dir=tmp_path, callbacks=[*measures(), best := BestPrompt()]
    )
    trainer.fit(tuner, *loaders(tuner, rows))
    assert load_prompt(best.folder, task.lm).record.baselines.keys() == {"no prompt"}


def test_batches_of_another_kind_are_refused(task, frame, tmp_path: Path):
    tuner = SoftPrompt.for_task(task, prompt_length=3)
    loader = DataLoader(frame.to_dict("records"), batch_size=8)
    trainer = L.Trainer(**STEPS, default_root_dir=tmp_path, callbacks=measures())
    with pytest.raises(PromptError, match=r"collate_fn=tuner\.collate"):
        trainer.fit(tuner, loader, loader)


def test_a_data_module_of_others_is_plain_loaders(task, frame, tmp_path: Path):
    rows = frame.rename(columns={"body": "text", "queue": "label"}).to_dict("records")
    tuner = SoftPrompt.for_task(task, prompt_length=3)

    class Theirs(L.LightningDataModule):
        def train_dataloader(self) -> DataLoader:
            return next(loaders(tuner, rows))

        val_dataloader = train_dataloader

    trainer = L.Trainer(
        **STEPS, default_root_dir=tmp_path, callbacks=[*measures(), best := BestPrompt()]
    )
    trainer.fit(tuner, datamodule=Theirs())
    assert load_prompt(best.folder, task.lm).record.baselines.keys() == {"no prompt"}


@pytest.mark.parametrize("tuner", ["soft", "pez", "gcg", "manual"])
def test_one_call(tuner: str, lm: FrozenLM, frame: pd.DataFrame, tmp_path: Path):
    trainer = {**STEPS, "max_steps": 2, "logger": False}
    small: dict[str, Any] = {"gcg": {"candidates": 4}, "manual": {"text": " a"}}.get(tuner, {})
    options = {"prompt_length": 3} | small if tuner != "manual" else small
    prompt = fit(
        tuner, frame, TEMPLATE, WORDS, lm, folder=tmp_path, options=options, trainer=trainer,
        batch_size=8, **COLUMNS,
    )  # fmt: skip
    assert isinstance(prompt, Prompt)
    assert "test/accuracy" in prompt.metrics
    assert prompt.record.in_use == ("vectors" if tuner == "soft" else "tokens")
    kind = "nearest tokens of its vectors" if tuner == "soft" else "tokens in use"
    assert kind in prompt._repr_html_()  # PEZ has vectors too, which nobody reads


def test_what_is_missing_is_said(lm: FrozenLM, frame: pd.DataFrame, tmp_path: Path):
    with pytest.raises(PromptError, match=r"no tuner 'sofd'; known: .*soft"):
        fit("sofd", frame)
    with pytest.raises(PromptError, match="Give data, rows"):
        fit("soft")
    with pytest.raises(PromptError, match="no prompt is there"):
        load_prompt(tmp_path)
    with pytest.raises(PromptError, match="No run has begun"):
        _ = BestPrompt().folder


def test_a_prompt_belongs_to_its_model(task, tmp_path: Path):
    from tests.tiny import save_model

    folder = learn(task, tmp_path, logger=False, max_steps=2).folder
    save_model(tmp_path / "other", seed=1)
    with pytest.raises(PromptError, match="give the one that it was learned for"):
        load_prompt(folder, FrozenLM(str(tmp_path / "other")))
    checkpoint = load_prompt(folder / "checkpoints" / "best.ckpt")  # knows where its model lies
    assert torch.equal(checkpoint.embeddings, load_prompt(folder, task.lm).embeddings)


@pytest.mark.parametrize("add_bos", [True, False])
def test_texts_begin_as_they_did_in_the_run(
    add_bos: bool, lm_folder: Path, frame: pd.DataFrame, tmp_path: Path
):
    lm, other = (FrozenLM(str(lm_folder), add_bos=value) for value in (add_bos, not add_bos))
    task = TextClassification(lm, TEMPLATE, WORDS, data=frame, batch_size=8, **COLUMNS)
    folder = learn(task, tmp_path, logger=False, max_steps=2).folder
    text = "My card was charged twice."
    for where in (folder, folder / "checkpoints" / "best.ckpt"):
        loaded = load_prompt(where)
        assert loaded.lm.prefix_ids == lm.prefix_ids == [lm.bos_id] * add_bos
        assert loaded.probabilities([text]) == load_prompt(where, lm).probabilities([text])
        with pytest.raises(PromptError, match=f"BOS.*load it with add_bos={add_bos}"):
            load_prompt(where, other)
    described = json.loads((folder / "prompt.json").read_text())
    del described["lm"]["add_bos"]  # as earlier versions wrote it, beside the configuration
    (folder / "prompt.json").write_text(json.dumps(described))
    (folder / "config.yaml").write_text(f"lm: {{add_bos: {str(add_bos).lower()}}}")
    assert load_prompt(folder).lm.prefix_ids == lm.prefix_ids


def test_a_notebook_shows_it_as_a_report_does(task, tmp_path: Path):
    prompt = load_prompt(learn(task, tmp_path, logger=False, max_steps=2).folder, task.lm)
    page = prompt._repr_html_()
    assert page.count('class="token"') == 3
    assert "background:#" in page
    assert f"{prompt.nats[0]:.1f}" in page
    assert f"{prompt.distances[0]:.2f}" in page


def test_the_list_of_public_names_is_true():
    for name in lightning_prompts.__all__:
        found = getattr(lightning_prompts, name)
        if isinstance(found, type) or callable(found):  # and no type of an option, or a number
            assert getattr(found, "__name__", name) in (name, "Annotated")
            assert found.__doc__, name
    assert set(dir(lightning_prompts)) == set(lightning_prompts.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Nope'"):
        _ = lightning_prompts.Nope


@pytest.mark.slow
def test_a_real_model_and_a_data_frame_give_the_command_lines_numbers(
    smollm2_installed: None, shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """SmolLM2 on SST-2: every metric and the prompt's vectors, to the last bit, with clipping."""
    monkeypatch.chdir(tmp_path)
    steps = {**STEPS, "max_steps": 2, "val_check_interval": 2, "precision": "32-true"}
    rows = {"batch_size": 8, "train_rows": 16, "validation_rows": 16, "test_rows": 16}
    args = [f"--data.{name}={value}" for name, value in rows.items()]
    args += [
        f"--trainer.{name}={json.dumps(value)}".replace('"', "") for name, value in steps.items()
    ]
    files = ("--config", "configs/tuner/soft.yaml", "--config", "configs/task/sst2.yaml")
    sst2 = shared_data / "sst2"
    main(["fit", *files, "--lm.name=smollm2", f"--data.path={sst2}", *args], show=False)
    run = Path("logs/soft-sst2/version_0")
    main(["test", "--config", str(run / "config.yaml"), "--ckpt_path", "best"], show=False)

    frames = {
        split: pd.read_json(sst2 / f"{split}.jsonl", lines=True)
        for split in ("train", "validation", "test")
    }
    lm = FrozenLM("smollm2")
    words = {"0": " terrible", "1": " great"}
    task = TextClassification(lm, "{prompt} {text} It was", words, data=frames, **rows)
    tuner = SoftPrompt.for_task(task)
    best = BestPrompt()
    trainer = L.Trainer(**steps, default_root_dir=tmp_path, callbacks=[*measures(), best])
    trainer.fit(tuner, task)
    trainer.test(tuner, task, ckpt_path="best", verbose=False)
    prompt, said = load_prompt(best.folder, lm), load_prompt(run, lm)
    assert prompt.metrics == said.metrics
    assert "test/accuracy" in prompt.metrics
    assert torch.equal(prompt.embeddings, said.embeddings)
    assert prompt.classify(["A warm and funny film."]) == said.classify(["A warm and funny film."])


@pytest.mark.slow
@pytest.mark.parametrize("sampler", [False, True])
def test_a_script_on_two_devices(sampler: bool, lm_folder: Path, frame, tmp_path: Path):
    """Lightning starts the script again for the second device."""
    frame.to_csv(tmp_path / "rows.csv", index=False)
    script = tmp_path / "script.py"
    script.write_text(f"""
import lightning as L, pandas as pd
from lightning_prompts import *

lm = FrozenLM({str(lm_folder)!r})
data = pd.read_csv({str(tmp_path / "rows.csv")!r})
task = TextClassification(lm, {TEMPLATE!r}, {WORDS!r}, data=data, batch_size=4, **{COLUMNS!r})
tuner = SoftPrompt.for_task(task, prompt_length=3)
options = {STEPS!r} | dict(devices=2, strategy="ddp", use_distributed_sampler={sampler})
trainer = L.Trainer(
    **options, default_root_dir={str(tmp_path)!r}, logger=False,
    callbacks=[*measures(), best := BestPrompt()],
)
trainer.fit(tuner, task)
trainer.test(tuner, task, ckpt_path="best", verbose=False)
""")
    ran = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=PATIENCE)
    if sampler:
        assert "use_distributed_sampler" in ran.stderr
        assert ran.returncode != 0
        return
    assert ran.returncode == 0, ran.stderr
    (run,) = (tmp_path / "lightning_logs").iterdir()  # one folder for both
    assert {"test/accuracy", "val/perplexity"} <= load_prompt(run).metrics.keys()


@pytest.mark.parametrize("kind", ["dataset", "splits", "named"])
def test_data_of_datasets(kind: str, lm: FrozenLM, frame: pd.DataFrame):
    """One table, which is cut, or one a split, under the names that `datasets` has for them."""
    table = datasets.Dataset.from_pandas(frame)
    data = {
        "dataset": table,
        "splits": datasets.DatasetDict({"train": table, "test": table}),
        "named": {"train": table, "validation": table.select(range(4))},
    }[kind]
    words = {name: f" {name[0]}" for name in sorted(frame["queue"].unique())}
    task = TextClassification(
        lm, "{prompt} {text}", words, data=data, text_column="body", label_column="queue"
    )
    rows = task.rows("train")
    texts = [row["text"] for row in rows.rows]
    assert set(texts) <= set(frame["body"])
    assert len(rows) > 20
    labels = dict(zip(frame["body"], frame["queue"], strict=True))
    assert [task.verbalizer.labels[i] for i in rows.labels] == [labels[text] for text in texts]
