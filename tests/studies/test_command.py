"""The command line of studies, and how long it says that they take."""

from pathlib import Path

import pytest
import torch

from lightning_prompts.cli.main import main
from lightning_prompts.studies import running
from lightning_prompts.studies.config import Settings
from lightning_prompts.studies.estimate import Cost, Price, Size


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
    said = capsys.readouterr().out
    assert all(f"--study.{name} " in said for name in Settings.__dataclass_fields__)
    assert "--workers" in said
    main(["study", "--config", str(study_file()), "--estimate"])
    assert "about" in capsys.readouterr().err
    assert not Path("logs/studies/tiny/trials").exists()


def test_a_study_is_timed_with_the_threads_of_a_worker(configure, monkeypatch: pytest.MonkeyPatch):
    seen: list[int] = []
    price, size = Price(0.1, 0.1), Size(1, 1)
    cost = Cost(1.0, price, price, 1, 1, size, size, size)

    def timed(config, lm):
        seen.append(torch.get_num_threads())
        return dict.fromkeys(config.variants, cost)

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
