#!/usr/bin/env bash
# transformers 5.23.0, Gemma 3n: `inputs_embeds` give other logits than the ids that they are of.
#
# Expected: `model(inputs_embeds=embed(ids))` is `model(input_ids=ids)`, or an error says what is
#   missing.
# Seen: a token has a second embedding, one for each layer, which is looked up by id alone. With
#   `inputs_embeds` it is left out without an error or a warning, and the logits differ. A model with
#   fresh random weights hides it, because `altup.correct_output_scale`, with which that embedding is
#   multiplied, begins as 0: tests on tiny random models pass. (Gemma 4 raises an error instead.)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --no-deps torch==2.13.0
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.23.0
cat > "$folder/vectors.py" <<'PYTHON'
import torch
from transformers import Gemma3nForCausalLM, Gemma3nTextConfig

torch.manual_seed(0)
config = Gemma3nTextConfig(
    vocab_size=50,
    vocab_size_per_layer_input=50,
    hidden_size=16,
    hidden_size_per_layer_input=8,
    intermediate_size=[32, 32],
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=8,
    laurel_rank=4,
    num_kv_shared_layers=0,
    activation_sparsity_pattern=[0.0, 0.0],
    layer_types=["sliding_attention", "full_attention"],
    initializer_range=0.5,
)
model = Gemma3nForCausalLM(config).eval()
ids = torch.tensor([[3, 1, 4, 1, 5]])


@torch.no_grad()
def apart() -> float:
    by_id = model(input_ids=ids, use_cache=False).logits
    vectors = model.get_input_embeddings()(ids)
    by_vector = model(inputs_embeds=vectors, use_cache=False).logits
    return float((by_id - by_vector).abs().max() / by_id.abs().max())


fresh = apart()
for name, parameter in model.named_parameters():
    if name.endswith("correct_output_scale"):
        parameter.data.fill_(1.0)
trained = apart()
print(f"share of the largest logit that differs: fresh weights {fresh:.1g}, with that scale at 1 {trained:.2f}")
assert fresh < 1e-5 < 0.01 < trained, "the behaviour has changed"
PYTHON
"$folder/venv/bin/python" -W ignore "$folder/vectors.py"
