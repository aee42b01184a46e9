#!/usr/bin/env bash
# transformers 5.23.0, CTRL: the model multiplies the vectors that it is given in place.
#
# Expected: a forward pass leaves its inputs as they are, so that the same `inputs_embeds` give the
#   same logits each time.
# Seen: CTRLModel does `inputs_embeds *= sqrt(n_embd)` on the caller's own tensor. After one pass the
#   tensor is sqrt(n_embd) times as long, and a second pass over it gives other logits, without an
#   error or a warning. Whoever trains a prompt's vectors for it has to pass a copy.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --no-deps torch==2.13.0
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.23.0
cat > "$folder/twice.py" <<'PYTHON'
import torch
from transformers import CTRLConfig, CTRLLMHeadModel

torch.manual_seed(0)
config = CTRLConfig(vocab_size=50, n_positions=32, n_embd=16, dff=32, n_layer=2, n_head=2)
model = CTRLLMHeadModel(config).eval()
with torch.no_grad():
    vectors = model.get_input_embeddings()(torch.tensor([[3, 1, 4, 1, 5]])).clone()
    given = vectors.clone()
    first = model(inputs_embeds=vectors).logits
    second = model(inputs_embeds=vectors).logits
factor = float((vectors / given).mean())
print(f"the caller's vectors after two passes: {factor:.1f} times as long")
print("the same logits:", torch.equal(first, second))
assert abs(factor - 16) < 1e-3 and not torch.allclose(first, second), "the behaviour has changed"
PYTHON
"$folder/venv/bin/python" -W ignore "$folder/twice.py"
