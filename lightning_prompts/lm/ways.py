"""What of a model's states may be reused, and how far its layers see."""

from typing import Any, NamedTuple

# Where configurations say how far local layers see.
WINDOWS = (
    *("sliding_window", "window_size", "attention_window_size", "local_attention"),
    "attention_chunk_size",
)


class Ways(NamedTuple):
    """Ways through a model that give what whole sequences give.

    Attributes:
        prompts_first: A prompt is encoded once, its keys and values expanded to the texts behind.
        texts_first: A text's keys and values are kept, and a prompt is read behind them.
        block_masks: Several prompts are read behind one text at once, by a mask of ours.
        continued: Rows are written token by token from the keys and values of their beginning.
        trees: Samples grow as trees in one row.
    """

    prompts_first: bool = True
    texts_first: bool = True
    block_masks: bool = True
    continued: bool = True
    trees: bool = True


def local_window(config: Any) -> int | None:
    """Tokens that the narrowest local layer sees, by a model's configuration; None without any."""
    given = vars(config)
    sizes = [given.get(name) for name in WINDOWS]
    if given.get("use_sliding_window") is False:
        sizes[0] = None
    found = [size for size in sizes if isinstance(size, int) and size > 0]
    kinds = given.get("layer_types") or []
    if any("sliding" in kind or "chunk" in kind for kind in kinds) and not found:
        return 1
    return min(found, default=None)
