"""Which runs are one setting, what tells settings apart, and which rows score them."""

import random

import pytest
from matplotlib.figure import Figure

from lightning_prompts.report.comparison import compare
from lightning_prompts.report.figures import pareto
from lightning_prompts.report.figures.pareto import front
from lightning_prompts.report.paired import pairs


def labels(comparison) -> list[str]:
    return [setting.label for setting in comparison.settings]


def test_seeds_of_one_setting_stand_together(runs):
    (comparison,), repeated = compare(random.Random(0).sample(runs, len(runs)))
    assert labels(comparison) == ["ManualPrompt", "PEZ, w = 0", "PEZ, w = 0.5", "SoftPrompt"]
    assert all([r.seed for r in s.records] == [0, 1, 2] for s in comparison.settings)
    assert (comparison.split, comparison.rows, repeated) == ("test", "100 test rows", [])
    assert compare(runs)[0] == [comparison]


def test_where_a_run_lies_is_no_setting(run):
    here = run(settings={"trainer.logger.save_dir": "here", "experiment": "a"})
    there = run(seed=1, settings={"trainer.logger.save_dir": "there", "experiment": "b"})
    (comparison,), _ = compare([here, there])
    assert labels(comparison) == ["PEZ"]


def test_options_that_differ_are_named_by_their_last_part(run):
    settings = [
        {"model.optimizer.lr": lr, "model.init": f"a.b.{init}", **more}
        for lr, init, more in (
            (0.1, "FromText", {"model.init.text": " It was"}),
            (0.01, "FromVocabulary", {}),
        )
    ]
    (comparison,), _ = compare([run(settings=each) for each in settings])
    assert labels(comparison) == [
        "PEZ, lr = 0.01, init = FromVocabulary",
        "PEZ, lr = 0.1, init = FromText",
    ]


def test_variants_of_one_tuner_are_told_apart_by_their_names(run):
    def of(variant: str, weight: float, beam: int, **more):
        settings = {"model.beam": beam, "model.swap": beam / 4, **more}
        return run("GuidedSearch", weight, settings=settings, variant=variant)

    guided = [of("guided", 0.0, 4), of("guided", 0.3, 4)]
    (comparison,), _ = compare([*guided, of("gcg", 0.0, 1)])
    assert labels(comparison) == [
        "GuidedSearch (gcg)",
        "GuidedSearch (guided), w = 0",
        "GuidedSearch (guided), w = 0.3",
    ]
    (comparison,), _ = compare(guided)
    assert labels(comparison) == ["GuidedSearch, w = 0", "GuidedSearch, w = 0.3"]


def test_a_label_names_a_few_options(run):
    records = [run(settings={f"model.option_{i}": i + j for i in range(8)}) for j in range(2)]
    (comparison,), _ = compare(records)
    few = ["option_0 = 0, option_1 = 1, option_2 = 2, option_3 = 3, option_4 = 4"]
    few.append("option_0 = 1, option_1 = 2, option_2 = 3, option_3 = 4, option_4 = 5")
    assert labels(comparison) == [f"PEZ, {options}, …" for options in few]


def test_templates_are_problems_of_their_own(run):
    other = "{text}{prompt}"
    records = [run(), run(template=other, settings={"data.template": other})]
    (comparison,), _ = compare(records)
    assert [p.label for p in comparison.problems] == [
        'template = "{prompt} {text}"',
        'template = "{text}{prompt}"',
    ]


def test_tasks_are_not_compared(run):
    comparisons, _ = compare([run(), run(task="boolq")])
    assert [c.task for c in comparisons] == ["boolq", "sst2"]


def test_a_repeated_seed_counts_once(run):
    first, again = run(name="runs/a"), run(name="runs/b", accuracy=0.9)
    (comparison,), repeated = compare([again, first])
    assert comparison.settings[0].records == (again,)
    assert repeated == [first]


def test_the_later_version_is_the_one_with_the_higher_number(run):
    old, new = run(name="logs/pez-sst2/version_9"), run(name="logs/pez-sst2/version_10")
    (comparison,), repeated = compare([new, old])
    assert comparison.settings[0].records == (new,)
    assert repeated == [old]


def test_other_few_shot_rows_are_another_run_of_the_setting(run):
    drawn = [
        run(tuner, accuracy=accuracy + 0.01 * rows, settings={"data.seed": rows})
        for tuner, accuracy in (("SoftPrompt", 0.9), ("PEZ", 0.7))
        for rows in (1, 2, 4)
    ]
    (comparison,), repeated = compare(drawn)
    assert repeated == []
    assert [len(setting.records) for setting in comparison.settings] == [3, 3]
    (pair,) = pairs(comparison, comparison.problems[0])
    assert pair.seeds == 3
    assert pair.difference == pytest.approx(0.2)


def test_validation_rows_score_where_few_runs_were_tested(run):
    def untested(seed: int):
        metrics = {k: v for k, v in run().metrics.items() if k.startswith("val/")}
        made = run(seed=seed)
        made.metrics, made.test_baselines = metrics, {}
        return made

    (comparison,), _ = compare([run(), untested(1), untested(2)])
    assert (comparison.split, comparison.rows) == ("val", "50 validation rows")
    (comparison,), _ = compare([run(), run(seed=1), untested(2)])
    assert comparison.split == "test"
    assert [r.seed for r in comparison.unmeasured] == [2]


def test_a_task_without_accuracy_has_a_joint_score(run):
    made = run()
    made.metrics = {"val/reward": 40.0, "test/reward": 41.0, "test/joint": 30.0}
    (comparison,), _ = compare([made])
    assert (comparison.split, comparison.measure.name) == ("test", "joint")
    assert comparison.score(comparison.settings[0]).mean == 30.0


def test_the_front_is_of_means(runs):
    (comparison,), _ = compare(runs)
    assert [s.label for s in front(comparison, comparison.problems[0])] == ["SoftPrompt"]


def test_pairs_are_on_common_seeds(run):
    first = [run("SoftPrompt", 0.0, seed, 0.9) for seed in (0, 1, 2)]
    second = [run("PEZ", 0.0, seed, 0.8 + 0.01 * seed) for seed in (1, 2, 3)]
    (comparison,), _ = compare(first + second)
    (pair,) = pairs(comparison, comparison.problems[0])
    assert (pair.first.tuner, pair.second.tuner, pair.seeds) == ("SoftPrompt", "PEZ", 2)
    assert abs(pair.difference - (0.09 + 0.08) / 2) < 1e-12
    assert [(m.first, m.second) for m in pair.over_rows] == [(9, 0), (8, 0)]
    assert pair.p_rows == 2 / 2**8


def test_perplexities_are_compared_on_common_seeds(run):
    def runs(tuner: str, perplexities: dict[int, float]):
        return [
            run(tuner, seed=seed, metrics={"val/perplexity": value, "test/perplexity": value})
            for seed, value in perplexities.items()
        ]

    first, second = {0: 1e6, 1: 10.0, 2: 40.0}, {1: 5.0, 2: 5.0, 3: 1.0}
    (comparison,), _ = compare(runs("SoftPrompt", first) + runs("PEZ", second))
    (pair,) = pairs(comparison, comparison.problems[0])
    assert {pair.first.tuner: pair.likelier, pair.second.tuner: 1 / pair.likelier}[
        "SoftPrompt"
    ] == pytest.approx(20.0 / 5.0)


def test_the_best_of_many_is_adjusted_for_all_pairs(run):
    """It was chosen by the same numbers: comparing only with it does not make fewer of them."""
    tuned = [run("PEZ", weight, accuracy=0.9 - weight) for weight in (0, 0.1, 0.2, 0.3, 0.4, 0.5)]
    (comparison,), _ = compare(tuned)
    found = pairs(comparison, comparison.problems[0])
    assert len(found) == 5
    assert {pair.first.label for pair in found} == {"PEZ, w = 0"}
    smallest = min(test.p for pair in found for test in pair.over_rows)
    assert min(pair.p_rows for pair in found) == pytest.approx(15 * smallest)


def test_an_interval_over_rows_is_within_the_figure(run):
    """Of 6 rows it is wider than all that the points and the baselines span."""
    (comparison,), _ = compare([run(accuracy=5 / 6, rows={"validation": 6, "test": 6})])
    (setting,) = comparison.settings
    known = setting.estimate("accuracy", "test")
    assert known is not None
    axes = Figure().subplots(1, 1, squeeze=False)
    pareto._limits(axes, comparison, comparison.problems)
    low, high = axes[0, 0].get_ylim()
    assert (known.low, known.high) == pytest.approx((0.4365, 0.9699), abs=1e-4)
    assert low < known.low < known.high < high
