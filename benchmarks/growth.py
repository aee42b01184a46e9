"""How costs grow with sizes: a table of exponents, and docs/figures/growth.png.

python -m benchmarks.growth
python -m benchmarks.growth --only K,V --repetitions 3
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import torch

from benchmarks.builds import ROOT
from benchmarks.exponents import Growth
from benchmarks.gcg import edits, scores
from benchmarks.growth_figure import draw
from benchmarks.lines import alternate
from benchmarks.report import machine
from benchmarks.sections import write_section
from benchmarks.setting import (
    PROMPT_LAST,
    Setting,
    save_random_model,
    verbalizer,
    words,
)
from benchmarks.steps import Shape, batch_of, product, tuner_of
from lightning_prompts.lm.nearest import EmbeddingIndex, nearest_tokens
from lightning_prompts.lm.template import Template
from lightning_prompts.tuners import SoftPrompt

HIDDEN = 640  # of Gemma 3 270M, whose vocabulary has 262,144 entries
RESULTS = Path(__file__).with_name("results.md")
FIGURE = ROOT / "docs/figures/growth.png"
EXPLANATION = """\
Medians; each size is measured in turn with the others. The exponent e of cost = a * size^e is
fitted by least squares of the logarithms over the four largest sizes: 1 is proportional, 0 does not
grow. Prompt first where a soft step is timed, and last behind kept texts for the candidates.
"""


# ---- what grows

Ways = dict[int, Callable[[], object]]


def soft_steps(setting: Setting, shapes: Mapping[int, Shape]) -> Ways:
    """A training step of each shape."""
    lm = setting.lm()
    found: Ways = {}
    for size, shape in shapes.items():
        tuner = tuner_of(SoftPrompt, lm, setting, shape)
        found[size] = product(tuner, batch_of(tuner, setting, shape)).stepper()
    return found


def candidates(setting: Setting, sizes: Sequence[int]) -> tuple[str, Ways]:
    """K prompts scored on the same rows."""
    lm = setting.lm()
    template = Template(PROMPT_LAST, lm)
    tuner = SoftPrompt(lm, template, verbalizer(lm), prompt_length=10)
    batch = setting.batch(lm, template, 1, 128)
    prompt = words(lm, 10, seed=1)
    ids = {size: edits(prompt, words(lm, size, seed=2)) for size in sizes}
    ways = {size: lambda k=k: scores(tuner, k, batch, False) for size, k in ids.items()}
    return "candidates scored, P=10, T=128, B=1", ways


def projections(sizes: Sequence[int]) -> tuple[str, Ways]:
    """10 vectors projected onto V entries, prepared once."""
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(max(sizes), HIDDEN, generator=generator)
    prompt = torch.randn(10, HIDDEN, generator=generator)
    indices = {size: EmbeddingIndex(table[:size]) for size in sizes}
    ways = {size: lambda i=i: nearest_tokens(prompt, i) for size, i in indices.items()}
    return f"projection, P=10, H={HIDDEN}", ways


def parts(setting: Setting, small: bool) -> dict[str, Callable[[], tuple[str, Ways]]]:
    """By the letter of what grows."""

    def step(work: str, shape: Callable[[int], Shape], sizes: Sequence[int]) -> tuple[str, Ways]:
        return work, soft_steps(setting, {size: shape(size) for size in sizes})

    def sizes(*given: int) -> list[int]:
        return [max(2, size // 16) for size in given] if small else list(given)

    def shape(prompt: int, text: int, batch: int) -> Shape:
        return Shape(prompt, text, batch, None, None, None)

    return {
        "K": lambda: candidates(setting, sizes(16, 32, 64, 128, 256)),
        "B": lambda: step(
            "soft step, P=10, T=32", lambda b: shape(10, 32, b), sizes(4, 8, 16, 32, 64)
        ),
        "T": lambda: step(
            "soft step, P=10, B=8", lambda t: shape(10, t, 8), sizes(16, 32, 64, 128, 256)
        ),
        "P": lambda: step(
            "soft step, T=32, B=8", lambda p: shape(p, 32, 8), sizes(10, 25, 50, 100, 200)
        ),
        "V": lambda: projections(sizes(16_384, 32_768, 65_536, 131_072, 262_144)),
    }


NAMES = ("K", "B", "T", "P", "V")


def main(args: Sequence[str] | None = None) -> None:
    """Measure, write the section, and draw."""
    parser = argparse.ArgumentParser(prog="benchmarks.growth", description=__doc__.splitlines()[0])
    parser.add_argument("--only", default=",".join(NAMES), help="letters (default: %(default)s)")
    parser.add_argument("--repetitions", type=int, default=5, help="of each size (default: 5)")
    parser.add_argument("--small", action="store_true", help="a tiny model, to try the script")
    parser.add_argument("--output", type=Path, help="default: results.md, where all is run")
    parser.add_argument("--figure", type=Path, help="default: docs/figures/growth.png, likewise")
    given = parser.parse_args(args)
    names = given.only.split(",")
    if unknown := set(names) - set(NAMES):
        parser.error(f"--only names {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}.")
    whole = names == list(NAMES) and not given.small
    with tempfile.TemporaryDirectory() as folder:
        save_random_model(Path(folder), given.small)
        setting = Setting("cpu", Path(folder), given.repetitions)
        found = list(measure(setting, names, given.small))
    text = section(found)
    sys.stdout.write(text)
    if output := given.output or (RESULTS if whole else None):
        write_section(output, "growth", text)
    if figure := given.figure or (FIGURE if whole else None):
        draw(found, figure)


def measure(setting: Setting, names: Sequence[str], small: bool) -> Iterator[Growth]:
    """One kind of size after the other."""
    makers = parts(setting, small)
    for name in names:
        work, ways = makers[name]()
        measured = alternate({str(n): way for n, way in ways.items()}, setting.repetitions)
        growth = Growth(name, work, {int(n): cost for n, cost in measured.items()})
        sys.stderr.write(f"{name}: exponent {growth.exponent:.2f}\n")
        yield growth


def section(found: Sequence[Growth]) -> str:
    """The table in Markdown."""
    rows = []
    for growth in found:
        for i, (size, cost) in enumerate(growth.costs.items()):
            shown = f"{growth.exponent:.2f}" if i == len(growth.costs) - 1 else ""
            work = growth.work if i == 0 else ""
            count = len(cost.values)
            rows.append(f"| {work} | {growth.name} = {size:,} | {count} | {cost} | {shown} |")
    return "\n".join(
        [
            "## Growth",
            "",
            f"GPT-2's shape with random weights, fp32. {machine()}",
            "",
            "| work | size | n | seconds | exponent |",
            "| --- | --- | --- | --- | --- |",
            *rows,
            "",
            EXPLANATION,
            "Written by `python -m benchmarks.growth`, which draws `docs/figures/growth.png`.",
            "",
        ]
    )


if __name__ == "__main__":
    main()
