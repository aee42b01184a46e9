"""The demo runs its tuners with one model, shows each one's numbers, and says what they tell."""

import json
import signal
from pathlib import Path

import pytest

from lightning_prompts.cli.evaluation import Evaluation
from lightning_prompts.cli.main import main
from lightning_prompts.studies.demo import lesson
from lightning_prompts.tuners import SoftPrompt
from tests.records import make_record

TUNERS = ("manual", "soft", "pez", "guided")


def test_rows_come_one_by_one_as_one_table(
    lm_folder: Path,
    review_folder: Path,
    tmp_path: Path,
    monkeypatch,
    capsys,
    models_read: list[int],
):
    monkeypatch.chdir(tmp_path)
    args = ["--lm.name", str(lm_folder), "--data.path", str(review_folder)]
    # The user's options win: two steps instead of the demo's own.
    args += ["--trainer.max_steps", "2", "--trainer.val_check_interval", "1"]
    assert main(["demo", *args, "--trainer.enable_progress_bar", "false"]) is None
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert models_read == [1, 1, 1, 1]  # one model for all four

    names = [line[:28].strip() for line in lines if line[:28].strip() and line.count("0.") >= 2]
    rows = [
        *("majority", "no prompt", "no prompt, calibrated", "written prompt (20 tokens)"),
        *("SoftPrompt (5 vectors)", "its nearest tokens", "PEZ (5 tokens)"),
    ]
    assert names[:7] == rows
    assert out.count("macro-F1") == 1, "nothing is shown twice"
    assert names[7].startswith("GuidedSearch (")
    assert len({len(line) for line in lines[:11]}) == 1, "the parts are one table's"

    for tuner in TUNERS:
        run = Path(f"logs/{tuner}-demo/version_0")
        prompt = json.loads((run / "prompt.json").read_text())
        assert prompt["template"] == "{text}{prompt}"
        assert out.count(f"{prompt['metrics']['val/accuracy']:.3f}") >= 1
        assert tuner == "manual" or any(line.rstrip().endswith(f"Files: {run}") for line in lines)
    assert out.count("  2 steps. ") == 3
    page = Path("logs/demo-report/report.html")
    assert lines[-1] == f"Open in a browser: {page}"
    written = page.read_text(encoding="utf-8")
    assert written.count("<img ") >= 4
    assert all(name in written for name in ("ManualPrompt", "SoftPrompt", "PEZ", "GuidedSearch"))
    assert "the validation rows that chose each prompt also score it" in written


def test_a_signal_ends_with_a_word(
    lm_folder: Path, review_folder: Path, tmp_path: Path, monkeypatch, capsys
):
    """The soft prompt is stopped by what Ctrl-C sends, within its first step."""
    monkeypatch.chdir(tmp_path)
    step = SoftPrompt.training_step

    def interrupted(self: SoftPrompt, *args: object) -> object:
        signal.raise_signal(signal.SIGINT)
        return step(self, *args)

    monkeypatch.setattr(SoftPrompt, "training_step", interrupted)
    args = ["--lm.name", str(lm_folder), "--data.path", str(review_folder)]
    with pytest.raises(SystemExit) as stop:
        main(["demo", *args, "--trainer.enable_progress_bar", "false"])
    assert stop.value.code == 130
    said = capsys.readouterr().err
    assert "Stopped at the vectors, prompt 2 of 4. Those before it: lightning-prompts re" in said
    assert said.splitlines()[-1].endswith("logs/manual-demo/version_0")


def test_a_missing_model_ends_the_demo(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SystemExit) as stop:
        main(["demo"])
    assert stop.value.code == 2
    assert "pip install" in capsys.readouterr().err


def evaluation(**metrics: float) -> Evaluation:
    baselines = {"no prompt, calibrated": {"accuracy": 0.69}}
    return Evaluation(make_record(in_use="vectors"), metrics, baselines, "val", rows=120)


def found(written: float, vectors: float, tokens: float, searched: float) -> dict[str, Evaluation]:
    return {
        "manual": evaluation(accuracy=written),
        "soft": evaluation(accuracy=vectors, hard_accuracy=tokens),
        "pez": evaluation(accuracy=0.65),
        "guided_search": evaluation(accuracy=searched),
    }


def test_the_lesson_names_what_is_above_the_empty_prompt_and_what_is_not():
    assert lesson(found(0.81, 0.88, 0.51, 0.72)) == [
        "Above the calibrated empty prompt (0.690): the written text (0.810), the vectors (0.880).",
        "Not above it by more than chance on 120 rows: PEZ's tokens (0.650), the searched text "
        "(0.720); train for longer with --trainer.max_steps.",
        "But the vectors' nearest tokens (0.510) do not act like them: what was learned cannot be "
        "read off them.",
    ]


def test_the_lesson_where_nothing_is_above():
    above, below, tokens = lesson(found(0.7, 0.7, 0.51, 0.7))
    assert above == "Above the calibrated empty prompt (0.690): none of them."
    assert "the vectors (0.700), PEZ's tokens (0.650)" in below
    assert tokens.endswith("act like them shows once the vectors are above it.")


def test_the_lesson_where_tokens_stand_for_vectors():
    above, *_, tokens = lesson(found(0.81, 0.88, 0.87, 0.82))
    assert above.endswith("the vectors (0.880), the searched text (0.820).")
    assert tokens.endswith("act like them: here the tokens stand for the vectors.")


def test_a_written_text_is_not_trained_for_longer():
    of_all = found(0.70, 0.88, 0.87, 0.82) | {"pez": evaluation(accuracy=0.8)}
    assert lesson(of_all)[1].endswith("on 120 rows: the written text (0.700).")
