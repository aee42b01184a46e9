#!/usr/bin/env bash
# peft 0.21.2: context-aware prompt tuning without a type mask has no label, and its loss is nan.
#
# Expected: CPTConfig(cpt_token_ids=...) with its other defaults learns from the labels that are
#   given, as prompt tuning does; or it says which field is missing.
# Seen: the loss is nan and the gradient 0, so that nothing is learned, without an error or a warning.
#   A token is a label where its type is divisible by 4. The default gives each token of the prompt
#   the type 1; the types of the text (4 where none are given) are counted on from the prompt's
#   highest, 4 + 1 = 5, so that no token is a label and a mean is taken over nothing. Where the
#   prompt's highest type is a multiple of 4, the loss is a number.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --no-deps torch==2.13.0
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.23.0 peft==0.21.2
cd "$folder"
cat > loss.py <<'PY'
import warnings

import torch
from peft import CPTConfig, PromptTuningConfig, get_peft_model
from transformers import GPT2Config, GPT2LMHeadModel

ids = torch.tensor([[3, 1, 4, 1, 5]])
sizes = {"vocab_size": 50, "n_positions": 32, "n_embd": 16, "n_layer": 2, "n_head": 2}
for name, config in {
    "prompt tuning": PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3),
    "CPT": CPTConfig(task_type="CAUSAL_LM", cpt_token_ids=[5, 6, 7]),
    "CPT, types 1 2 4": CPTConfig(
        task_type="CAUSAL_LM", cpt_token_ids=[5, 6, 7], cpt_tokens_type_mask=[1, 2, 4]
    ),
}.items():
    torch.manual_seed(0)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        base = GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=1, eos_token_id=2))
        model = get_peft_model(base, config)
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
    (gradient,) = (p.grad for p in model.parameters() if p.grad is not None)
    about = [w for w in warned if "label" in str(w.message) or "mask" in str(w.message)]
    print(f"{name}: loss is a number {bool(loss.isfinite())}, gradient is 0 {not gradient.any()}, "
          f"{len(about)} warnings")
PY
cat > expected <<'TXT'
prompt tuning: loss is a number True, gradient is 0 False, 0 warnings
CPT: loss is a number False, gradient is 0 True, 0 warnings
CPT, types 1 2 4: loss is a number True, gradient is 0 False, 0 warnings
TXT
"$folder/venv/bin/python" loss.py 2> errors | tee seen || { cat errors; exit 1; }
diff expected seen && echo "As described: the default types leave no label."
