"""The panel at evaluations: when, which names, on which rows, and by whom it is read."""

import json
import logging
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback

from lightning_prompts.callbacks import Scrutability
from lightning_prompts.callbacks import scrutability_panel as module
from lightning_prompts.cli.main import main
from lightning_prompts.files.errors import PromptError
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.metrics.panel import measures
from lightning_prompts.metrics.panel.answered import AnsweredRows
from lightning_prompts.metrics.panel.likelihood import grammar, natural_percentile
from lightning_prompts.metrics.panel.simulatability import simulatability
from lightning_prompts.metrics.panel.task_identification import task_identification
from lightning_prompts.metrics.panel.token_effects import token_effects
from lightning_prompts.tasks.classification import TextClassification
from lightning_prompts.tuners import PromptTuner, SoftPrompt
from tests.tiny import save_model

from .conftest import MakeTask, learned, quick_trainer, read, validated, written

REGISTERS = (
    tuple(
        f"The {what} was late{end}" for what in ("bus", "boat", "man") for end in (".", " again.")
    ),
    ("I am at home.", "Nobody sang."),
)
TASK = {
    *("task_rank", "task_reciprocal_rank", "task_margin"),
    *("task_margin_over_shuffled", "task_margin_over_answers"),
}
CHEAP = {*TASK, "natural_percentile", "grammar", "repetition", "real_words", "copied_run"}
EFFECTS = {"effect_of_tokens", "effect_of_order", "filler"}
SIMULATED = {"simulatability", "simulatability_kappa"}
PERPLEXITY = {"log_perplexity", "perplexity"}


@pytest.fixture(autouse=True)
def sentences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightning_prompts.files.sentences.registers", lambda: REGISTERS)


@pytest.fixture
def wide(tmp_path: Path) -> FrozenLM:
    """Another reader, with positions for a description of the job."""
    save_model(tmp_path / "wide", seed=3, positions=512)
    return FrozenLM(str(tmp_path / "wide"))


def measured(
    tuner: PromptTuner, task: TextClassification, *callbacks: Callback, **kwargs: object
) -> dict[str, float]:
    """All that one test logs, without its prefix."""
    trainer = quick_trainer(callbacks=list(callbacks), **kwargs)
    trainer.test(tuner, datamodule=task, verbose=False)
    found = trainer.callback_metrics.items()
    return {name.removeprefix("test/"): float(value) for name, value in found}


def only(found: dict[str, float], names: set[str]) -> set[str]:
    return {name.removeprefix("val/") for name in found} & names


def test_by_default_what_is_valid_in_tests_alone(make_task: MakeTask, lm: FrozenLM):
    task = make_task(task_kind="sentiment")
    tuner, every = written(task, " a warm film"), CHEAP | EFFECTS | SIMULATED
    assert only(validated(tuner, task, Scrutability()), every) == set()
    got = measured(tuner, task, Scrutability())
    ids = lm.encode(" a warm film")
    assert only(got, every) == {"natural_percentile", "grammar", "copied_run"}
    assert got["natural_percentile"] == pytest.approx(natural_percentile(lm, ids))
    assert got["grammar"] == pytest.approx(grammar(lm, ids))


def test_all_that_need_no_rows(make_task: MakeTask, lm: FrozenLM):
    task = make_task(task_kind="sentiment")
    got = measured(written(task, " a warm film"), task, Scrutability(panel=[*measures.CHEAP]))
    ids = lm.encode(" a warm film")
    assert only(got, CHEAP | EFFECTS | SIMULATED) == CHEAP
    expected = task_identification(lm, ids, "sentiment", [" terrible", " great"])
    assert {name: got[name] for name in TASK} == pytest.approx(asdict(expected), abs=1e-6)
    assert got["repetition"] == pytest.approx(1 - len(set(ids)) / len(ids))


def test_in_a_fit_nothing_by_default(make_task: MakeTask):
    task = make_task()
    trainer = quick_trainer(callbacks=[Scrutability()], max_steps=1)
    trainer.fit(learned(SoftPrompt, task), datamodule=task)
    assert only(dict(trainer.callback_metrics), CHEAP | PERPLEXITY) == PERPLEXITY


def test_in_a_fit_what_is_named(make_task: MakeTask):
    task = make_task()
    callback = Scrutability(panel=["grammar", "token_effects"])
    trainer = quick_trainer(callbacks=[callback], max_steps=2, val_check_interval=1)
    trainer.fit(learned(SoftPrompt, task), datamodule=task)
    found = only(dict(trainer.callback_metrics), CHEAP | EFFECTS | SIMULATED)
    assert found == {"grammar", *EFFECTS}
    assert only(measured(learned(SoftPrompt, task), task, callback), CHEAP) == {"grammar"}


def test_an_empty_list_is_none(make_task: MakeTask):
    task = make_task()
    got = measured(written(task, " a"), task, Scrutability(panel=[]))
    assert only(got, CHEAP | PERPLEXITY) == PERPLEXITY


def test_all_of_them(make_task: MakeTask):
    task = make_task(task_kind="sentiment")
    got = measured(written(task, " a warm film"), task, Scrutability(panel="all"))
    of_rows = EFFECTS | SIMULATED
    assert only(got, CHEAP | of_rows) >= CHEAP | EFFECTS
    for name in of_rows & set(got):
        assert got[f"{name}_low"] <= got[f"{name}_high"]


def test_an_unknown_name_names_the_known_ones():
    with pytest.raises(
        PromptError,
        match=r"^Scrutability\(panel=\.\.\.\) names 'beauty', which is no measure; give some of "
        r"natural_percentile, task_identification, .*, simulatability\.$",
    ):
        Scrutability(panel=["beauty"])


def test_on_the_command_line(
    lm_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.chdir(tmp_path)
    args = (
        *("fit", "--lm.name", str(lm_folder), "--data", "Demo", "--experiment", "e"),
        *("--model", "ManualPrompt", "--model.text= a film", "--trainer.precision", "32-true"),
        *("--data.validation_rows", "8", "--data.test_rows", "8", "--data.train_rows", "30"),
    )
    with pytest.raises(SystemExit) as stop:
        main([*args, "--scrutability.panel", "[beauty]"])
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert "--scrutability.panel names 'beauty', which is no measure; give some of" in said
    assert "Traceback" not in said

    main([*args, "--scrutability.panel", "all"], run=False, show=False)
    main([*args, "--scrutability.panel", "[grammar]"])
    run = Path("logs/e/version_0")
    (validation,) = (run / "history.jsonl").read_text().splitlines()
    assert "val/grammar" in json.loads(validation)["metrics"]
    assert "val/grammar" in json.loads((run / "prompt.json").read_text())["metrics"]
    main(["test", "--config", str(run / "config.yaml"), "--ckpt_path", "best"])
    assert "test/grammar" in json.loads((run / "test.json").read_text())["metrics"]


def test_a_scorer_reads_the_text_by_its_own_tokens(make_task: MakeTask, wide: FrozenLM):
    """A prompt whose tokens are not those of its text."""
    task = make_task(task_kind="sentiment")
    tuner = written(task, " great")
    ids = [i for character in " great" for i in task.lm.encode(character)]
    tuner.__dict__["hard_prompt"] = lambda: torch.tensor(ids)
    got = measured(tuner, task, Scrutability(scorer=wide.name))
    read_by = wide.encode(" great")
    assert (len(ids), len(read_by)) == (6, 1)
    assert got["grammar"] == 0.5
    assert got["natural_percentile"] == pytest.approx(natural_percentile(wide, read_by))
    own = measured(tuner, task, Scrutability())
    assert own["natural_percentile"] == pytest.approx(natural_percentile(task.lm, ids))


def answered(task: TextClassification, folder: Path, tuner: PromptTuner) -> AnsweredRows:
    """All test rows, one a batch, with what the prompt in use answers."""
    from lightning_prompts.lm.batch import collate

    rows = [*zip(*read(folder, "test"), strict=True)]
    batches = [
        collate([task.template.encode({"text": text})], [label], [i])
        for i, (text, label) in enumerate(rows)
    ]
    found = [
        tuner.class_logits(tuner.answer_hidden(tuner.prompt_embeddings(), batch)).argmax(-1)
        for batch in batches
    ]
    train, _ = read(folder, "train")
    return AnsweredRows(
        *(task.lm, task.template, task.verbalizer, tuner.hard_prompt().tolist()),
        batches=batches,
        texts=[text for text, _ in rows],
        answers=torch.cat(found),
        unlabelled=[collate([task.template.encode({"text": t})], [-1], [0]) for t in train],
        unlabelled_texts=train,
    )


@pytest.mark.parametrize("kind", [SoftPrompt, None])
def test_costly_ones_are_of_the_test_rows(
    kind: type[SoftPrompt] | None, make_task: MakeTask, review_folder: Path, wide: FrozenLM
):
    task = make_task(val_batch_size=3)
    tuner = written(task, " a film") if kind is None else learned(kind, task)
    callback = Scrutability(scorer=wide.name, panel=["token_effects", "simulatability"])
    got = measured(tuner, task, callback)
    assert only(got, CHEAP | EFFECTS | SIMULATED) == EFFECTS | SIMULATED
    rows = answered(task, review_folder, tuner)
    effects = token_effects(rows)
    for name in EFFECTS:
        assert got[name] == pytest.approx(getattr(effects, name), abs=1e-6)
    ids = wide.encode(tuner.lm.decode(rows.prompt))
    simulated = simulatability(wide, ids, rows)
    for name in SIMULATED:
        assert got[name] == pytest.approx(getattr(simulated, name))


def test_some_of_many_rows(make_task: MakeTask, monkeypatch: pytest.MonkeyPatch):
    task, seen = make_task(val_batch_size=3), []
    monkeypatch.setattr(module, "ROWS", 4)
    run = module.scrutability_panel

    def spied(lm: FrozenLM, prompt: list[int], names: list[str], facts: object, **kwargs: object):
        seen.append(torch.cat([facts.rows.answers]))  # type: ignore[attr-defined]
        seen.append(facts.rows.labels)  # type: ignore[attr-defined]
        return run(lm, prompt, names, facts, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "scrutability_panel", spied)
    measured(written(task, " a"), task, Scrutability(panel=["token_effects"]))
    answers, labels = seen
    assert len(answers) == len(labels) == 4
    assert labels.sort().values.tolist() == [0, 0, 1, 1]


@pytest.fixture
def no_training_rows(make_task: MakeTask, review_folder: Path) -> TextClassification:
    return make_task(path=None, test=str(review_folder / "test.jsonl"))


def test_what_is_left_out_is_said_once(
    no_training_rows: TextClassification, caplog: pytest.LogCaptureFixture
):
    task = no_training_rows
    callback = Scrutability(
        panel=["repetition", "task_identification", "copied_run", "token_effects"]
    )
    with caplog.at_level(logging.INFO, logger=module.__name__):
        for _ in range(2):
            got = measured(written(task, " a"), task, callback)
            assert only(got, CHEAP | EFFECTS) == {"repetition"}
    said = [record.getMessage() for record in caplog.records if record.name == module.__name__]
    assert len(said) == len(set(said)) == 4
    assert "recalibrate on training texts (not their labels), and there are none." in said[0]
    assert said[1].startswith("task_identification is left out: which of the described tasks")
    assert said[2] == "copied_run is left out: there are no training texts."


def test_tasks_say_what_they_are():
    from lightning_prompts import SST2, BoolQ, Demo, Yelp, YelpTransfer

    kinds = [kind.kind for kind in (SST2, BoolQ, Demo, Yelp, YelpTransfer, TextClassification)]
    assert kinds == ["sentiment", "yes_no", "sentiment", "sentiment", "rewriting", None]
