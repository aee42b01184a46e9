#!/usr/bin/env bash
# torch 2.13.0: autocast converts a frozen weight anew at each use, and keeps each copy.
#
# Expected: freezing a layer makes it cheaper. Within one `torch.autocast` a weight is converted once
#   ("weight cache", on by default), the more so as a frozen one cannot change.
# Seen: used three times, a trainable weight is converted to bfloat16 once, a frozen one three times:
#   only leaves that require a gradient are cached. Where the layer's input requires a gradient, as
#   behind a trained prompt, the copies also live until `backward`: three of the frozen weight, one of
#   the trainable one. All uses are in one `with`, on a CPU; weights that are bfloat16 need none of it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --no-deps torch==2.13.0
"$folder/venv/bin/pip" install -q torch==2.13.0 numpy
cd "$folder"
cat > copies.py <<'PY'
import torch
from torch.profiler import ProfilerActivity, profile

SIZE = 256


def use(layer, times):
    vectors = torch.randn(4, SIZE, requires_grad=True)
    kept = {}

    def keep(tensor):
        if tensor.dtype is torch.bfloat16 and tensor.numel() == SIZE * SIZE:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiled:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                outputs = [layer(vectors) for _ in range(times)]
    converted = sum(
        event.name == "aten::_to_copy" and [SIZE, SIZE] in event.input_shapes
        for event in profiled.events()
    )
    assert all(output.dtype is torch.bfloat16 for output in outputs)
    return converted, len(kept)


for trainable in (True, False):
    layer = torch.nn.Linear(SIZE, SIZE, bias=False).requires_grad_(trainable)
    for times in (1, 3):
        converted, kept = use(layer, times)
        print(f"{'trainable' if trainable else 'frozen'}, used {times} times: "
              f"converted {converted} times, {kept} kept for backward")
PY
cat > expected <<'TXT'
trainable, used 1 times: converted 1 times, 1 kept for backward
trainable, used 3 times: converted 1 times, 1 kept for backward
frozen, used 1 times: converted 1 times, 1 kept for backward
frozen, used 3 times: converted 3 times, 3 kept for backward
TXT
"$folder/venv/bin/python" -W ignore copies.py 2> errors | grep -v '^USDT' | tee seen || { cat errors; exit 1; }
diff expected seen && echo "As described: autocast's cache leaves frozen weights out."
