"""A study's files: merged, checked, and mistakes in one sentence."""

from pathlib import Path

import pytest
import yaml

from lightning_prompts.cli.parser import CONFIGS
from lightning_prompts.files.errors import PromptError
from lightning_prompts.studies.files import read_config
from lightning_prompts.studies.needs import limited, needs
from lightning_prompts.studies.plan import planned_runs, trial_args

SHIPPED = sorted(p.name for p in (CONFIGS / "study").glob("*.yaml") if p.name != "reduced.yaml")
REDUCED = CONFIGS / "study" / "reduced.yaml"


def test_a_grid_runs_all_settings_with_the_first_seed_first(configure):
    runs = planned_runs(configure())
    name = "model.perplexity_weight (pez)"
    settings = [{"variant": "soft"}, *({"variant": "pez", name: w} for w in (0.0, 0.3))]
    assert [(run.seed, run.params) for run in runs] == [(s, p) for s in (0, 1) for p in settings]
    assert len({run.key for run in runs}) == 6


def test_a_search_runs_all_seeds_of_a_setting_together(configure):
    study = {"name": "x", "sampler": "tpe", "trials": 2, "seeds": 2}
    runs = planned_runs(configure(study=study))
    assert [(run.group, run.seed) for run in runs] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert len({run.key for run in runs}) == 4


def test_what_counts_more(configure):
    config = configure(
        {"trainer.max_steps": "7"},
        set={"trainer.max_steps": 1, "trainer.val_check_interval": 1, "data.seed": 1},
        variants={"v": {"configs": ["v.yaml"], "set": {"trainer.val_check_interval": 2}}},
        space={"data.seed": [3]},
    )
    assert trial_args(config, "v", {"data.seed": 3}, 9) == [
        *("fit", "--config", "configs/task/demo.yaml", "--config", "v.yaml"),
        *("--trainer.max_steps=7", "--trainer.val_check_interval=2", "--data.seed=3"),
        "--seed_everything=9",
    ]


def test_later_files_change_a_study_key_by_key(configure, tmp_path: Path):
    more = {
        "study": {"suffix": "-b", "objectives": {"val/loss": "minimize"}},
        "variants": {"pez": {"space": {"model.perplexity_weight": [0.5]}}},
    }
    first, second = tmp_path / "study.yaml", tmp_path / "more.yaml"
    configure()
    second.write_text(yaml.safe_dump(more))
    config = read_config([first, second], {"study.seeds": "[4]"})
    assert config.name == "tiny-b"
    assert config.folder == Path("logs/studies/tiny-b")
    assert config.settings.seeds == [4]
    assert config.settings.objectives == {"val/loss": "minimize"}
    assert set(config.variants) == {"soft", "pez"}
    assert config.variants["pez"].configs == ("configs/tuner/pez.yaml",)
    assert [run.params for run in planned_runs(config)][-1]["variant"] == "pez"
    assert len(planned_runs(config)) == 2


@pytest.mark.parametrize(
    ("blocks", "said"),
    [
        ({"sudy": {}}, "sudy: no such block of a study; did you mean study?"),
        ({"study": {}}, "study.name is ''"),
        ({"study": {"name": "a/b"}}, "give a name that a folder can have"),
        ({"study": {"name": "a", "seed": 1}}, "study.seed: no such key; did you mean seeds?"),
        ({"study": {"name": "a", "sampler": "grdi"}}, "'grdi'; did you mean grid?"),
        ({"study": {"name": "a", "seeds": []}}, "study.seeds is []"),
        ({"study": {"name": "a", "seeds": ["x"]}}, "study.seeds is ['x']; give a list, [0, 1"),
        ({"study": {"name": "a", "trials": 0}}, "study.trials is 0; give a whole number, at leas"),
        ({"study": {"name": "a", "test": 3}}, "study.test is 3; give true or false."),
        ({"study": {"name": 5}}, "study.name is 5; give a text."),
        ({"study": {"name": "a", "pruner": "medain"}}, "'medain'; did you mean median?"),
        ({"study": {"name": "a", "objectives": 3}}, "study.objectives is 3; give names with"),
        ({"study": {"name": "a", "seeds": [1, 1]}}, "names a seed twice"),
        ({"study": {"name": "a", "trials": 3}}, "a grid has as many as it has"),
        ({"study": {"name": "a", "sampler": "tpe"}}, "say how many settings tpe draws"),
        ({"study": {"name": "a", "pruner": "median"}}, "needs one objective, and there are 2"),
        (
            {"study": {"name": "a", "objectives": {"val/loss": "down"}}},
            "'down'; known: maximize, minimize.",
        ),
        ({"space": {"model.alpha": []}}, "space.model.alpha is an empty list"),
        ({"space": {"model.alpha": {"low": 0, "high": 1}}}, "which a grid cannot run"),
        ({"space": {"seed_everything": [1]}}, "it follows from study.seeds"),
        ({"set": {"trainer.logger.name": "x"}}, "cannot be set in a study"),
        ({"set": {"data": {"path": "x"}}}, "write options by their dotted names, data.NAME"),
        ({"variants": {"a": {"config": []}}}, "variants.a.config: no such key"),
        ({"variants": []}, "variants is []"),
        ({"limits": {"trainer.max_steps": "few"}}, "limits.trainer.max_steps is 'few'"),
        ({"override": {"model.perplexity_weight": 1}}, "is what the study varies"),
    ],
)
def test_mistakes_end_in_one_sentence(configure, blocks, said):
    with pytest.raises(PromptError) as refused:
        configure(**blocks)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("blocks", "said"),
    [
        ({"space": {"model.prompt_lenght": [1]}}, "variants.soft: --model.prompt_lenght"),
        ({"space": {"model.prompt_length": [5, "x"]}}, "variants.soft: --model.prompt_length"),
        ({"base": ["configs/task/dmeo.yaml"]}, "did you mean configs/task/demo.yaml?"),
    ],
)
def test_mistakes_of_runs_are_found_before_the_first_one(configure, blocks, said):
    with pytest.raises(PromptError) as refused:
        needs(configure(**blocks))
    assert said in str(refused.value)


def test_what_has_to_be_fetched_is_said(configure, monkeypatch):
    config = configure({"lm.name": "someone/a-model", "data.path": "someone/reviews"})
    monkeypatch.setattr("lightning_prompts.studies.needs.hub_reachable", lambda: True)
    model, data = (
        "the model someone/a-model from the hub",
        "the data set someone/reviews from the hub",
    )
    assert needs(config) == [model, data]
    monkeypatch.setattr("lightning_prompts.studies.needs.hub_reachable", lambda: False)
    with pytest.raises(PromptError, match="cannot be reached; give local copies"):
        needs(config)
    with pytest.raises(PromptError, match=r"docs/data.md says where data sets come from"):
        needs(configure({"data.path": "./data/reviews"}))


def test_limits_lower_and_never_raise(configure):
    limits = {
        "trainer.max_steps": 3,  # 4 is above
        "trainer.val_check_interval": 100,  # 2 is below
        "data.validation_rows": 5,  # null is all there are
        "model.reward.samples": 1,  # neither tuner has one
        "model.perplexity_weight": 0.1,  # is varied, where PEZ has it
    }
    config = limited(configure(limits=limits))
    expected = {"trainer.max_steps": 3, "data.validation_rows": 5}
    assert config.variants["pez"].limits == expected
    assert config.variants["soft"].limits == expected
    args = trial_args(config, "soft", {}, 0)
    assert args[-4:-1][-1] == "--data.validation_rows=5"


def test_what_is_asked_for_counts_more_than_a_limit(configure):
    limits = {"trainer.max_steps": 3, "data.validation_rows": 5}
    config = limited(configure(limits=limits, override={"trainer.max_steps": "7"}))
    assert config.variants["soft"].limits == {"data.validation_rows": 5}
    assert "--trainer.max_steps=7" in trial_args(config, "soft", {}, 0)


@pytest.mark.parametrize("reduced", [False, True], ids=["whole", "reduced"])
@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_studies_are_right(name: str, reduced: bool, lm_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = [CONFIGS / "study" / name, *([REDUCED] if reduced else [])]
    options = {"lm.name": str(lm_folder)}
    if name != "demo.yaml":
        options["data.path"] = str(tmp_path)
    if "yelp" in name:
        options |= {f"model.reward.{part}": str(tmp_path) for part in ("style", "judge")}
    config = limited(read_config(files, options))
    assert needs(config) == []
    assert config.name == name.removesuffix(".yaml") + ("-reduced" if reduced else "")
    if reduced:
        assert len(planned_runs(config)) <= len(planned_runs(read_config(files[:1], options)))
        assert all(variant.limits for variant in config.variants.values())


def test_shipped_studies_say_what_they_are_after():
    for name in SHIPPED:
        head = (CONFIGS / "study" / name).read_text(encoding="utf-8").partition("study:")[0]
        assert "of the paper" in head or ("# The paper:" in head and "# Here:" in head), name
        assert "lightning-prompts study --config configs/study/" in head
