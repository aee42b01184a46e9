#!/usr/bin/env bash
# peft 0.21.2: P-tuning with dropout saves a random draw of its prompt.
#
# Expected: `save_pretrained` writes the prompt that the model uses in evaluation, and two saves in
#   a row are equal.
# Seen: an adapter of P-tuning keeps the vectors that its LSTM computes, and computes them as it is
#   saved, in whatever mode the model is then. In training mode (a checkpoint during training, or a
#   save after the last step) dropout is in them: two files differ, and a loaded adapter's logits are
#   not the trained model's, though no weight has changed. After `eval()` they are.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --no-deps torch==2.13.0
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.23.0 peft==0.21.2
cd "$folder"
cat > save.py <<'PY'
import warnings

warnings.filterwarnings("ignore")
import torch
from peft import PeftModel, PromptEncoderConfig, get_peft_model
from safetensors.torch import load_file
from transformers import GPT2Config, GPT2LMHeadModel


def base():
    torch.manual_seed(0)
    sizes = {"vocab_size": 50, "n_positions": 32, "n_embd": 16, "n_layer": 2, "n_head": 2}
    return GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=1, eos_token_id=2))


config = PromptEncoderConfig(
    task_type="CAUSAL_LM", num_virtual_tokens=4, encoder_hidden_size=16,
    encoder_reparameterization_type="LSTM", encoder_num_layers=2, encoder_dropout=0.5,
)
model = get_peft_model(base(), config)
ids = torch.tensor([[3, 1, 4, 1, 5]])


@torch.no_grad()
def logits(model):
    return model.eval()(input_ids=ids).logits


trained = logits(model)
for training in (True, False):
    model.train(training)
    for name in ("one", "two"):
        model.save_pretrained(name)
    first, second = (load_file(f"{name}/adapter_model.safetensors") for name in ("one", "two"))
    same = torch.equal(first["prompt_embeddings"], second["prompt_embeddings"])
    again = torch.allclose(logits(PeftModel.from_pretrained(base(), "one")), trained, atol=1e-5)
    print(f"saved in {'training' if training else 'evaluation'} mode: two files are equal {same}, "
          f"loaded it is the trained model {again}")
PY
cat > expected <<'TXT'
saved in training mode: two files are equal False, loaded it is the trained model False
saved in evaluation mode: two files are equal True, loaded it is the trained model True
TXT
"$folder/venv/bin/python" save.py 2> errors | tee seen || { cat errors; exit 1; }
diff expected seen && echo "As described: P-tuning saves its prompt with dropout."
