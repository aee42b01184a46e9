#!/usr/bin/env bash
# transformers 5.23.0: `use_cache` decides which tokens a token sees, where positions have a gap.
#
# Expected: `use_cache` says whether keys and values are returned. The logits, the loss and what a
#   token attends to are the same with and without it, as are they with checkpointing.
# Seen: with `position_ids` and no mask, a step other than 1 between two positions is taken for the
#   border of two packed texts, and no token sees over it; but only without a cache. By default there
#   is one: two packed texts then see one another, and with `use_cache=False` or checkpointing, which
#   turns it off, they do not; so one row has another loss in training than in validation. A single
#   text whose positions leave a gap, as for a prompt that is put there later, loses all tokens before
#   it without a cache. No warning is given. A mask of ones gives what the cache gives.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --no-deps torch==2.13.0
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.23.0
cd "$folder"
cat > cache.py <<'PY'
import torch
from transformers import LlamaConfig, LlamaForCausalLM

ROWS = {"two texts": [0, 1, 2, 3, 0, 1, 2, 3], "a gap": [0, 1, 2, 3, 14, 15, 16, 17]}
WAYS = {
    "by default": {},
    "without a cache": {"use_cache": False},
    "with checkpointing": {},
    "without a cache, a mask of ones": {"use_cache": False, "attention_mask": torch.ones(1, 8)},
}

torch.manual_seed(0)
sizes = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
model = LlamaForCausalLM(LlamaConfig(num_attention_heads=2, initializer_range=0.3, **sizes))
ids = torch.arange(1, 9)[None]
other = ids.clone()
other[0, 0] = 40  # another first token
for row, positions in ROWS.items():
    for way, given in WAYS.items():
        model.eval()
        if way == "with checkpointing":  # there is no dropout
            model.train()
            model.gradient_checkpointing_enable()
        given = {"position_ids": torch.tensor([positions]), **given}
        loss = model(ids, labels=ids, **given).loss.item()
        last = [model(x, **given).logits[0, -1] for x in (ids, other)]
        sees = not torch.allclose(*last, atol=1e-3)
        print(f"{row}, {way}: the last token sees the first {sees}, loss {loss:.2f}")
PY
cat > expected <<'TXT'
two texts, by default: the last token sees the first True, loss 5.79
two texts, without a cache: the last token sees the first False, loss 6.03
two texts, with checkpointing: the last token sees the first False, loss 6.03
two texts, without a cache, a mask of ones: the last token sees the first True, loss 5.79
a gap, by default: the last token sees the first True, loss 5.73
a gap, without a cache: the last token sees the first False, loss 6.03
a gap, with checkpointing: the last token sees the first False, loss 6.03
a gap, without a cache, a mask of ones: the last token sees the first True, loss 5.73
TXT
"$folder/venv/bin/python" cache.py 2> errors | tee seen || { cat errors; exit 1; }
diff expected seen && echo "As described: what a token sees depends on use_cache."
