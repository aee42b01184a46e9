"""`inspect --compare`: which prompts act alike, against a draw of rows at a time in float64."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_prompts.cli.main import main
from lightning_prompts.files import drawing
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.studies import inspect_scores
from lightning_prompts.studies.written import LAST
from tests.studies.inspecting import Exact, a_run, as_tokens, kappa, kl, quick, thresholded


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
