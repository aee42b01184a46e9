"""What commands say beside their tables: which rows were cut, where files lie, what is shown."""

import json
from pathlib import Path

import pytest

from lightning_prompts.cli import table
from lightning_prompts.cli.app import PromptCLI
from lightning_prompts.cli.main import main

RUN = Path("logs/soft-demo/version_0")
GOES_ON = ("--config", str(RUN / "config.yaml"), "--ckpt_path")


@pytest.fixture
def fit(lm_folder: Path, review_folder: Path, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(*args: str) -> PromptCLI:
        return main(
            [
                *("fit", "--config", "configs/tuner/soft.yaml", "--config"),
                *("configs/task/demo.yaml", "--lm.name", str(lm_folder), "--data.batch_size", "8"),
                *("--data.path", str(review_folder), "--data.max_tokens", "40"),
                *("--trainer.max_steps", "2", "--trainer.enable_progress_bar", "false", *args),
            ]
        )

    return run


def cut(cli: PromptCLI, split: str, longest: int | None = None) -> int:
    """Rows that were cut among the longest, counted over the examples themselves."""
    examples = cli.datamodule._encoded[split].examples
    order = sorted(examples, key=lambda e: -len(e.before_ids) - len(e.after_ids))
    return sum(example.cut for example in order[:longest])


def test_rows_that_were_cut_are_counted_among_those_scored(fit, capsys):
    cli = fit("--trainer.limit_val_batches", "1", "--data.val_batch_size", "4")
    assert 4 == cut(cli, "validation", 4) < cut(cli, "validation")
    said = " ".join(capsys.readouterr().out.split())
    assert "the longest 4 of 10 rows (4 cut to fit), " in said
    main(["fit", *GOES_ON, "last"])  # nothing is scored, and the rows are those of prompt.json
    said = " ".join(capsys.readouterr().out.split())
    assert "the longest 4 of 10 rows (4 cut to fit), " in said
    assert "Nothing left to train: the checkpoint is at step 2 and --trainer.max_steps is 2" in said

    cli = main(["predict", *GOES_ON, "last"])
    number = cut(cli, "predict")
    assert 0 < number < 8
    file = RUN / "predictions.jsonl"
    assert f"Predictions: {file} (8 rows, {number} cut to fit)\n" in capsys.readouterr().out
    cli = main(["predict", *GOES_ON, "last", "--data.max_tokens", "200"])
    assert f"Predictions: {file} (8 rows)\n" in capsys.readouterr().out


def test_a_resumed_run_shows_its_best_in_the_projector(fit, capsys):
    fit("--model.optimizer.lr", "0")  # the first validation is the best
    folder = RUN / f"{2:05d}" / "prompt"
    first = {path.name: path.read_text() for path in folder.iterdir()}
    (folder / "tensors.tsv").write_text("old")
    capsys.readouterr()
    main(["fit", *GOES_ON, "last", "--trainer.max_steps", "3"], show=False)
    # The writer printed: "warning: Embedding dir exists, did you set global_step ...?"
    assert capsys.readouterr().out == ""
    assert {path.name: path.read_text() for path in folder.iterdir()} == first
    shown = (RUN / "projector_config.pbtxt").read_text()
    assert f'"{2:05d}/prompt/tensors.tsv"' in shown
    assert json.loads((RUN / "prompt.json").read_text())["step"] == 2


@pytest.mark.slow
def test_ids_are_named_where_they_are(fit, monkeypatch):
    """prompt.json is of the best prompt, and another one may be validated."""
    shown = []
    monkeypatch.setattr(table, "show", lambda evaluation, *args: shown.append(evaluation))
    fit()
    path = RUN / "prompt.json"
    content = json.loads(path.read_text())
    main(["validate", *GOES_ON, "best"])
    path.write_text(json.dumps({**content, "ids": content["ids"][::-1]}))
    main(["validate", *GOES_ON, "best"])
    path.unlink()
    main(["validate", *GOES_ON, "best"])
    assert [evaluation.saved for evaluation in shown] == [True, True, False, False]
