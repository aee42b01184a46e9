"""`validity`: its texts, the panel's own numbers for them, and mistakes."""

import json
import re
from pathlib import Path

import pytest
import torch

from lightning_prompts.cli.main import main
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.metrics.panel import task_identification
from lightning_prompts.metrics.panel.frames import DESCRIPTIONS, KINDS
from lightning_prompts.metrics.panel.measures import TaskFacts, scrutability_panel
from lightning_prompts.metrics.panel.written_texts import TaskTexts, shipped_texts
from lightning_prompts.metrics.scrutability import log_perplexity
from lightning_prompts.report.validity import Validity
from lightning_prompts.report.validity_readings import (
    ANSWERS,
    COMMON,
    GROUPS,
    LEARNED,
    MEASURES,
    NOTHING,
    OTHER,
    RANDOM,
    REPEATED,
    SHUFFLED,
    VALUES,
    WRITTEN,
    Asked,
)
from lightning_prompts.studies import validity_texts, validity_values
from lightning_prompts.studies.validity import KEPT
from lightning_prompts.studies.validity_texts import Learned, ask
from lightning_prompts.studies.validity_values import AT_ONCE, Measuring, read_kept
from tests.tiny import save_model

QUICK = ("--measures", "perplexity", "grammar", "repetition", "real_words")


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two short texts a task."""
    tasks = {kind: TaskTexts(["ab", "c"], [f" Of {kind[:3]}", kind[:4]]) for kind in KINDS}
    monkeypatch.setattr(validity_texts, "shipped_texts", lambda: (tasks, [" Rain", "Hot tea."]))


def test_the_texts_are_what_their_file_says():
    tasks, nothing = shipped_texts()
    texts = [text for task in tasks.values() for text in task.texts]
    assert (len(texts), len(set(texts)), len(nothing)) == (48, 48, 24)
    for task in tasks.values():
        assert 2 <= len(task.answers) <= 4
        assert [text[0] == " " for text in task.texts] == [True] * 3 + [False] * 3
        answers = re.compile(rf"\b({'|'.join(task.answers)})\b", re.IGNORECASE)
        assert sum(answers.search(text) is None for text in task.texts) >= 2
    assert sum(text[0] == " " for text in nothing) == 12
    for text in (*texts, *nothing):  # of 4 to 15 tokens, of which a word has one at least
        assert 4 <= len(text.split()) <= 12
        assert not any(description.strip(" .") in text for description in DESCRIPTIONS.values())


def test_of_how_many_tokens_they_are(smollm2_installed: None):
    from transformers import AutoTokenizer

    from lightning_prompts.lm.sources import converted_folder, find_model

    source = find_model("smollm2", None, "--lm.name")
    if not (converted_folder(source) / "tokenizer.json").is_file():
        pytest.skip("not converted yet, which takes its time")
    tokenizer = AutoTokenizer.from_pretrained(converted_folder(source))
    tasks, nothing = shipped_texts()
    texts = [*nothing, *(text for task in tasks.values() for text in task.texts)]
    rows = tokenizer(texts, add_special_tokens=False).input_ids
    assert all(4 <= len(row) <= 15 for row in rows)


def test_groups_are_made_of_the_written_texts(lm: FrozenLM):
    asked = ask(lm, [Learned("spam", " bad!", "PEZ", 0.5)])
    assert asked == ask(lm, [Learned("spam", " bad!", "PEZ", 0.5)])
    of: dict[str, list[Asked]] = {}
    for each in asked:
        of.setdefault(each.group, []).append(each)
        assert each.text == lm.decode(each.ids)
    counts = {WRITTEN: 48, SHUFFLED: 144, OTHER: 336, NOTHING: 24, LEARNED + "PEZ": 1}
    one_each = dict.fromkeys([COMMON, RANDOM, ANSWERS, REPEATED], 48)
    assert {group: len(texts) for group, texts in of.items()} == counts | one_each
    written = of[WRITTEN]
    assert [each.source for each in written] == list(range(48))
    for group in (SHUFFLED, COMMON, RANDOM, ANSWERS, REPEATED):
        for each in of[group]:
            own = written[each.source]
            assert (each.kind, len(each.ids)) == (own.kind, len(own.ids))
    for each in of[SHUFFLED]:
        own = written[each.source]
        assert sorted(each.ids) == sorted(own.ids)
        assert each.ids != own.ids
    for each in of[OTHER]:
        assert each.ids == written[each.source].ids
        assert each.kind != written[each.source].kind
    assert len({(each.source, each.kind) for each in of[OTHER]}) == 336
    for each in of[REPEATED]:
        assert len(set(each.ids)) == 1
        assert each.ids[0] in written[each.source].ids
    assert not {i for each in of[RANDOM] for i in each.ids} & set(lm.special_ids)
    assert (" terrible great" * 20).startswith(of[ANSWERS][0].text)
    assert [each.kind for each in of[NOTHING]] == [*KINDS] * 3
    assert of[LEARNED + "PEZ"] == [
        Asked(LEARNED + "PEZ", "spam", 0, tuple(lm.encode(" bad!")), " bad!", 0.5)
    ]


def test_first_ids_are_the_first_ones(lm: FrozenLM, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(validity_texts, "FIRST_IDS", 9)
    asked = ask(lm)
    assert max(i for each in asked if each.group == COMMON for i in each.ids) == 8
    assert max(i for each in asked if each.group == RANDOM for i in each.ids) > 90


def test_the_values_are_the_panels(lm: FrozenLM, few: None, tmp_path: Path):
    tasks, _ = validity_texts.shipped_texts()
    asked = [each for each in ask(lm) if each.group in (WRITTEN, OTHER, ANSWERS)]
    some = [asked[0], asked[1], asked[9], asked[20]]
    reading = Measuring(lm, "tiny", MEASURES, tmp_path / KEPT, {}).reading(some)
    assert [*reading.values] == [value.name for value in VALUES]
    for i, each in enumerate(some):
        facts = TaskFacts(kind=each.kind, answers=tasks[each.kind].answers)
        found = scrutability_panel(lm, each.ids, MEASURES[1:], facts)
        nats = lm.token_nll(torch.tensor([each.ids]))
        expected = {"perplexity": float(log_perplexity(nats).exp())} | found
        got = {name: numbers[i] for name, numbers in reading.values.items()}
        assert got == pytest.approx(expected, rel=1e-4, abs=1e-4)
    assert len((tmp_path / KEPT).read_text().splitlines()) == len({each.ids for each in some})

    again = Measuring(lm, "tiny", MEASURES, tmp_path / KEPT, read_kept(tmp_path / KEPT))
    again._measure = None  # type: ignore[assignment, method-assign]
    assert again.reading(some).values == reading.values


def test_fewer_shuffles_change_one_value_and_are_kept_apart(
    lm: FrozenLM, few: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    measures, kept = ("task_identification",), {}
    some = [each for each in ask(lm) if each.group == WRITTEN][:2]
    eight = Measuring(lm, "tiny", measures, tmp_path / KEPT, kept).reading(some)
    three = Measuring(lm, "tiny", measures, tmp_path / KEPT, kept, shuffles=3).reading(some)
    name = "task_margin_over_shuffled"
    assert three.values[name] != eight.values[name]
    assert {**three.values, name: None} == {**eight.values, name: None}
    assert any("over 3 shuffles" in limit for limit in Validity([three]).limits())

    monkeypatch.setattr(task_identification, "TASK_SHUFFLES", 3)
    tasks, _ = validity_texts.shipped_texts()
    facts = TaskFacts(kind=some[0].kind, answers=tasks[some[0].kind].answers)
    panel = scrutability_panel(lm, some[0].ids, measures, facts)
    assert three.values[name][0] == pytest.approx(panel[name], abs=1e-4)


def test_what_a_model_cannot_measure_is_left_out(few: None, tmp_path: Path):
    save_model(tmp_path / "short", positions=64)
    lm = FrozenLM(str(tmp_path / "short"))
    measures = ("repetition", "task_identification")
    reading = Measuring(lm, "short", measures, tmp_path / KEPT, {}).reading(ask(lm))
    assert [*reading.left_out] == ["task_identification"]
    assert "positions" in reading.left_out["task_identification"]
    assert [value.name for value in reading.looked_at] == ["repetition"]


def test_a_value_that_is_no_number(lm: FrozenLM, few: None, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(
        validity_values, "row_nats", lambda _, rows: torch.tensor([1e6] * len(rows))
    )
    measures = ("perplexity", "repetition")
    reading = Measuring(lm, "tiny", measures, tmp_path / KEPT, {}).reading(ask(lm))
    assert reading.left_out == {"perplexity": "a text has a value that is no finite number"}
    assert [*reading.values] == ["repetition"]


def test_the_command(few: None, lm_folder: Path, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    save_model(tmp_path / "other", seed=1)
    Path("learned.yaml").write_text(
        "spam:\n- {text: ' bad', from: PEZ, accuracy: 0.5}\n- {text: '<b>', from: <i>}\n"
    )
    args = ["validity", "--lm.name", str(lm_folder), "--lm.name=other", *QUICK]
    args += ["--learned", "learned.yaml"]
    main(args)
    said = capsys.readouterr()
    assert "by the rule" in said.out
    assert "about 0 s left" in said.err
    found = json.loads(Path("logs/validity/validity.json").read_text())
    assert [model["model"] for model in found["models"]] == [lm_folder.name, "other"]
    for model in found["models"]:
        names = [measure["name"] for measure in model["measures"]]
        assert names == ["perplexity", "grammar", "repetition", "real_words"]
        for i, measure in enumerate(model["measures"]):
            sign = -1 if measure["less_is_better"] else 1
            against = measure["written_against"]
            groups = [group for group in GROUPS if group != OTHER]  # none asks for the task
            assert [*against] == [*groups, LEARNED + "PEZ", LEARNED + "<i>"]
            for group, area in against.items():
                values = [
                    [sign * t["values"][measure["name"]] for t in model["texts"] if t["group"] == g]
                    for g in (WRITTEN, group)
                ]
                wins = [(a > b) + (a == b) / 2 for a in values[0] for b in values[1]]
                assert area["auc"] == pytest.approx(sum(wins) / len(wins))
                assert area["low"] <= area["high"]
            fails = [g for g in found["needed"] if g in against and against[g]["low"] <= 0.75]
            assert (measure["fails"], measure["separates"]) == (fails, not fails)
            assert model["rank_correlations"][i][i] == pytest.approx(1)
    page = Path("logs/validity/validity.html").read_text()
    assert "&lt;i&gt;" in page
    assert "<i>" not in page
    assert page.count("data:image/svg+xml") == 1
    assert Path("logs/validity/figures/validity.png").read_bytes()[:4] == b"\x89PNG"

    # It goes on where it was stopped, in the middle of a line too.
    kept = Path("logs/validity", KEPT)
    lines = kept.read_text().splitlines(keepends=True)
    kept.write_text("".join(lines[:AT_ONCE]) + lines[AT_ONCE][:30])
    main(args)
    assert f", {AT_ONCE} kept." in capsys.readouterr().err
    assert json.loads(Path("logs/validity/validity.json").read_text()) == found
    assert sorted(kept.read_text().splitlines(keepends=True)) == sorted(lines)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ([], "Say which models read, each with --lm.name"),
        (["--lm.name", "--output", "a"], "--lm.name needs a value"),
        (["--lm.name=x", "--measures", "gramar"], "did you mean grammar?"),
        (["--lm.name=x", "--measures", "copied_run"], "--measures copied_run: no measure"),
        (["--lm.name=x", "--lm.dtypo=a"], "lm.dtypo"),
        (["--lm.name=./gone"], "./gone': no such folder"),
        (["--lm.name=x", "--output=empty.yaml"], "empty.yaml cannot be written"),
        (["--lm.name=x", "--learned=gone.yaml"], "--learned gone.yaml: not readable"),
        (["--lm.name=x", "--learned=empty.yaml"], "write a task's name, then a list"),
        (["--lm.name=x", "--learned=torn.yaml"], "--learned torn.yaml: not readable"),
        (["--lm.name=x", "--learned=kind.yaml"], "'sentimant' is none of the described tasks"),
        (["--lm.name=x", "--learned=none.yaml"], "none.yaml: has no text"),
        (["--lm.name=x", "--learned=text.yaml"], "spam has {'text': 5, 'from': 'PEZ'}; write"),
        (["--lm.name=x", "--learned=more.yaml"], "spam has"),
        (["--lm.name=x", "--learned=high.yaml"], "as a share from 0 to 1"),
    ],
)
def test_mistakes_end_before_a_model_is_read(
    args: list[str], said: str, tmp_path: Path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    for name, text in {
        "empty": "",
        "torn": "spam: [",
        "kind": "sentimant: []",
        "none": "spam: []",
        "text": "spam: [{text: 5, from: PEZ}]",
        "more": "spam: [{text: a, from: PEZ, seed: 1}]",
        "high": "spam: [{text: a, from: PEZ, accuracy: 80}]",
    }.items():
        Path(f"{name}.yaml").write_text(text)
    with pytest.raises(SystemExit) as stop:
        main(["validity", *args])
    assert stop.value.code == 2
    assert said in capsys.readouterr().err
