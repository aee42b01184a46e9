"""Whole studies of the tiny model, in this process: what is run, kept, stopped and gone on with."""

import os
import signal
from pathlib import Path

import optuna
import pytest
import torch
import yaml
from optuna.trial import TrialState

from lightning_prompts.cli import PromptCLI, main
from lightning_prompts.errors import PromptError
from lightning_prompts.studies import running
from lightning_prompts.studies.claims import Claims
from lightning_prompts.studies.estimate import Cost
from lightning_prompts.studies.limits import limited
from lightning_prompts.studies.record import from_json, read_run
from lightning_prompts.studies.running import run
from lightning_prompts.studies.storage import open_storage, open_study, planned
from lightning_prompts.studies.worker import Worker
from lightning_prompts.whole_files import write_text


def opened(config) -> optuna.Study:
    return open_study(config, open_storage(config))


def states(config) -> list[TrialState]:
    return [trial.state for trial in planned(opened(config))]


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
        record = from_json(trial.user_attrs["record"])
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
    assert "Trying 1 failed runs again." in capsys.readouterr().err
    assert states(config) == [TrialState.COMPLETE] * 3
    assert [trial.number for trial in planned(opened(config))] == [0, 2, 3]
    again = planned(opened(config))[-1]
    assert again.params == opened(config).trials[1].params
    main(["report", "logs/studies/tiny"])
    assert "failed" not in capsys.readouterr().out


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


def test_a_stopped_study_goes_on_with_the_same_outcome(configure, monkeypatch):
    straight = configure({"study.name": "straight"})
    Worker(straight, opened(straight)).work()
    config = configure({"study.name": "stopped"})
    original = PromptCLI.start

    def start(cli: PromptCLI) -> None:
        """As it is, but a signal comes at the third step of the second run."""
        if cli.folder == config.folder / "trials" / "0001":
            from lightning.pytorch import Callback

            class Stop(Callback):
                def on_train_batch_end(self, trainer, *args):
                    if trainer.global_step == 3:
                        os.kill(os.getpid(), signal.SIGTERM)

            cli.trainer.callbacks.insert(0, Stop())
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


def test_a_damaged_checkpoint_is_begun_anew(configure):
    config = configure(study={"name": "tiny"})
    folder = config.folder / "trials" / "0000"
    write_text(folder / "config.yaml", "{}")
    write_text(folder / "checkpoints" / "last.ckpt", "half of it")
    Worker(config, opened(config)).work()
    assert states(config) == [TrialState.COMPLETE] * 3


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
        record = from_json(trial.user_attrs["record"])
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
    assert from_json(pruned.user_attrs["record"]).steps == 2


def test_another_configuration_under_the_same_name_is_refused(configure):
    config = configure()
    with Claims(opened(config), config.folder) as claims:
        assert claims.next() is not None
    with pytest.raises(PromptError, match=r"began with override.trainer.max_steps None, .* '9'"):
        opened(configure({"trainer.max_steps": "9"}))
    opened(configure({"study.description": "other words"}))
    assert len(planned(opened(configure({"study.seeds": "[0, 1, 5]"})))) == 9


def test_a_study_that_never_ran_may_change(configure, study_file, capsys):
    main(["study", "--config", str(study_file()), "--estimate"])
    config = configure({"trainer.max_steps": "9"}, space={"model.prompt_length": [3]})
    assert len(planned(opened(config))) == 6
    assert planned(opened(config))[0].system_attrs["fixed_params"].keys() > {"variant"}
    assert opened(config).user_attrs["config"]["override"] == {"trainer.max_steps": "9"}


def test_a_half_written_journal_is_mended(configure):
    config = configure()
    opened(config)
    path = config.folder / "journal.log"
    with path.open("a") as file:
        file.write('{"op_code": 4, "study')
    assert len(planned(opened(config))) == 6
    assert path.read_text().endswith("\n")


def test_another_storage(configure):
    config = configure({"study.storage": "sqlite:///study.db"})
    assert len(planned(opened(config))) == 6
    assert Path("study.db").is_file()
    with pytest.raises(PromptError, match="Optuna cannot open it"):
        open_storage(configure({"study.storage": "nosuch://x"}))


def test_runs_of_dead_workers_are_taken_over(configure):
    config = configure()
    with Claims(opened(config), config.folder) as first:
        trial = first.next()
        assert trial.number == 0
        with Claims(opened(config), config.folder) as second:
            assert second.next().number == 1  # the first one lives
            assert first.owns(trial)
            # As the system leaves it where the process is killed.
            first._file.close()
            again = second.next()
            assert again.number == 0
            assert not first.owns(trial)
            first.release(trial)  # not its own any more
            assert opened(config).trials[0].state == TrialState.RUNNING
            second.release(again)
            assert opened(config).trials[0].state == TrialState.WAITING


@pytest.mark.parametrize(("age", "taken"), [(10.0, 1), (1e4, 0)])
def test_another_machines_worker_is_known_by_its_signs(configure, age, taken, monkeypatch):
    config = configure()
    study = opened(config)
    with Claims(study, config.folder) as claims:
        trial = claims.next()
        import time

        trial.set_user_attr("worker", {"host": "elsewhere", "lock": "/nowhere"})
        trial.set_user_attr("alive", time.time() - age)
        assert claims.next().number == taken


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ([], "Say which study: --config configs/study/demo.yaml"),
        (["--config", "configs/study/dmeo.yaml"], "did you mean configs/study/demo.yaml?"),
        (["--config", "study.yaml", "--workers", "none"], "--workers none: give a whole number"),
        (["--config", "study.yaml", "--trainer.max_steps"], "--trainer.max_steps needs a value"),
        (["--config", "study.yaml", "fit"], "fit: no option"),
        (["--config", "study.yaml", "--trainer.max_stesp", "1"], "did you mean"),
        (["--config", "configs/tuner/soft.yaml"], "model: no such block of a study"),
    ],
)
def test_mistakes_of_the_command_line(study_file, args, said, capsys):
    study_file()
    with pytest.raises(SystemExit) as stop:
        main(["study", *args])
    assert stop.value.code == 2
    assert said in capsys.readouterr().err


def test_help_and_estimate(study_file, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["study", "--help"])
    assert not stop.value.code
    assert "--workers" in capsys.readouterr().out
    main(["study", "--config", str(study_file()), "--estimate"])
    assert "about" in capsys.readouterr().err
    assert not Path("logs/studies/tiny/trials").exists()


def test_limits_reach_the_runs(configure):
    config = limited(configure(study={"name": "tiny"}, limits={"trainer.max_steps": 2}))
    Worker(config, opened(config)).work()
    assert read_run(config.folder / "trials" / "0000").steps == 2


def test_a_study_is_timed_with_the_threads_of_a_worker(configure, monkeypatch: pytest.MonkeyPatch):
    seen: list[int] = []

    def timed(config, lm):
        seen.append(torch.get_num_threads())
        return {name: Cost(1.0, 0.1, 0.1, 1, 1) for name in config.variants}

    own = torch.get_num_threads()
    monkeypatch.setattr(running, "costs", timed)
    monkeypatch.setattr(running, "_cores", lambda: set(range(8)))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    torch.set_num_threads(8)
    try:
        for i, workers in enumerate((1, 2, 3, 16)):
            config = configure(study={"name": f"timed-{i}"})
            running.run(config, workers, only_estimate=True)
        assert torch.get_num_threads() == 8
        monkeypatch.setenv("OMP_NUM_THREADS", "3")  # which workers would have, too
        running.run(configure(study={"name": "asked"}), 2, only_estimate=True)
    finally:
        torch.set_num_threads(own)
    assert seen == [8, 4, 2, 1, 3]
