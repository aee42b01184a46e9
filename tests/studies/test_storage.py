"""What a study keeps of its plan, and who may take which of its runs."""

import time
from pathlib import Path

import pytest
from optuna.trial import TrialState

from lightning_prompts.cli.main import main
from lightning_prompts.files.errors import PromptError
from lightning_prompts.studies.claims import Claims
from lightning_prompts.studies.storage import open_storage, planned

from .conftest import opened


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
        trial.set_user_attr("worker", {"host": "elsewhere", "lock": "/nowhere"})
        trial.set_user_attr("alive", time.time() - age)
        assert claims.next().number == taken
