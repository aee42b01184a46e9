#!/usr/bin/env bash
# torchao 0.18.0 (torch 2.13.0): a linear layer with dynamically quantised activations detaches its
#   output, without an error.
#
# Expected: the output of a layer requires a gradient where its input does, as with weights in 8 bits
#   alone; or a backward pass that cannot be done raises an error.
# Seen: with Int8WeightOnlyConfig the input's gradient is that of the float layer. With
#   Int8DynamicActivationInt8WeightConfig the output has `requires_grad` False. Alone that is an error
#   at `backward()`; beside a residual connection, as in every transformer, it is none: in
#   x + layer(x) the gradient is that of x alone, and what reaches another position through the layer
#   (a prompt's vectors through attention) gets a gradient of exactly 0.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --no-deps torch==2.13.0
"$folder/venv/bin/pip" install -q torch==2.13.0 torchao==0.18.0 numpy
cat > "$folder/gradient.py" <<'PYTHON'
import torch
from torch import nn
from torchao.quantization import (
    Int8DynamicActivationInt8WeightConfig,
    Int8WeightOnlyConfig,
    quantize_,
)

torch.manual_seed(0)
layer, x, target = nn.Linear(64, 64), torch.randn(8, 64), torch.randn(8, 64)


def with_residual(config=None):
    model = nn.Sequential(nn.Linear(64, 64)).requires_grad_(False)
    model[0].load_state_dict(layer.state_dict())
    if config is not None:
        quantize_(model, config)
    given = x.clone().requires_grad_()
    behind = model(given)
    ((given + behind) * target).sum().backward()
    return behind, given.grad - target  # what came through the layer


def cosine(a, b):
    return float(nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0))


plain, gradient = with_residual()
seen = {}
for config in (Int8WeightOnlyConfig(), Int8DynamicActivationInt8WeightConfig()):
    name = type(config).__name__
    behind, got = with_residual(config)
    size = float(got.abs().max())
    through = "exactly 0" if size == 0 else f"as without quantisation (cosine {cosine(got, gradient):.3f})"
    print(f"{name}: outputs' cosine {cosine(behind.detach(), plain.detach()):.3f}, "
          f"requires_grad {behind.requires_grad}, gradient through the layer {through}")
    seen[name] = behind.requires_grad, size == 0
assert seen == {
    "Int8WeightOnlyConfig": (True, False),
    "Int8DynamicActivationInt8WeightConfig": (False, True),
}, "the behaviour has changed"
PYTHON
"$folder/venv/bin/python" -W ignore "$folder/gradient.py"
