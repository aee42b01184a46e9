"""What a number means under a language model: `python -m tests.lm.model_numbers smollm2`.

Perplexities of texts that people write, of random tokens and of repetition; what stands before a
text; which tokens come back from their own text, and which ones random vectors are nearest to.
"""

import sys
from collections import Counter
from typing import Any

import torch

from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.lm.nearest import nearest_tokens

INSTRUCTIONS = (
    " In one word, the movie was",
    " Is this review positive or negative?",
    " Say whether the review is positive or negative.",
    " Read the following text and answer the question.",
    " Classify the sentiment of this movie review.",
)
SENTENCE = "The weather was nice, so we went for a walk in the park."
END = "<|endoftext|>"
LENGTH = 10  # tokens of a random prompt
DRAWS = 50


def coming_back(tokenizer: Any, num_rows: int) -> float:
    """Share of token ids that their own text gives back, alone and unchanged."""
    ids = range(min(num_rows, len(tokenizer)))
    options = {"skip_special_tokens": False, "clean_up_tokenization_spaces": False}
    texts = [tokenizer.decode([i], **options) for i in ids]
    found = tokenizer(texts, add_special_tokens=False).input_ids
    return sum(back == [i] for i, back in zip(ids, found, strict=True)) / len(ids)


@torch.no_grad()
def perplexity(lm: FrozenLM, ids: list[int], before: int | None = None) -> float:
    """Of tokens behind BOS, or behind another token."""
    own, lm.bos_id = lm.bos_id, lm.bos_id if before is None else before
    try:
        return lm.token_nll(torch.tensor([ids])).mean().exp().item()
    finally:
        lm.bos_id = own


def ordinary(lm: FrozenLM) -> list[int]:
    """Ids that are not special."""
    special = set(lm.special_ids)
    return [i for i in range(min(lm.vocab_size, len(lm.tokenizer))) if i not in special]


def drawn(lm: FrozenLM, shape: tuple[int, ...]) -> torch.Tensor:
    """Random ordinary ids."""
    known = torch.tensor(ordinary(lm))
    return known[torch.randint(len(known), shape, generator=torch.Generator().manual_seed(0))]


def perplexities(lm: FrozenLM) -> dict[str, tuple[float, float, float]]:
    """Least, median and greatest perplexity of each kind of text."""
    kinds = {
        "five instructions": [lm.encode(text) for text in INSTRUCTIONS],
        "ten random tokens": drawn(lm, (DRAWS, LENGTH)).tolist(),
        "` the` ten times": [lm.encode(" the") * LENGTH],
        "a random token ten times": [[i] * LENGTH for i in drawn(lm, (DRAWS,)).tolist()],
    }
    found = {}
    for kind, rows in kinds.items():
        values = torch.tensor([perplexity(lm, ids) for ids in rows])
        found[kind] = (values.min().item(), values.median().item(), values.max().item())
    return found


def sentence_behind(lm: FrozenLM) -> dict[str, float]:
    """Perplexity of a plain sentence behind the tokens that end or begin what a model has read."""
    marks = {"BOS": lm.bos_id, "EOS": lm.eos_id, "endoftext": lm.vocabulary.get(END)}
    ids = lm.encode(SENTENCE)
    return {mark: perplexity(lm, ids, i) for mark, i in marks.items() if i is not None}


def nearest_to_random(lm: FrozenLM, distance: Any, count: int = 1000) -> tuple[float, list[str]]:
    """The share of random vectors that go to the ten commonest tokens, and these tokens.

    Vectors have the mean and the standard deviation of all numbers of the embedding table.
    """
    table = lm.embedding_table
    noise = torch.randn(count, lm.hidden_size, generator=torch.Generator().manual_seed(0))
    vectors = table.mean() + table.std() * noise
    special = torch.tensor(lm.special_ids)
    ids = nearest_tokens(vectors, lm.index, distance, special).ids.tolist()
    common = Counter(ids).most_common(10)
    return sum(n for _, n in common) / count, lm.token_strings([i for i, _ in common])


def cells(lm: FrozenLM) -> dict[str, str]:
    """The rows of docs/models.md's table, by what they begin with."""
    found = {"ids that their own text gives back": share(coming_back(lm.tokenizer, lm.vocab_size))}
    for kind, (least, median, most) in perplexities(lm).items():
        spread = "" if least == most else f" ({rounded(least)} to {rounded(most)})"
        found[f"perplexity of {kind}"] = f"{rounded(median)}{spread}"
    for mark, value in sentence_behind(lm).items():
        found[f"perplexity of a plain sentence behind {mark}"] = rounded(value)
    for distance in ("euclidean", "cosine"):
        part, tokens = nearest_to_random(lm, distance)
        first = ", ".join(f"`{token}`" for token in tokens[:3])
        found[f"random vectors that go to ten tokens, {distance}"] = (
            f"{100 * part:.0f} %, first {first}"
        )
    return found


def share(value: float) -> str:
    """In percent."""
    return f"{100 * value:.2f} %"


def rounded(value: float) -> str:
    return f"{value:.0f}" if value < 1000 else f"{value:.1e}".replace("e+0", "e").replace("e+", "e")


def main() -> None:
    lm = FrozenLM(sys.argv[1])
    sys.stdout.write(f"{lm.label}\n")
    for row, cell in cells(lm).items():
        sys.stdout.write(f"| {row} | {cell} |\n")


if __name__ == "__main__":
    main()
