"""Two processes choose the prompts that one process chooses."""

import json
from pathlib import Path

import pytest
import torch

from lightning_prompts.cli.main import main
from tests.tiny import save_model
from tests.two_processes import assert_two_agree

STEPS = 6
# What a process writes down beside metrics and prompts.
SEEN = '"beam": module.beam, "tokens": int(module.forward_tokens),'


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "more"),
    [
        *[("{text}{prompt}", ""), ("{prompt} {text} It was", "")],
        *[("{text}{prompt}", "also_lm"), ("{text}{prompt}", "match")],
    ],
)
def test_two_processes(
    text: str, more: str, lm_folder: Path, review_folder: Path, tmp_path: Path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    args = [
        *("fit", "--config", "configs/tuner/guided_search.yaml"),
        *("--config", "configs/task/demo.yaml"),
        *("--lm.name", str(lm_folder), "--data.path", str(review_folder)),
        *("--data.template", text, "--trainer.precision", "32-true"),
        # 24 rows: of the third batch of an epoch each process has half as well.
        *("--model.prompt_length", "5", "--model.candidates", "16", "--model.race", "[3,6]"),
        *("--trainer.max_steps", str(STEPS), "--trainer.val_check_interval", "3"),
        *("--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"),
    ]
    if more == "also_lm":
        save_model(tmp_path / "other", seed=1, words=("film", "the", " terrible", " great"))
        args += ["--model.also_lm", str(tmp_path / "other")]
    if more == "match":
        rows = torch.randn(6, 16, generator=torch.Generator().manual_seed(0)) * 0.5
        torch.save(rows, tmp_path / "vectors.pt")
        args += ["--model.match", str(tmp_path / "vectors.pt")]
    if more:  # the third batch of an epoch is one row, which the second process borrows
        args += ["--data.train_rows", "21"]
    moments = [("train", step) for step in range(1, STEPS + 1)] + [("val", 3), ("val", 6)]
    assert_two_agree([*args, "--data.batch_size", "5"], tmp_path, SEEN, moments)

    alone = main([*args, "--data.batch_size", "10", "--experiment", "alone"], show=False)
    assert alone.trainer.global_step == STEPS
    logs = tmp_path / "logs"
    runs = logs / "guided-demo" / "version_0", logs / "alone" / "version_0"
    own, expected = (
        torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in runs
    )
    assert own["search"] == expected["search"]  # the beam
    assert own["forward_tokens"] == expected["forward_tokens"] > 0
    assert torch.equal(own["state_dict"]["token_ids"], expected["state_dict"]["token_ids"])
    assert torch.equal(own["prompts"]["ids"], expected["prompts"]["ids"])
    numbers = (content["prompts"]["numbers"] for content in (own, expected))
    torch.testing.assert_close(*numbers, rtol=0, atol=1e-5)
    metrics = [json.loads((run / "prompt.json").read_text())["metrics"] for run in runs]
    assert metrics[0] == pytest.approx(metrics[1], abs=1e-5)
