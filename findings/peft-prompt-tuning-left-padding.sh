#!/usr/bin/env bash
# peft 0.21.2 (transformers 5.23.0): prompt tuning generates something else in a padded batch.
#
# Expected: `generate` gives a text the same continuation alone and, padded on the left as batches of
#   generation have to be, beside a longer one; as it does without an adapter and with prefix tuning.
# Seen: with prompt tuning (P-tuning and CPT insert their vectors in the same way) the first new
#   token is another one already at one padding token. The vectors are put before the padding, and
#   positions that are given are dropped, so the text is as far from its prompt as the padding is
#   long. A warning says "Ignoring position ids", which transformers itself passed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --no-deps torch==2.13.0
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.23.0 peft==0.21.2
cd "$folder"
cat > padded.py <<'PY'
import warnings

warnings.filterwarnings("ignore")
import torch
from peft import PrefixTuningConfig, PromptTuningConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

config = LlamaConfig(
    vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
    initializer_range=0.3, pad_token_id=0, bos_token_id=1, eos_token_id=None,
)
torch.manual_seed(0)
text = torch.randint(3, 60, (1, 5))


def first_scores(model, padding):
    ids = torch.cat([torch.zeros(1, padding, dtype=torch.long), text], dim=1)
    out = model.generate(
        input_ids=ids, attention_mask=(ids > 0).long(), max_new_tokens=1, do_sample=False,
        output_logits=True, return_dict_in_generate=True,
    )
    return out.logits[0][0]


for kind in (None, PrefixTuningConfig, PromptTuningConfig):
    torch.manual_seed(1)
    model = LlamaForCausalLM(config)
    if kind is not None:
        model = get_peft_model(model, kind(task_type="CAUSAL_LM", num_virtual_tokens=4))
        for parameter in model.prompt_encoder.parameters():
            torch.nn.init.normal_(parameter)
    model.eval()
    alone = first_scores(model, 0)
    name = "no adapter" if kind is None else kind.__name__
    for padding in (1, 4):
        padded = first_scores(model, padding)
        far = float((padded - alone).abs().max() / alone.abs().max())
        print(f"{name}, {padding} padding tokens: logits {'equal' if far < 1e-4 else 'differ'}, "
              f"same token {bool(padded.argmax() == alone.argmax())}")
        assert far < 1e-4 or far > 0.05
PY
cat > expected <<'TXT'
no adapter, 1 padding tokens: logits equal, same token True
no adapter, 4 padding tokens: logits equal, same token True
PrefixTuningConfig, 1 padding tokens: logits equal, same token True
PrefixTuningConfig, 4 padding tokens: logits equal, same token True
PromptTuningConfig, 1 padding tokens: logits differ, same token False
PromptTuningConfig, 4 padding tokens: logits differ, same token False
TXT
"$folder/venv/bin/python" padded.py 2> errors | tee seen || { cat errors; exit 1; }
diff expected seen && echo "As described: a tuned prompt stands before the padding."
