"""`inspect`: the numbers of a float64 model, a row at a time; every kind of prompt."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor

from lightning_prompts.cli.main import main
from lightning_prompts.files import drawing
from lightning_prompts.files.atomic_files import write_json
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.metrics.panel.likelihood import shuffles
from lightning_prompts.studies import inspect_scores
from lightning_prompts.studies.written import FIRST, LAST
from lightning_prompts.tuners.record import LMRecord
from tests.records import make_record

ROOT = Path(__file__).resolve().parents[2]
WORDS = {"negative": " terrible", "positive": " great"}
HOSTILE = "</code><script>alert(1)</script>"
LAST_TEMPLATE = "{text}{prompt}"


class Exact:
    """The tiny model in float64, with a prompt behind each text."""

    def __init__(self, lm: FrozenLM) -> None:
        self.lm, self.model = lm, copy.deepcopy(lm.model).double()
        self.table = lm.embedding_table.double()
        self.words = torch.tensor([lm.encode(word)[0] for word in WORDS.values()])

    @torch.no_grad()
    def shares(self, prompt: Tensor | list[int], texts: list[str]) -> Tensor:
        """[N, C] Log-probabilities of the answers."""
        rows = prompt if isinstance(prompt, Tensor) else self.table[prompt]
        found = []
        for text in texts:
            embeds = torch.cat([self.table[self.lm.encode(text)], rows.double()])
            logits = self.model(inputs_embeds=embeds[None]).logits[0, -1]
            found.append(logits[self.words].log_softmax(-1))
        return torch.stack(found)


def kl(one: Tensor, other: Tensor) -> float:
    return float(torch.nn.functional.kl_div(other, one, log_target=True, reduction="batchmean"))


def kappa(one: list[int], other: list[int]) -> float:
    """Of two classes, by its definition."""
    n = len(one)
    agreed = sum(a == b for a, b in zip(one, other, strict=True)) / n
    chance = sum(one.count(c) * other.count(c) for c in (0, 1)) / n**2
    return (agreed - chance) / (1 - chance) if chance < 1 else 0.0


def thresholded(shares: Tensor, unlabelled: Tensor) -> list[int]:
    """Answers whose threshold is the median of unlabelled differences."""
    differences = sorted((unlabelled[:, 1] - unlabelled[:, 0]).tolist())
    half = len(differences) // 2
    middle = (differences[half - 1] + differences[half]) / 2  # of an even number
    return [int(d > middle) for d in (shares[:, 1] - shares[:, 0]).tolist()]


@pytest.fixture
def reviews(review_folder: Path, tmp_path: Path) -> Path:
    """The reviews, of which one looks hostile; the working folder is an empty one."""
    folder = tmp_path / "reviews"
    folder.mkdir()
    for name in ("train", "validation"):
        rows = [json.loads(line) for line in (review_folder / f"{name}.jsonl").open()]
        if name == "validation":
            rows = [{**row, "text": f"{HOSTILE} {row['text']}"} for row in rows]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def options(reviews: Path, lm_folder: Path, template: str = LAST_TEMPLATE) -> list[str]:
    given = ["--config", "configs/task/demo.yaml", "--data.path", str(reviews)]
    return [*given, f"--data.template={template}", "--lm.name", str(lm_folder), *PLAIN]


PLAIN = ("--trainer.precision", "32-true")


def as_tokens(folder: Path, lm: FrozenLM, text: str) -> None:
    """Make a run's prompt one of tokens."""
    ids = [lm.encode(character)[0] for character in text]
    record = json.loads((folder / "prompt.json").read_text())
    changed = {"ids": ids, "text": text, "tokens": [*text], "in_use": "tokens"}
    write_json(folder / "prompt.json", record | changed)


def a_run(folder: Path, lm: FrozenLM, lm_folder: Path, reviews: Path, vectors: Tensor) -> None:
    """What a fit of a soft prompt leaves."""
    content: dict[str, Any] = {}
    for name in ("tuner/soft.yaml", "task/demo.yaml"):
        content |= yaml.safe_load((ROOT / "configs" / name).read_text())
    content["data"]["init_args"] |= {"path": str(reviews), "template": LAST_TEMPLATE}
    content |= {"lm": {"name": str(lm_folder)}, "trainer": {"precision": "32-true"}}
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(content))
    ids = [lm.encode(character)[0] for character in "<b>"]
    about = {"text": "<b>", "ids": ids, "tokens": [*"<b>"], "template": LAST_TEMPLATE}
    record = make_record(lm=LMRecord.of(lm), in_use="vectors", verbalizer=WORDS, **about)
    write_json(folder / "prompt.json", record.to_json())
    torch.save({"state_dict": {"prompt": vectors}}, folder / "checkpoints/best.ckpt")


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


def quick(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What would be written: drawing takes a second, and is another test's."""
    seen: list[Any] = []
    keep = lambda found, folder: seen.append(found) or folder / "inspect.html"  # noqa: E731
    monkeypatch.setattr("lightning_prompts.studies.inspect.write", keep)
    return seen


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


def test_a_twin_on_test_rows(
    lm: FrozenLM, lm_folder: Path, review_folder: Path, reviews: Path, tmp_path, monkeypatch, capsys
):
    """Kappas, KL, their intervals and differences: a draw of rows at a time."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(drawing, "DRAWS", 40)
    seen, order = quick(monkeypatch), list[str]()
    whole_of = inspect_scores.acting_alike
    keep = lambda rows, *rest: order.extend(rows.texts) or whole_of(rows, *rest)  # noqa: E731
    monkeypatch.setattr(inspect_scores, "acting_alike", keep)
    (reviews / "test.jsonl").write_text((review_folder / "test.jsonl").read_text())
    generator = torch.Generator().manual_seed(3)
    vectors, others = (torch.randn(3, 16, generator=generator) for _ in range(2))
    for name, rows in {"run": vectors, "twin": vectors, "soft": others}.items():
        a_run(Path(name), lm, lm_folder, reviews, rows)
    as_tokens(Path("twin"), lm, "mild")
    compare = ["--compare=twin", "--compare", "soft/prompt.json"]
    main(["inspect", "run", *compare, "--split", "test", "--panel", "repetition"])
    (found,) = seen
    assert "test, 8 rows" in found.title
    assert not any("had a part in choosing" in limit for limit in found.limits)

    exact = Exact(lm)
    texts, unlabelled = (
        [json.loads(line)["text"] for line in (reviews / f"{name}.jsonl").open()]
        for name in ("test", "train")
    )

    assert sorted(order) == sorted(texts)
    texts = order  # in which rows are drawn

    def scored(prompt: Tensor | list[int]) -> tuple[Tensor, list[int], list[int]]:
        shares = exact.shares(prompt, texts)
        after = thresholded(shares, exact.shares(prompt, unlabelled))
        return shares, shares.argmax(-1).tolist(), after

    ours = scored(vectors)
    drawn = torch.randint(8, (40, 8), generator=torch.Generator().manual_seed(0)).tolist()
    by_name: dict[str, Any] = {}
    for each in found.alike:
        prompt = {"soft/prompt.json": others}.get(each.name)
        theirs = scored([lm.encode(c)[0] for c in each.text] if prompt is None else prompt)

        def values(rows: list[int], theirs=theirs) -> dict[str, float]:
            raw, after = (
                kappa(*([side[i][row] for row in rows] for side in (ours, theirs))) for i in (1, 2)
            )
            distance = kl(ours[0][rows], theirs[0][rows])
            return {"kappa": raw, "kappa_recalibrated": after, "kl": distance}

        whole, draws = values([*range(8)]), [values(rows) for rows in drawn]
        by_name[each.name or each.text] = (each, whole, draws)
        for measure, value in whole.items():
            assert getattr(each, measure) == pytest.approx(value, abs=1e-5)
            ends = percentiles([draw[measure] for draw in draws])
            assert each.intervals[measure] == pytest.approx(ends, abs=1e-5)
    runs = {each.name: (each.kind, each.text) for each in found.alike if each.kind == "run"}
    assert runs == {"twin": ("run", "mild"), "soft/prompt.json": ("run", "<b>")}
    assert len(found.alike) == 10 + 2 + 1

    written = {text: whole for text, (each, whole, _) in by_name.items() if each.kind == "written"}
    assert set(written) == set(LAST)
    assert len(found.differences) == 2 * 2 * 3
    for d in found.differences:
        _, first, first_draws = by_name[d.first]
        _, second, second_draws = by_name[d.second]
        if d.kind == "written":
            values_of = [whole[d.measure] for whole in written.values()]
            best = min(values_of) if d.measure == "kl" else max(values_of)
            assert second[d.measure] == pytest.approx(best, abs=1e-6)
        else:
            assert d.second == "<b>"
        assert d.value == pytest.approx(first[d.measure] - second[d.measure], abs=1e-5)
        pairs = zip(first_draws, second_draws, strict=True)
        ends = percentiles([a[d.measure] - b[d.measure] for a, b in pairs])
        assert (d.low, d.high) == pytest.approx(ends, abs=1e-5)
    said = capsys.readouterr().out
    assert "Differences on the same rows" in said
    assert "twin is " in said


def percentiles(values: list[float]) -> tuple[float, float]:
    """Of 2.5 and 97.5 percent, between neighbours in proportion."""
    ordered = sorted(values)

    def at(share: float) -> float:
        place = share * (len(ordered) - 1)
        low = int(place)
        high = min(low + 1, len(ordered) - 1)
        return ordered[low] + (place - low) * (ordered[high] - ordered[low])

    return at(0.025), at(0.975)


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
