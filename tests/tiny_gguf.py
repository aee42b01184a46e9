"""A tiny llama as a `.gguf` file, whole or in parts as llama.cpp's `gguf-split` makes them."""

from pathlib import Path
from typing import Any

import numpy as np

from tests.tiny import END, WHOLE_WORDS

LAYERS, HIDDEN, HEADS, INNER, POSITIONS = 2, 16, 2, 32, 256
NUM_TENSORS = 3 + 9 * LAYERS


def tensors(seed: int = 0, vocabulary: int | None = None) -> dict[str, np.ndarray]:
    """Random weights of an untied llama under llama.cpp's names, as float32."""
    size = len(tokens()) if vocabulary is None else vocabulary
    shapes = {"token_embd.weight": (size, HIDDEN)}
    for i in range(LAYERS):
        shapes |= {f"blk.{i}.attn_{x}.weight": (HIDDEN, HIDDEN) for x in ("q", "k", "v", "output")}
        shapes |= {f"blk.{i}.ffn_{x}.weight": (INNER, HIDDEN) for x in ("gate", "up")}
        shapes |= {f"blk.{i}.ffn_down.weight": (HIDDEN, INNER)}
        shapes |= {f"blk.{i}.{x}_norm.weight": (HIDDEN,) for x in ("attn", "ffn")}
    shapes |= {"output_norm.weight": (HIDDEN,), "output.weight": (size, HIDDEN)}
    generator = np.random.default_rng(seed)
    return {
        name: (generator.normal(size=shape) * 0.2 + ("norm" in name)).astype(np.float32)
        for name, shape in shapes.items()
    }


def tokens() -> list[str]:
    """A byte-level vocabulary (` ` is `Ġ`): single characters, and the answer words whole."""
    characters = [chr(code) for code in range(33, 127)] + ["Ġ", "Ċ"]
    merged = ["".join(pair) for pair in merges()]
    return [END, *characters, *dict.fromkeys(merged)]


def merges() -> list[tuple[str, str]]:
    """Pairs that build the answer words, each letter by letter from its beginning."""
    words = ["Ġ" + word.strip() for word in WHOLE_WORDS]
    return list(dict.fromkeys((w[:i], w[i]) for w in words for i in range(1, len(w))))


def save_gguf(
    path: Path,
    parts: int = 1,
    without: str = "",
    rope: dict[str, Any] | None = None,
    **kwargs: int,
) -> list[Path]:
    """Write the model.

    Args:
        path: Of a whole file; parts add `-00001-of-0000N` to its stem.
        parts: Number of files; the description is in the first, tensors are in all.
        without: A tensor to leave out.
        rope: How positions are scaled: `type` and `factor`, or `freqs`, which is a tensor.
        **kwargs: For `tensors`.

    Returns:
        The files written.
    """
    import gguf

    weights = {k: v for k, v in tensors(**kwargs).items() if k != without}
    if rope and "freqs" in rope:
        weights["rope_freqs.weight"] = np.array(rope["freqs"], dtype=np.float32)
    names = list(weights)
    files = [path]
    if parts > 1:
        files = [path.with_stem(f"{path.stem}-{i:05d}-of-{parts:05d}") for i in range(1, parts + 1)]
    for number, file in enumerate(files):
        writer = gguf.GGUFWriter(file, "llama")
        if number == 0:
            describe(writer)
            if rope and "type" in rope:
                writer.add_rope_scaling_type(gguf.RopeScalingType(rope["type"]))
            if rope and "factor" in rope:
                writer.add_rope_scaling_factor(rope["factor"])
        if parts > 1:
            writer.add_uint16("split.no", number)
            writer.add_uint16("split.count", parts)
            writer.add_int32("split.tensors.count", len(names))
        first, last = (len(names) * i // parts for i in (number, number + 1))
        for name in names[first:last]:
            writer.add_tensor(name, weights[name])
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return files


def describe(writer: object) -> None:
    """Sizes and tokenizer."""
    import gguf

    assert isinstance(writer, gguf.GGUFWriter)
    writer.add_block_count(LAYERS)
    writer.add_context_length(POSITIONS)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(tokens()))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens())
    writer.add_token_types([3] + [1] * (len(tokens()) - 1))  # control, then normal
    writer.add_token_merges([" ".join(pair) for pair in merges()])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
