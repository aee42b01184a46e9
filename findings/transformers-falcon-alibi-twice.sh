#!/usr/bin/env bash
# transformers 5.23.0: a Falcon with ALiBi (Falcon-RW) adds its bias twice in eager attention.
#
# Expected: `attn_implementation="eager"` and `"sdpa"` give the same logits to rounding (1e-6), as
#   they do for a Falcon with rotary positions.
# Seen: with `alibi=True` they differ by a tenth of the largest logit. The model adds the bias to the
#   causal mask, which by now is a mask of every query and key in eager attention too, and the eager
#   branch of the layer adds it again: sdpa with the bias doubled gives what eager gives.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --no-deps torch==2.13.0
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.23.0
cd "$folder"
cat > falcon.py <<'PY'
import copy

import torch
from transformers import FalconConfig, FalconForCausalLM
from transformers.models.falcon import modeling_falcon

bias = modeling_falcon.build_alibi_tensor
sizes = {"vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
ids = torch.arange(1, 25)[None]


def logits(attention, alibi, factor=1):
    modeling_falcon.build_alibi_tensor = lambda *args, **kwargs: factor * bias(*args, **kwargs)
    torch.manual_seed(0)
    config = FalconConfig(**sizes, alibi=alibi, initializer_range=0.3)
    model = FalconForCausalLM._from_config(config, attn_implementation=attention).eval()
    with torch.no_grad():
        return model(ids).logits


def same(one, other):
    apart = float((one - other).abs().max() / one.abs().max())
    return "equal" if apart < 1e-4 else "different" if apart > 0.01 else f"apart by {apart}"


print("rotary, eager and sdpa:", same(logits("eager", False), logits("sdpa", False)))
print("ALiBi, eager and sdpa:", same(logits("eager", True), logits("sdpa", True)))
print("ALiBi, eager and sdpa with twice the bias:", same(logits("eager", True), logits("sdpa", True, 2)))
PY
cat > expected <<'TXT'
rotary, eager and sdpa: equal
ALiBi, eager and sdpa: different
ALiBi, eager and sdpa with twice the bias: equal
TXT
"$folder/venv/bin/python" falcon.py 2> errors | tee seen || { cat errors; exit 1; }
diff expected seen && echo "As described: transformers 5.23.0 adds Falcon's ALiBi twice in eager attention."
