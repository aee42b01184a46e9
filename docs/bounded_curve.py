"""Draws docs/figures/bounded_*.png from bounded_curve.json: `python docs/bounded_curve.py`."""

import json
import sys
from collections import defaultdict
from pathlib import Path
from statistics import fmean

from matplotlib.figure import Figure

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent))

from lightning_prompts.report.figures import looks  # noqa: E402 - from the folder above

SPLITS = {
    "test": ("1,821 test rows", looks.VERMILLION),
    "validation": ("872 validation rows", looks.BLUE),
}


def figure() -> Figure:
    """Accuracy over the bound, a dot a run and a line through the means."""
    runs = json.loads((DOCS / "bounded_curve.json").read_text())["runs"]
    bounds = [0.0, 0.1, 0.3, 1.0, None]
    names = ["0\n(the text)", "0.1", "0.3", "1", "no bound"]
    with looks.style():
        drawn = Figure(figsize=(6.4, 3.8))
        axes = drawn.add_subplot()
        for split, (label, colour) in SPLITS.items():
            found = defaultdict(list)
            for run in runs:
                found[run["epsilon"]].append(run[split])
            places = [i for i, bound in enumerate(bounds) if found[bound]]
            means = [fmean(found[bounds[i]]) for i in places]
            axes.plot(places, means, color=colour, label=label)
            dots = [(i, value) for i in places for value in found[bounds[i]]]
            axes.plot(*zip(*dots, strict=True), "o", color=colour, markersize=4, alpha=0.7)
        axes.set_xticks(range(len(bounds)), names)
        axes.set_xlabel("ε, the farthest that a vector may be, in lengths of its token's row")
        axes.set_ylabel("accuracy")
        axes.legend(loc="lower right")
    return drawn


def texts() -> Figure:
    """Test accuracy over the bound, a line a text, model and place of the prompt."""
    bounds = [0.0, 0.1, 0.3, None]
    with looks.style():
        drawn = Figure(figsize=(6.4, 4.6))
        axes = drawn.add_subplot()
        for name, found in by_text().items():
            place = len(axes.get_lines())
            values = [fmean(found[bound]) for bound in bounds]
            style = {"color": looks.PALETTE[place], "marker": looks.MARKERS[place]}
            axes.plot(range(len(bounds)), values, label=name, **style)
        axes.set_xticks(range(len(bounds)), ["0\n(the text)", "0.1", "0.3", "no bound"])
        axes.set_xlabel("ε, the farthest that a vector may be, in lengths of its token's row")
        axes.set_ylabel("accuracy, 1,821 test rows")
        axes.legend(loc="upper center", bbox_to_anchor=(0.45, -0.2), frameon=False)
    return drawn


def by_text() -> dict[str, dict[float | None, list[float]]]:
    """Test accuracies of each text by bound; those of the first text are one a seed."""
    content = json.loads((DOCS / "bounded_curve.json").read_text())
    first = {"text": content["text"], "model": "SmolLM2", "place": "last"}
    found: dict[str, dict[float | None, list[float]]] = defaultdict(lambda: defaultdict(list))
    for run in [*({**first, **run} for run in content["runs"]), *content["others"]]:
        name = f"“{run['text'].strip()}”, {run['model']}, prompt {run['place']}"
        found[name][run["epsilon"]].append(run["test"])
    return found


if __name__ == "__main__":
    for name, made in (("bounded_curve", figure()), ("bounded_texts", texts())):
        made.savefig(DOCS / "figures" / f"{name}.png", dpi=160, bbox_inches="tight")
