#!/usr/bin/env bash
# transformers 5.23.0 with gguf 0.19.0: the first part of a split model is taken for the model.
#
# Expected: given the first of the parts that gguf's own writer makes, which llama.cpp opens the
#   whole model by, `from_pretrained(..., gguf_file=...)` reads all parts, or refuses a file whose
#   header says that it is one of three.
# Seen: it reads that file alone and returns a model. Every weight of the other parts is drawn at
#   random, another one for each seed; a table in the log is all that tells. Saved and loaded again,
#   the model is complete, and nothing tells any more.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --no-deps torch==2.13.0
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.23.0 gguf==0.19.0 accelerate==1.15.0
cd "$folder"
cat > shard.py <<'PY'
import logging
import os
import warnings

warnings.filterwarnings("ignore")
logging.disable(logging.CRITICAL)
import gguf
import numpy as np
import torch
from transformers import AutoModelForCausalLM

HIDDEN, INNER, WORDS, LAYERS = 32, 64, 48, 2


def write(path, **split):
    writer = gguf.GGUFWriter(path, "llama", **split)
    writer.add_block_count(LAYERS)
    writer.add_context_length(64)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(WORDS)
    shapes = {"token_embd": (WORDS, HIDDEN), "output_norm": (HIDDEN,), "output": (WORDS, HIDDEN)}
    for i in range(LAYERS):
        shapes |= {f"blk.{i}.attn_{x}": (HIDDEN, HIDDEN) for x in ("q", "k", "v", "output")}
        shapes |= {f"blk.{i}.ffn_{x}": (INNER, HIDDEN) for x in ("gate", "up")}
        shapes |= {f"blk.{i}.ffn_down": (HIDDEN, INNER)}
        shapes |= {f"blk.{i}.{x}_norm": (HIDDEN,) for x in ("attn", "ffn")}
    values = np.random.default_rng(0)
    for name, shape in shapes.items():
        writer.add_tensor(name + ".weight", values.normal(size=shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


os.makedirs("model")
write("model/whole.gguf")
write("model/part.gguf", split_max_tensors=7)
files = sorted(os.listdir("model"))
print(len(files) - 1, "parts")


def load(name, seed):
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_pretrained("model", gguf_file=name).state_dict()


whole = load("whole.gguf", 0)
assert all(torch.equal(value, whole[key]) for key, value in load("whole.gguf", 1).items())
first, again = (load(files[0], seed) for seed in (0, 1))
same = sum(torch.equal(first[key], whole[key]) for key in whole)
drawn = sum(not torch.equal(first[key], again[key]) for key in whole)
print(f"first part alone: loaded, {same} of {len(whole)} weights are the file's, {drawn} change with the seed")
PY
cat > expected <<'TXT'
3 parts
first part alone: loaded, 7 of 21 weights are the file's, 10 change with the seed
TXT
"$folder/venv/bin/python" shard.py 2> errors | tee seen || { cat errors; exit 1; }
diff expected seen && echo "As described: transformers 5.23.0 makes the weights of the other parts up."
