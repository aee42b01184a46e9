#!/usr/bin/env bash
# transformers 5.23.0: gradient checkpointing of a model in evaluation mode does nothing.
#
# Expected: `activation_checkpointing_enable()` on a frozen model that is kept in evaluation mode, so
#   that no dropout disturbs the vectors trained in front of it, saves memory for a second forward
#   pass; torch.utils.checkpoint itself asks for no mode. Or something says that it is off.
# Seen: each layer checkpoints only where it is in training mode too. In evaluation mode every layer
#   runs once, not twice, and as many numbers are kept for the backward pass as without, while
#   `is_activation_checkpointing` is True in both modes. (`gradient_checkpointing_enable`, the older
#   name, behaves alike.)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --no-deps torch==2.13.0
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.23.0
cd "$folder"
cat > modes.py <<'PY'
import torch
from transformers import LlamaConfig, LlamaForCausalLM

config = LlamaConfig(
    vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=4, num_attention_heads=2
)


def cost(training, checkpointing):
    """Layer passes of a step, the numbers kept for its backward pass, and what the model says."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).requires_grad_(False).train(training)
    if checkpointing:
        model.activation_checkpointing_enable()
    passes, kept = [], []
    for layer in model.model.layers:
        layer.self_attn.register_forward_hook(lambda *_: passes.append(1))
    vectors = torch.randn(1, 64, config.hidden_size, requires_grad=True)
    keep = lambda tensor: (kept.append(tensor.numel()), tensor)[1]
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = model(inputs_embeds=vectors, use_cache=False).logits.sum()
    loss.backward()
    return len(passes), sum(kept), model.is_activation_checkpointing


for training in (True, False):
    _, whole, _ = cost(training, False)
    passes, kept, said = cost(training, True)
    print(f"{'training' if training else 'evaluation'} mode, enabled {said}: {passes} passes through 4 "
          f"layers; keeps less than half: {kept < whole / 2}, as much as without: {kept == whole}")
PY
cat > expected <<'TXT'
training mode, enabled True: 8 passes through 4 layers; keeps less than half: True, as much as without: False
evaluation mode, enabled True: 4 passes through 4 layers; keeps less than half: False, as much as without: True
TXT
"$folder/venv/bin/python" modes.py 2> errors | tee seen || { cat errors; exit 1; }
diff expected seen && echo "As described: in evaluation mode nothing is checkpointed."
