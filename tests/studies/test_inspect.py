"""`inspect`: the numbers of a float64 model, a row at a time; every kind of prompt."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lightning_prompts.cli.main import main
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.metrics.panel.likelihood import shuffles
from lightning_prompts.studies.written import FIRST, LAST
from tests.studies.inspecting import (
    HOSTILE,
    LAST_TEMPLATE,
    PLAIN,
    WORDS,
    Exact,
    a_run,
    as_tokens,
    kappa,
    kl,
    options,
    quick,
    thresholded,
)


def test_a_run(lm: FrozenLM, lm_folder: Path, reviews: Path, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    vectors = torch.randn(3, 16, generator=torch.Generator().manual_seed(3))
    a_run(Path("run"), lm, lm_folder, reviews, vectors)
    main(
        ["inspect", "run", "--compare", "?", "--compare=<i>", "--panel", "repetition", "--in_words"]
    )
    said = capsys.readouterr()
    found = json.loads(Path("run/inspect/inspect.json").read_text())

    exact = Exact(lm)
    rows, train = (
        [json.loads(line) for line in (reviews / f"{name}.jsonl").open()]
        for name in ("validation", "train")
    )
    texts, others = ([row["text"] for row in part] for part in (rows, train))
    labels = [[*WORDS].index(row["label"]) for row in rows]
    ids = [each["id"] for each in found["tokens"]]
    whole, vector = exact.shares(ids, texts), exact.shares(vectors, texts)
    unlabelled, of_vector = exact.shares(ids, others), exact.shares(vectors, others)

    def accuracy(answers: list[int]) -> float:
        return sum(a == b for a, b in zip(answers, labels, strict=True)) / len(labels)

    # ---- tokens, their neighbours, what leaving them out changes
    logits = exact.model(torch.tensor([[lm.bos_id, *ids]])).logits[0].log_softmax(-1)
    before = accuracy(thresholded(whole, unlabelled))
    for i, each in enumerate(found["tokens"]):
        assert each["nats"] == pytest.approx(-float(logits[i, ids[i]]), abs=1e-4)
        cosines = torch.nn.functional.cosine_similarity(vectors[i].double(), exact.table)
        assert each["distance"] == pytest.approx(1 - float(cosines[ids[i]]), abs=1e-5)
        cosines[lm.special_ids] = -2
        best = cosines.argsort(descending=True)[:5].tolist()
        assert [n["id"] for n in each["nearest"]] == best
        distances = [1 - float(cosines[j]) for j in best]
        assert [n["distance"] for n in each["nearest"]] == pytest.approx(distances, abs=1e-5)
        left = [*ids[:i], *ids[i + 1 :]]
        shares, without = exact.shares(left, texts), each["without"]
        assert without["kl"] == pytest.approx(kl(whole, shares), abs=1e-5)
        change = accuracy(shares.argmax(-1).tolist()) - accuracy(whole.argmax(-1).tolist())
        assert without["accuracy"] == pytest.approx(change)
        after = accuracy(thresholded(shares, exact.shares(left, others)))
        assert without["recalibrated"] == pytest.approx(after - before)
    orders = [(kl(whole, exact.shares(order, texts))) for order in shuffles(ids, 4)]
    assert [order["kl"] for order in found["orders"]] == pytest.approx(orders, abs=1e-5)
    kls = [each["without"]["kl"] for each in found["tokens"]]
    assert found["panel"]["effect_of_tokens"] == max(kls)
    assert found["panel"]["repetition"] == 0.0
    assert "grammar" not in found["panel"]

    # ---- vectors against tokens
    ways = {way["name"]: way for way in found["ways"]}
    assert [*ways] == ["vectors", "nearest tokens", "pasted text"]
    assert ways["pasted text"]["same"]
    for name, shares, reference in (
        ("vectors", vector, of_vector),
        ("nearest tokens", whole, unlabelled),
    ):
        assert ways[name]["accuracy"] == pytest.approx(accuracy(shares.argmax(-1).tolist()))
        recalibrated = accuracy(thresholded(shares, reference))
        assert ways[name]["recalibrated"] == pytest.approx(recalibrated)
    far = (vector.exp() - whole.exp()).abs().sum(-1) / 2
    differ = [i for i in range(len(rows)) if vector[i].argmax() != whole[i].argmax()]
    assert differ, "another seed"
    assert ways["nearest tokens"]["differs"] == len(differ)
    wanted = sorted(differ, key=lambda i: -float(far[i]))
    assert [row["number"] - 1 for row in found["disagreements"]] == wanted
    for i, row in zip(wanted, found["disagreements"], strict=True):
        assert row["difference"] == pytest.approx(float(far[i]), abs=1e-5)
        assert (row["text"], row["label"]) == (texts[i], rows[i]["label"])
        label, share = row["answers"]["vectors"]
        assert label == [*WORDS][int(vector[i].argmax())]
        assert share == pytest.approx(float(vector[i].exp().max()), abs=1e-5)

    # ---- written prompts
    kinds = {each["text"]: each["kind"] for each in found["alike"]}
    assert kinds == {"?": "written", "<i>": "written", "<b>": "nearest tokens"}
    assert found["differences"] == []  # which are of runs
    for each in found["alike"]:
        given = lm.encode(each["text"])
        shares, reference = exact.shares(given, texts), exact.shares(given, others)
        assert each["kl"] == pytest.approx(kl(vector, shares), abs=1e-5)
        pair = (vector.argmax(-1).tolist(), shares.argmax(-1).tolist())
        assert each["kappa"] == pytest.approx(kappa(*pair))
        pair = (thresholded(vector, of_vector), thresholded(shares, reference))
        assert each["kappa_recalibrated"] == pytest.approx(kappa(*pair))
    recalibrated = [each["kappa_recalibrated"] for each in found["alike"]]
    assert recalibrated == sorted(recalibrated, reverse=True)

    # ---- in its own words
    kinds = [each["kind"] for each in found["in_words"]]
    assert kinds == ["prompt", "nearest tokens", *["random"] * 5]
    assert [*found["in_words"][0]["best"]] == ["answers", "classes", "description"]
    assert "of 5 draws of random vectors name as much or more" in said.out

    # ---- what is shown
    page = Path("run/inspect/inspect.html").read_text()
    assert "<script" not in page
    assert "<b>&lt;b" not in page
    assert "&lt;/code&gt;&lt;script&gt;alert(1)" in page
    assert page.count("data:image/svg+xml") == 2
    assert Path("run/inspect/figures/alike.png").is_file()
    assert "Text of its nearest tokens: '<b>'" in said.out
    rows_said = f"Vectors and nearest tokens disagree on {len(differ)} of {len(rows)} rows."
    assert rows_said in said.out
    assert rows_said in page
    assert "which had a part in choosing the prompt" in said.out
    assert said.out.splitlines()[-1] == "Open in a browser: run/inspect/inspect.html"


def test_prompts_of_every_kind(
    lm: FrozenLM, lm_folder: Path, reviews: Path, tmp_path: Path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    seen = quick(monkeypatch)
    vectors = torch.randn(2, 16, generator=torch.Generator().manual_seed(3))
    torch.save(vectors, "rows.pt")
    Path("mine").mkdir()
    save_file({"prompt_embeddings": vectors}, "mine/adapter_model.safetensors")
    config = {"peft_type": "PROMPT_TUNING", "base_model_name_or_path": str(lm_folder)}
    Path("mine/adapter_config.json").write_text(json.dumps(config))
    Path("one.txt").write_text(" good\n")
    a_run(Path("run"), lm, lm_folder, reviews, torch.ones(3, 16))
    Path("run/config.yaml").unlink()  # as Python's `fit` leaves it
    few = ["--rows", "4", "--panel", "repetition"]
    no_name = options(reviews, lm_folder, "{prompt}{text} It was")
    at = no_name.index("--lm.name")
    del no_name[at : at + 2]  # the adapter names its model
    main(["inspect", "mine", *no_name, *few])
    for given in ("rows.pt", "one.txt", f" {HOSTILE}"):
        main(["inspect", given, *options(reviews, lm_folder), *few])
    at_run = options(reviews, lm_folder)
    at = at_run.index("--lm.name")
    del at_run[at : at + 2]  # and so does the run
    main(["inspect", "run/prompt.json", *at_run, *few])
    kinds = [(found.record.tuner, found.record.in_use, len(found.near)) for found in seen]
    soft, hard = ("ImportedPrompt", "vectors", 2), ("ManualPrompt", "tokens", 0)
    assert kinds == [soft, soft, hard, hard, ("SoftPrompt", "vectors", 3)]
    assert [found.record.text for found in seen[2:4]] == [" good", f" {HOSTILE}"]
    assert {found.effects.rows for found in seen} == {4}
    for found, written in zip(seen, [FIRST, *[LAST] * 4], strict=True):
        assert {each.text for each in found.alike if each.kind == "written"} == set(written)
        assert len(found.alike) == 10 + (found.record.in_use == "vectors")
        assert found.frequencies == {"negative": 0.5, "positive": 0.5}
    assert [way.name for way in seen[3].ways] == ["tokens", "pasted text"]
    said = capsys.readouterr()
    assert "validation, 4 of 10 rows" in said.out
    assert "run/inspect/inspect.html" in said.out


def test_a_task_of_another_kind(lm_folder: Path, reviews: Path, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    seen = quick(monkeypatch)
    other = ["--data", "TextClassification", "--data.task_kind", "topic", "--data.verbalizer"]
    given = [
        *other,
        json.dumps(WORDS),
        f"--data.path={reviews}",
        f"--data.template={LAST_TEMPLATE}",
    ]
    # A text that is pasted into other tokens: the model has one for the word.
    main(["inspect", " good", *given, f"--lm.name={lm_folder}", *PLAIN, "--panel", "all"])
    (found,) = seen
    assert found.alike == []
    assert any("give some with --compare TEXT" in limit for limit in found.limits)
    assert {"simulatability", "task_rank", "grammar", "filler"} <= set(found.panel)


def test_a_text_that_pastes_into_other_tokens(
    lm: FrozenLM, lm_folder: Path, reviews: Path, tmp_path: Path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    seen = quick(monkeypatch)
    a_run(Path("run"), lm, lm_folder, reviews, torch.ones(3, 16))
    as_tokens(Path("run"), lm, " good!")
    ids = [lm.encode(character)[0] for character in " good!"]
    main(["inspect", "run", "--panel", "repetition", "--compare", " x"])
    (found,) = seen
    exact = Exact(lm)
    rows = [json.loads(line) for line in (reviews / "validation.jsonl").open()]
    texts = [row["text"] for row in rows]
    tokens, pasted = exact.shares(ids, texts), exact.shares(lm.encode(" good!"), texts)
    differs = int((tokens.argmax(-1) != pasted.argmax(-1)).sum())
    assert [(way.name, way.differs) for way in found.ways] == [
        ("tokens", 0),
        ("pasted text", differs),
    ]
    assert found.panel["round_trip"] == pytest.approx(1 / 6)
    assert not found.ways[1].same
