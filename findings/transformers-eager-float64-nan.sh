#!/usr/bin/env bash
# transformers 5.23.0: in float64 eager attention turns every row that is padded on the left into nan.
#
# Expected: the exact type gives what float32 gives, with fewer digits lost; a padded row has the
#   logits of the row alone.
# Seen: that holds in float16, bfloat16 and float32, and in float64 with sdpa. In float64 with
#   `attn_implementation="eager"` all logits of the row are nan, also those of its real tokens, and
#   there is no warning. A mask is float64's lowest number; the softmax of eager attention is taken
#   in float32, where that is -inf; the padding's own positions see nothing else, become nan, and
#   nan times the weight 0 is nan one layer later. (So attention's weights are never float64's.)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --no-deps torch==2.13.0
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.23.0
cd "$folder"
cat > padded.py <<'PY'
import warnings

warnings.filterwarnings("ignore")
import torch
from transformers import LlamaConfig, LlamaForCausalLM

config = LlamaConfig(
    vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2
)
ids = torch.tensor([[0, 0, 3, 1, 4]])
mask = torch.tensor([[0, 0, 1, 1, 1]])
for attention in ("sdpa", "eager"):
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        torch.manual_seed(0)
        model = LlamaForCausalLM._from_config(config, attn_implementation=attention).eval().to(dtype)
        with torch.no_grad():
            padded = model(ids, attention_mask=mask).logits[:, 2:]
            alone = model(ids[:, 2:], attention_mask=mask[:, 2:]).logits
        close = bool((padded - alone).abs().max() < 0.01)
        said = "as the row alone" if close else f"{padded.isnan().float().mean():.0%} nan"
        print(f"{attention}, {str(dtype).removeprefix('torch.')}: {said}")
PY
cat > expected <<'TXT'
sdpa, float16: as the row alone
sdpa, bfloat16: as the row alone
sdpa, float32: as the row alone
sdpa, float64: as the row alone
eager, float16: as the row alone
eager, bfloat16: as the row alone
eager, float32: as the row alone
eager, float64: 100% nan
TXT
"$folder/venv/bin/python" padded.py 2> errors | tee seen || { cat errors; exit 1; }
diff expected seen && echo "As described: float64 and eager attention give nan beside padding."
