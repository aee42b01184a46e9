"""Whole studies of the tiny model, in this process: what is run, kept, stopped and gone on with."""

import os
import signal
from pathlib import Path

import optuna
import pytest
import yaml
from optuna.trial import TrialState

from lightning_prompts.cli.app import PromptCLI
from lightning_prompts.cli.main import main
from lightning_prompts.files.atomic_files import write_text
from lightning_prompts.files.errors import PromptError
from lightning_prompts.runs.reading import read_run
from lightning_prompts.runs.record import RunRecord
from lightning_prompts.studies.needs import limited
from lightning_prompts.studies.running import run
from lightning_prompts.studies.storage import planned
from lightning_prompts.studies.worker import Worker

from .conftest import opened


def states(config) -> list[TrialState]:
    return [trial.state for trial in planned(opened(config))]


@pytest.mark.slow
def test_a_grid_is_run_once_and_gone_on_with(study_file, capsys):
    args = ["study", "--config", str(study_file())]
    assert main(args) is None
    said = capsys.readouterr()
    assert "Study tiny: 3 settings x 2 seeds = 6 runs." in said.err
    assert "All 6 runs: about" in said.err
    assert "5 of 6 runs done, about" in said.err
    assert "pez, perplexity_weight 0.3" in " ".join(said.out.split())
    folder = Path("logs/studies/tiny")
    content = yaml.safe_load((folder / "study.yaml").read_text())
    assert content["study"]["name"] == "tiny"
    records = {}
    for number in range(6):
        records[number] = read_run(folder / "trials" / f"{number:04d}")
        assert records[number].metrics.keys() >= {"val/accuracy", "test/accuracy"}
    assert [(r.tuner, r.perplexity_weight, r.seed) for r in records.values()] == [
        *(("SoftPrompt", 0.0, 0), ("PEZ", 0.0, 0), ("PEZ", 0.3, 0)),
        *(("SoftPrompt", 0.0, 1), ("PEZ", 0.0, 1), ("PEZ", 0.3, 1)),
    ]

    # The storage alone has all of it.
    journal = optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(str(folder / "journal.log"))
    )
    study = optuna.load_study(study_name="tiny", storage=journal)
    assert study.user_attrs["config"] == content
    assert set(study.user_attrs["estimate"]) == {"soft", "pez"}
    for trial in study.trials:
        assert trial.state == TrialState.COMPLETE
        record = RunRecord.from_json(trial.user_attrs["record"])
        assert record == records[trial.number]
        assert trial.values == [record.metrics[k] for k in ("val/accuracy", "val/log_perplexity")]
        assert trial.user_attrs["settings"]["seed_everything"] == record.seed
        assert trial.user_attrs["seconds"] > 0

    # Again: nothing is repeated; with one seed more, only that is run.
    before = (folder / "trials" / "0000" / "prompt.json").stat().st_mtime_ns
    main(args)
    assert len(list((folder / "trials").iterdir())) == 6
    main([*args, "--study.seeds", "[0, 1, 2]"])
    assert len(list((folder / "trials").iterdir())) == 9
    assert (folder / "trials" / "0000" / "prompt.json").stat().st_mtime_ns == before


def test_a_worker_loads_the_model_once(configure):
    config = configure()
    worker = Worker(config, opened(config))
    worker.work()
    assert states(config) == [TrialState.COMPLETE] * 6
    assert worker.lm.loaded == 1


@pytest.mark.slow
def test_a_study_is_the_same_as_its_runs_by_hand(configure):
    config = configure(study={"name": "tiny", "test": False})
    Worker(config, opened(config)).work()
    own = read_run(config.folder / "trials" / "0002")
    assert "test/accuracy" not in own.metrics
    options = [f"--{name}={value}" for name, value in config.set.items()]
    files = ["--config", "configs/task/demo.yaml", "--config", "configs/tuner/pez.yaml"]
    main(["fit", *files, *options, "--model.perplexity_weight=0.3"], show=False)
    by_hand = read_run(Path("logs/pez-demo/version_0"))
    assert (own.ids, own.step) == (by_hand.ids, by_hand.step)
    assert own.metrics == by_hand.metrics
    assert own.baselines == by_hand.baselines


@pytest.mark.slow
def test_a_failed_run_is_told_and_the_study_goes_on(configure, capsys):
    config = configure(space={"model.prompt_length": [3, 10_000]}, study={"name": "tiny"})
    run(config, 1, False)
    trials = planned(opened(config))
    lengths = [t.user_attrs["settings"]["model.prompt_length"] for t in trials]
    for trial, length in zip(trials, lengths, strict=True):
        failed = length == 10_000
        assert trial.state == (TrialState.FAIL if failed else TrialState.COMPLETE)
        if failed:
            assert "prompt" in trial.user_attrs["error"]
            assert "\n" not in trial.user_attrs["error"]
            folder = config.folder / "trials" / f"{trial.number:04d}"
            assert "Traceback" in (folder / "error.txt").read_text()
    said = capsys.readouterr()
    assert "3 of 6 runs failed" in said.out
    assert "--retry_failed tries them again" in " ".join(said.out.split())


@pytest.mark.slow
def test_failed_runs_are_tried_again(configure, monkeypatch, capsys):
    config = configure(study={"name": "tiny"})
    original = PromptCLI.start

    def start(cli: PromptCLI) -> None:
        """As it is, but the second run finds the disk full."""
        if cli.folder == config.folder / "trials" / "0001":
            raise OSError(28, "No space left on device")
        original(cli)

    monkeypatch.setattr(PromptCLI, "start", start)
    run(config, 1)
    assert states(config) == [TrialState.COMPLETE, TrialState.FAIL, TrialState.COMPLETE]
    run(config, 1)
    assert TrialState.FAIL in states(config)  # only where it is asked for
    run(config, 1, again=True)
    assert "Trying 1 failed run again." in capsys.readouterr().err
    assert states(config) == [TrialState.COMPLETE] * 3
    assert [trial.number for trial in planned(opened(config))] == [0, 2, 3]
    again = planned(opened(config))[-1]
    assert again.params == opened(config).trials[1].params
    main(["report", "logs/studies/tiny"])
    assert "failed" not in capsys.readouterr().out


@pytest.mark.slow
def test_where_all_fail_the_exit_status_is_1(configure, monkeypatch):
    config = configure({"study.objectives": "{val/nothing: maximize}"})
    with pytest.raises(SystemExit) as stop:
        run(config, 1, False)
    assert stop.value.code == 1
    error = planned(opened(config))[0].user_attrs["error"]
    assert error.startswith("study.objectives.val/nothing was not measured; there are val/acc")


def test_missing_test_rows_are_said_before_any_training(configure, review_folder, tmp_path: Path):
    for split in ("train", "validation"):
        text = (review_folder / f"{split}.jsonl").read_text()
        write_text(tmp_path / "no_test" / f"{split}.jsonl", text)
    config = configure({"data.path": str(tmp_path / "no_test")})
    with pytest.raises(PromptError, match=r"has no test file.*leave the tests out: --study.test"):
        run(config, 1, False)
    assert not (config.folder / "trials").exists()


@pytest.mark.slow
@pytest.mark.parametrize("hook", ["on_train_batch_end", "on_train_end"])
def test_a_stopped_study_goes_on_with_the_same_outcome(configure, monkeypatch, hook: str):
    straight = configure({"study.name": "straight"})
    Worker(straight, opened(straight)).work()
    config = configure({"study.name": "stopped"})
    original = PromptCLI.start

    def start(cli: PromptCLI) -> None:
        """As it is, but a signal comes at the third step of the second run, or at its end."""
        if cli.folder == config.folder / "trials" / "0001":
            from lightning.pytorch import Callback

            def come(trainer, *args) -> None:
                if hook == "on_train_end" or trainer.global_step == 3:
                    os.kill(os.getpid(), signal.SIGTERM)

            stop = Callback()
            setattr(stop, hook, come)
            cli.trainer.callbacks.insert(0, stop)
        original(cli)

    monkeypatch.setattr(PromptCLI, "start", start)
    with pytest.raises(SystemExit) as stop:
        Worker(config, opened(config)).work()
    assert stop.value.code == 128 + signal.SIGTERM
    waiting = [TrialState.WAITING] * 5
    assert states(config) == [TrialState.COMPLETE, *waiting]
    monkeypatch.setattr(PromptCLI, "start", original)
    begun = (config.folder / "trials" / "0001").stat().st_ino
    Worker(config, opened(config)).work()
    assert begun == (config.folder / "trials" / "0001").stat().st_ino  # not begun anew
    assert states(config) == [TrialState.COMPLETE] * 6
    for one, other in zip(planned(opened(straight)), planned(opened(config)), strict=True):
        assert one.values == other.values
        assert one.params == other.params
        left, right = (t.user_attrs["record"] for t in (one, other))
        for name in ("ids", "metrics", "correct", "step", "steps", "baselines", "test_baselines"):
            assert left[name] == right[name], name


@pytest.mark.slow
def test_a_damaged_checkpoint_is_begun_anew(configure):
    config = configure(study={"name": "tiny"})
    folder = config.folder / "trials" / "0000"
    write_text(folder / "config.yaml", "{}")
    write_text(folder / "checkpoints" / "last.ckpt", "half of it")
    Worker(config, opened(config)).work()
    assert states(config) == [TrialState.COMPLETE] * 3


@pytest.mark.slow
def test_a_search_gives_all_seeds_the_same_values(configure):
    config = configure(
        study={"name": "tiny", "sampler": "tpe", "trials": 3, "seeds": 2, "test": False},
        space={"model.optimizer.lr": {"low": 1.0e-3, "high": 0.1, "log": True}},
    )
    Worker(config, opened(config)).work()
    trials = planned(opened(config))
    assert [t.state for t in trials] == [TrialState.COMPLETE] * 6
    drawn = [t.params for t in trials]
    assert drawn[0::2] == drawn[1::2]
    assert len({params["model.optimizer.lr"] for params in drawn}) == 3
    assert [t.user_attrs["seed"] for t in trials] == [0, 1] * 3
    for trial in trials:
        record = RunRecord.from_json(trial.user_attrs["record"])
        assert record.settings["model.optimizer.lr"] == pytest.approx(
            trial.params["model.optimizer.lr"]
        )


@pytest.mark.parametrize("sampler", ["random", "nsga2"])
def test_other_samplers_draw(configure, sampler: str):
    config = configure(
        study={"name": "tiny", "sampler": sampler, "trials": 3, "test": False},
        space={"model.optimizer.lr": {"low": 1.0e-3, "high": 0.1}},
    )
    Worker(config, opened(config)).work()
    rates = {t.params["model.optimizer.lr"] for t in planned(opened(config))}
    assert len(rates) == 3


def test_a_hopeless_run_is_pruned_and_kept(configure, monkeypatch):
    config = configure(
        study={
            **{"name": "tiny", "objectives": {"val/loss": "minimize"}},
            **{"pruner": "median", "seeds": 1},
        }
    )
    monkeypatch.setattr(optuna.Trial, "should_prune", lambda trial: trial.number == 1)
    Worker(config, opened(config)).work()
    assert states(config) == [TrialState.COMPLETE, TrialState.PRUNED, TrialState.COMPLETE]
    pruned = planned(opened(config))[1]
    assert list(pruned.intermediate_values) == [2]
    assert RunRecord.from_json(pruned.user_attrs["record"]).steps == 2


def test_limits_reach_the_runs(configure):
    config = limited(configure(study={"name": "tiny"}, limits={"trainer.max_steps": 2}))
    Worker(config, opened(config)).work()
    assert read_run(config.folder / "trials" / "0000").steps == 2
