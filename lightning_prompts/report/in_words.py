"""What the model says of a prompt in its own words: tables and sentences."""

from collections.abc import Iterator, Sequence

from lightning_prompts.files.amounts import count, share
from lightning_prompts.files.text import shorten
from lightning_prompts.metrics.in_words import FRAMES, Readout
from lightning_prompts.report.tables import Table

SHOWN = 8  # descriptions
READING = (
    "In its own words: the prompt's states at a layer (from) stand in for placeholders in a "
    "sentence at a layer (to), and the model goes on; the layer 0 is what it reads. Named is the "
    "largest share of a list of words that one description has: answers of the verbalizer, names "
    "of the classes, words of the task's description. Frames, layers and lists were fixed before. "
    "The best of many descriptions is taken, so it counts only beside what is read out in the same "
    "way of the nearest tokens, of random vectors of the same norms, and of other runs' prompts."
)


def tables(found: Sequence[Readout], length: int) -> Iterator[Table]:
    """What each prompt names, and what was written of the first.

    Args:
        found: The prompt's, then the controls'; maybe none.
        length: Characters of a text.
    """
    if not found:
        return
    lists = list(found[0].best)
    rows = [
        [shorten(each.name, length), *map(share, each.best.values()), share(each.named_any)]
        for each in found
    ]
    heads = ["read out", *lists, "any word"]
    strong = frozenset({0})
    yield Table("In its own words: the share named, at best", heads, rows, strong=strong)
    best = sorted(found[0].descriptions, key=lambda each: -len(each.named))[:SHOWN]
    rows = [
        [
            shorten(" ".join(each.text.split()), 2 * length - 8),
            ", ".join(each.named),
            f"{each.frame + 1}",
            f"{each.taken}",
            f"{each.put}",
        ]
        for each in best
    ]
    heads = ["written of the prompt", "names", "frame", "from", "to"]
    frames = "; ".join(f"{i}: {f.before}...{f.after}" for i, f in enumerate(FRAMES, 1))
    title = "What names the most words"
    yield Table(title, heads, rows, 2, note=f"Frames, with ... for the prompt: {frames}")


def sentences(found: Sequence[Readout]) -> Iterator[str]:
    """How the prompt stands beside the random vectors."""
    if not found:
        return
    prompt, draws = found[0], [each for each in found if each.kind == "random"]
    for name, value in prompt.best.items():
        as_much = sum(each.best[name] >= value for each in draws)
        yield (
            f"In its own words it names {share(value)} of the list '{name}' at best; "
            f"{as_much} of {count(len(draws), 'draw')} of random vectors name as much or more."
        )
