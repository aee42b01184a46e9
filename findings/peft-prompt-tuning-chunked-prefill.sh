#!/usr/bin/env bash
# peft 0.21.2 with transformers 5.23.0: prompt tuning and `prefill_chunk_size` do not read the text.
#
# Expected: a long text read in chunks, which is to save memory, has the continuation that it has when
#   read at once, as it has without an adapter and with LoRA; or it is refused.
# Seen: with prompt tuning the continuation is another one, without an error. Of every chunk but the
#   first only the last token reaches the model: PEFT cuts its input to one token as soon as the cache
#   is as long as the chunk, which the prompt's vectors alone can make it. Other tokens may stand in
#   the middle of the text, and what is generated is the same.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --no-deps torch==2.13.0
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.23.0 peft==0.21.2
cd "$folder"
cat > chunks.py <<'PY'
import logging
import warnings

warnings.filterwarnings("ignore")
logging.disable(logging.CRITICAL)
import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from transformers import GPT2Config, GPT2LMHeadModel

TEXT = [3, 1, 4, 1, 5, 9, 2, 6]
OTHER = [3, 1, 7, 1, 8, 9, 30, 6]  # other first tokens in each chunk of 2 but the first


def model(adapter):
    torch.manual_seed(0)
    sizes = {"vocab_size": 50, "n_positions": 64, "n_embd": 16, "n_layer": 2, "n_head": 2}
    config = GPT2Config(
        **sizes, initializer_range=0.5, bos_token_id=None, eos_token_id=None, pad_token_id=0
    )
    tuned = get_peft_model(GPT2LMHeadModel(config), adapter).eval()
    if isinstance(adapter, PromptTuningConfig):
        torch.nn.init.normal_(tuned.prompt_encoder["default"].embedding.weight)
    return tuned


def written(tuned, text, **given):
    ids = torch.tensor([text])
    mask = torch.ones_like(ids)
    out = tuned.generate(input_ids=ids, attention_mask=mask, max_new_tokens=8, do_sample=False, **given)
    return out[0, len(text) :].tolist()


for adapter in (
    LoraConfig(task_type="CAUSAL_LM"),
    PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4),
):
    tuned = model(adapter)
    at_once, other = written(tuned, TEXT), written(tuned, OTHER)
    chunks = written(tuned, TEXT, prefill_chunk_size=2)
    other_chunks = written(tuned, OTHER, prefill_chunk_size=2)
    print(f"{adapter.peft_type.value}: in chunks as at once {chunks == at_once}; another text gives the "
          f"same: at once {other == at_once}, in chunks {other_chunks == chunks}")
PY
cat > expected <<'TXT'
LORA: in chunks as at once True; another text gives the same: at once False, in chunks False
PROMPT_TUNING: in chunks as at once False; another text gives the same: at once False, in chunks True
TXT
"$folder/venv/bin/python" chunks.py 2> errors | tee seen || { cat errors; exit 1; }
diff expected seen && echo "As described: of a chunk after the first, prompt tuning reads the last token."
