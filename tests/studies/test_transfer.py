"""`transfer`: the numbers of plain transformers on each model, once; and mistakes."""

import functools
import gc
import json
import math
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lightning_prompts.cli.main import main
from lightning_prompts.files.atomic_files import write_json
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.report.statistics import holm
from lightning_prompts.studies.transfer import CELLS, divide, texts_of, with_sources
from lightning_prompts.tuners.record import LMRecord
from tests.records import make_record
from tests.tiny import save_model

WORDS = {"negative": " terrible", "positive": " great"}
TASK = ("--config", "configs/task/demo.yaml")
TEXTS = ("", " Now", " In one\nword")


def by_hand(lm: FrozenLM, text: str, rows: list[dict[str, str]]) -> torch.Tensor:
    """[N, C] Log-probabilities, a row at a time by the model itself."""
    words = torch.tensor([lm.encode(word)[0] for word in WORDS.values()])
    found = []
    for row in rows:
        ids = [*lm.encode(text), *lm.encode(row["text"] + " It was")]
        logits = lm.model(torch.tensor([ids])).logits[0, -1]
        found.append(logits[words].log_softmax(-1))
    return torch.stack(found)


@pytest.fixture(scope="module")
def other_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with other weights and more tokens."""
    folder = tmp_path_factory.mktemp("models") / "other"
    save_model(folder, seed=1, characters="é")
    return folder


def options(review_folder: Path, *models: Path) -> list[str]:
    given = [*TASK, "--data.path", str(review_folder)]
    given += ["--data.template", "{prompt}{text} It was", "--trainer.precision", "32-true"]
    return [*given, *(f"--lm.name={model}" for model in models)]


@torch.no_grad()
def test_each_text_on_each_model(
    lm_folder: Path, other_folder: Path, review_folder: Path, tmp_path: Path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    alive: list[int] = []
    seen: list[weakref.ref[FrozenLM]] = []
    build = FrozenLM.__init__

    @functools.wraps(build)  # the command line reads its signature
    def counted(lm: FrozenLM, *args: Any, **kwargs: Any) -> None:
        alive.append(sum(ref() is not None for ref in seen))
        seen.append(weakref.ref(lm))
        build(lm, *args, **kwargs)

    monkeypatch.setattr(FrozenLM, "__init__", counted)
    gc.collect()
    args = ["transfer", *TEXTS[1:], *options(review_folder, lm_folder, other_folder)]
    main(args)
    assert alive == [0, 0]  # each read once, and the first one gone before the second
    monkeypatch.setattr(FrozenLM, "__init__", build)
    said = capsys.readouterr()

    rows, train = (
        [json.loads(line) for line in (review_folder / f"{name}.jsonl").open()]
        for name in ("validation", "train")
    )
    labels = torch.tensor([[*WORDS].index(row["label"]) for row in rows])
    found = json.loads(Path("logs/transfer/transfer.json").read_text())
    cells = found["cells"]
    assert [(cell["model"], cell["text"]) for cell in cells] == [
        (folder.name, text) for folder in (lm_folder, other_folder) for text in TEXTS
    ]
    ps = []
    for folder in (lm_folder, other_folder):
        lm = FrozenLM(str(folder))
        for text in TEXTS:
            cell = cells[len(ps)]
            raw = by_hand(lm, text, rows)
            right = []
            for way, scores in (
                ("raw", raw),
                ("recalibrated", raw - by_hand(lm, text, train).mean(0)),
            ):
                answered = scores.argmax(-1)
                right.append(answered == labels)
                assert cell[way]["accuracy"] == pytest.approx(float(right[-1].float().mean()))
                assert cell[way]["shares"] == pytest.approx(
                    [float((answered == i).float().mean()) for i in range(2)]
                )
                loss = torch.nn.functional.cross_entropy(scores, labels)
                assert cell[way]["loss"] == pytest.approx(float(loss), abs=1e-5)
                share = cell[way]["accuracy"]
                for end in cell[way]["interval"]:  # where the score test is on its border
                    error = math.sqrt(end * (1 - end) / len(rows))
                    assert abs(share - end) == pytest.approx(1.959964 * error, rel=1e-5)
            only = [int((a & ~b).sum()) for a, b in (right, right[::-1])]
            test = cell["mcnemar"]
            assert [test["only_raw"], test["only_recalibrated"]] == only
            n = sum(only)
            ways = [math.comb(n, k) for k in range(n + 1)]
            ps.append(sum(each for each in ways if each <= ways[only[0]]) / 2**n)
            assert test["p"] == pytest.approx(ps[-1])
            if text:
                ids = torch.tensor([[lm.bos_id, *lm.encode(text)]])
                nats = lm.model(ids, labels=ids).loss
                assert cell["perplexity"] == pytest.approx(float(nats.exp()), rel=1e-4)
                per_character = float(nats) * (ids.shape[1] - 1) / len(text)
                assert cell["nats_per_character"] == pytest.approx(per_character, rel=1e-4)
            assert (cell["round_trip"], cell["kept"]) == (1.0, True)
            shown = f"{cell['raw']['accuracy']:.3f}, recalibrated"
            assert shown in said.err
    assert [cell["mcnemar"]["p_holm"] for cell in cells] == pytest.approx(holm(ps))
    page = Path("logs/transfer/transfer.html").read_text()
    for shown in (page, said.out, said.err):  # escaped, and once
        assert "In one\\nword" in shown
    assert page.count("data:image/svg+xml") == 1
    assert Path("logs/transfer/figures/transfer.png").read_bytes()[:4] == b"\x89PNG"

    # It goes on where it was stopped, in the middle of a line too.
    kept = Path("logs/transfer", CELLS)
    lines = kept.read_text().splitlines(keepends=True)
    kept.write_text("".join(lines[:4]) + lines[4][:50])
    main(args)
    assert capsys.readouterr().err.count("(kept)") == 4
    assert json.loads(Path("logs/transfer/transfer.json").read_text()) == found
    assert kept.read_text().splitlines(keepends=True) == lines


def test_a_run_moves_as_its_text(
    lm: FrozenLM, lm_folder: Path, review_folder: Path, tmp_path: Path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    ids = [lm.encode(character)[0] for character in " good!"]  # the text has a token for the word
    template = "{prompt}{text} It was"
    record = make_record(tuner="PEZ", lm=LMRecord.of(lm), text=" good!", ids=ids, template=template)
    Path("run").mkdir()
    write_json(Path("run/prompt.json"), record.to_json())
    Path("same.txt").write_text(" good!\n")
    few = ["--trainer.limit_val_batches", "1", "--data.val_batch_size", "4", "--output", "out"]
    last = ["--data.template", "{text}{prompt}", *few]
    main(["transfer", "run", "same.txt", *options(review_folder, lm_folder), *last])
    cells = json.loads(Path("out/transfer.json").read_text())["cells"]
    assert [cell["prompt"] for cell in cells] == ["no prompt", "PEZ ' good!'"]
    assert [cell["tokens"] for cell in cells] == [0, 2]
    assert [cell["learned_tokens_left"] for cell in cells] == [None, pytest.approx(1 / 6)]
    assert {len(cell["raw"]["correct"]) for cell in cells} == {4}
    said = capsys.readouterr()
    assert f"was learned in the template {template!r}, and is scored in" in said.err
    assert "the longest 4 of 10 rows" in said.out


def test_what_a_word_means(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path("texts.txt").write_text(" a\n\nb\n")
    assert [moved.text for moved in texts_of("texts.txt")] == [" a", "b"]
    assert [moved.text for moved in texts_of("and/or")] == ["and/or"]
    asked = divide([" a", "b", "--lm.name=x", "--data.seed", "1", "--lm.name", "y", "--lm.name=x"])
    assert (asked.prompts, asked.models) == ([" a", "b"], ["x", "y"])
    assert asked.options == ["--data.seed", "1"]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ([], "Say first which prompts to move"),
        (["--lm.name", "x", "a"], "Say first which prompts to move"),
        (["a"], "Say on which models, each with --lm.name"),
        (["a", "--lm.name", "--output", "b"], "--lm.name needs a value"),
        (["a", "--lm.name", "x", "--model.lr", "1"], "--model.lr: a text that is scored has no"),
        (["a", "--lm.name", "x", "--output", "empty.txt"], "empty.txt cannot be written"),
        ([" ", "--lm.name", "x"], "A prompt is empty"),
        (["./nowhere", "--lm.name", "x"], "./nowhere: no such file or folder"),
        (["logs", "--lm.name", "x"], "logs: no run with a validated prompt"),
        (["empty.txt", "--lm.name", "x"], "empty.txt: has no text"),
        (["gone.pt", "--lm.name", "x"], "gone.pt: no such file or folder"),
        (["rows.pt", "--lm.name", "x"], "rows.pt has vectors and does not say of which model"),
        (["a", "--lm.name", "x"], "Missing --data"),
        (["a", "--lm.name", "./gone", *TASK], "./gone': no such folder"),
    ],
)
def test_mistakes_end_before_a_model_is_read(
    args: list[str], said: str, tmp_path: Path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    Path("empty.txt").write_text("\n\n")
    Path("logs").mkdir()
    torch.save(torch.zeros(2, 8), "rows.pt")
    with pytest.raises(SystemExit) as stop:
        main(["transfer", *args])
    assert stop.value.code == 2
    assert said in capsys.readouterr().err


def test_a_text_that_a_model_cannot_read(
    lm_folder: Path, review_folder: Path, tmp_path: Path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    long = " word" * 60
    with pytest.raises(SystemExit) as stop:
        main(["transfer", " Now", long, *options(review_folder, lm_folder)])
    assert stop.value.code == 2
    assert "has 300 tokens in" in capsys.readouterr().err


@torch.no_grad()
def test_a_soft_prompt_moves_by_its_vectors_too(
    lm: FrozenLM,
    lm_folder: Path,
    other_folder: Path,
    review_folder: Path,
    tmp_path: Path,
    monkeypatch,
    capsys,
):
    """The scores of plain transformers on vectors that are looked for with numpy."""
    monkeypatch.chdir(tmp_path)
    vectors = torch.randn(3, 16, generator=torch.Generator().manual_seed(0))
    about = {"lm": LMRecord.of(lm), "text": " Now", "ids": lm.encode(" Now"), "in_use": "vectors"}
    record = make_record(**about, template="{prompt}{text} It was")
    Path("run/checkpoints").mkdir(parents=True)
    write_json(Path("run/prompt.json"), record.to_json())
    assert [moved.vectors for moved in texts_of("run")] == [None]  # without its checkpoint
    assert "its vectors do not move, its text alone" in capsys.readouterr().err
    torch.save({"state_dict": {"prompt": vectors}}, "run/checkpoints/best.ckpt")
    main(["transfer", "run", *options(review_folder, lm_folder, other_folder)])
    cells = json.loads(Path("logs/transfer/transfer.json").read_text())["cells"]
    names = ["no prompt", "SoftPrompt ' Now'", "moved vectors of SoftPrompt ' Now'"]
    assert [cell["prompt"] for cell in cells] == 2 * names
    assert [cell["vectors"] for cell in cells] == 2 * [False, False, True]
    assert [cell["learned_tokens_left"] for cell in cells] == [None, 1.0, 1.0, None, None, None]
    assert [cell["tokens"] for cell in cells] == 2 * [0, 4, 3]

    rows = [json.loads(line) for line in (review_folder / "validation.jsonl").open()]
    labels = torch.tensor([[*WORDS].index(row["label"]) for row in rows])
    other = FrozenLM(str(other_folder))
    shared = [text for text in lm.vocabulary if text in other.vocabulary and text != lm.decode([0])]
    tables = [
        torch.stack([each.embedding_table[each.vocabulary[text]] for text in shared]).double()
        for each in (lm, other)
    ]
    s, t = (torch.nn.functional.normalize(table, dim=1).numpy() for table in tables)
    found = []
    for v in vectors.double():
        u = torch.from_numpy(np.linalg.pinv(t) @ (s @ (v / v.norm()).numpy()))
        ratio = tables[1].norm(dim=1).mean() / tables[0].norm(dim=1).mean()
        found.append(u / u.norm() * v.norm() * ratio)
    for each, prompt, cell in (
        (lm, vectors, cells[2]),
        (other, torch.stack(found).float(), cells[5]),
    ):
        words = [each.encode(word)[0] for word in WORDS.values()]
        scores = []
        for row in rows:
            text = each.embedding_table[each.encode(row["text"] + " It was")]
            logits = each.model(inputs_embeds=torch.cat([prompt, text])[None]).logits[0, -1]
            scores.append(logits[words])
        loss = torch.nn.functional.cross_entropy(torch.stack(scores), labels)
        assert cell["raw"]["loss"] == pytest.approx(float(loss), abs=1e-4)

    lost = make_record(**{**about, "lm": LMRecord("gone", "0" * 16, "./gone")})
    write_json(Path("run/prompt.json"), lost.to_json())
    assert [moved.vectors for moved in with_sources(texts_of("run"))] == [None]
    assert "The vectors of gone do not move, their texts alone" in capsys.readouterr().err
