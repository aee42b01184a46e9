#!/usr/bin/env bash
# transformers 5.23.0 with gguf 0.19.0: the scaling of rotary positions in a file is left out.
#
# Expected: `from_pretrained(..., gguf_file=...)` turns positions as the file says, or refuses it.
# Seen: `rope.scaling.type` and `.factor` (converted Gemma 3 from 4B on, long-context models) and the
#   tensor `rope_freqs.weight` (converted Llama 3.1 and later) are dropped without a warning. The
#   config says `rope_type: default`, and the logits are, to the bit, those of a file without any
#   scaling. A model that was trained with a factor of 8 turns 8 times too fast, at short texts too.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --no-deps torch==2.13.0
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.23.0 gguf==0.19.0 accelerate==1.15.0
cd "$folder"
cat > scaling.py <<'PY'
import os
import warnings

warnings.filterwarnings("ignore")
import gguf
import numpy as np
import torch
from transformers import AutoModelForCausalLM

HIDDEN, INNER, WORDS, LAYERS, HEADS = 32, 64, 48, 2, 2
FACTORS = [1, 1, 1, 2, 4, 8, 8, 8]  # of the HIDDEN / HEADS / 2 frequencies, as Llama 3.1's are


def write(path, factor=None, factors=None):
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(LAYERS)
    writer.add_context_length(64)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(WORDS)
    writer.add_rope_dimension_count(HIDDEN // HEADS)
    writer.add_rope_freq_base(10000.0)
    if factor is not None:
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(factor)
    shapes = {"token_embd": (WORDS, HIDDEN), "output_norm": (HIDDEN,), "output": (WORDS, HIDDEN)}
    for i in range(LAYERS):
        shapes |= {f"blk.{i}.attn_{x}": (HIDDEN, HIDDEN) for x in ("q", "k", "v", "output")}
        shapes |= {f"blk.{i}.ffn_{x}": (INNER, HIDDEN) for x in ("gate", "up")}
        shapes |= {f"blk.{i}.ffn_down": (HIDDEN, INNER)}
        shapes |= {f"blk.{i}.{x}_norm": (HIDDEN,) for x in ("attn", "ffn")}
    values = np.random.default_rng(0)
    for name, shape in shapes.items():
        writer.add_tensor(name + ".weight", values.normal(size=shape).astype(np.float32))
    if factors is not None:
        writer.add_tensor("rope_freqs.weight", np.array(factors, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def load(name, **scaling):
    write(f"model/{name}.gguf", **scaling)
    return AutoModelForCausalLM.from_pretrained("model", gguf_file=f"{name}.gguf").eval()


os.makedirs("model")
ids = torch.arange(1, 41)[None]
with torch.no_grad():
    plain = load("plain")(ids).logits
    for name, scaling in {"linear": {"factor": 8.0}, "rope_freqs": {"factors": FACTORS}}.items():
        model = load(name, **scaling)
        kind, same = model.config.rope_parameters["rope_type"], torch.equal(model(ids).logits, plain)
        model.model.rotary_emb.inv_freq /= torch.tensor(scaling.get("factors", 8.0))
        far = float((model(ids).logits - plain).abs().max() / plain.abs().max())
        print(f"{name}: rope_type {kind}; the logits of a file without scaling: {same}; "
              f"with scaling they are others: {far > 0.01}")
PY
cat > expected <<'TXT'
linear: rope_type default; the logits of a file without scaling: True; with scaling they are others: True
rope_freqs: rope_type default; the logits of a file without scaling: True; with scaling they are others: True
TXT
"$folder/venv/bin/python" scaling.py 2> errors | tee seen || { cat errors; exit 1; }
diff expected seen && echo "As described: transformers 5.23.0 drops a GGUF file's scaling in silence."
