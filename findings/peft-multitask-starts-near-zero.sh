#!/usr/bin/env bash
# peft 0.21.2: multitask prompt tuning does not start at the text that it is told to start at.
#
# Expected: with `prompt_tuning_init="TEXT"` the prompt begins as the embeddings of that text, as in
#   prompt tuning, or as something near them.
# Seen: it begins as nearly nothing, less than a hundredth as long, in a direction of its own for each
#   task: half of the numbers have another sign than the text's. The vectors of the text are
#   multiplied, number by number, by the product of two factors of one task that are drawn around 0
#   with a deviation of 0.02. No step has been taken. Other starts (RANDOM, which is the default) are
#   treated alike.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --no-deps torch==2.13.0
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.23.0 peft==0.21.2
cd "$folder"
cat > start.py <<'PY'
import warnings

warnings.filterwarnings("ignore")
import torch
from peft import MultitaskPromptTuningConfig, PromptTuningConfig, get_peft_model
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

words = ["is", "this", "review", "positive", "[UNK]"]
tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]").save_pretrained("tokenizer")

given = {
    "task_type": "CAUSAL_LM",
    "num_virtual_tokens": 4,
    "prompt_tuning_init": "TEXT",
    "prompt_tuning_init_text": "is this review positive",
    "tokenizer_name_or_path": "tokenizer",
}
for config in (PromptTuningConfig(**given), MultitaskPromptTuningConfig(**given, num_tasks=3)):
    torch.manual_seed(0)
    sizes = {"vocab_size": 5, "n_positions": 32, "n_embd": 64, "n_layer": 1, "n_head": 2}
    model = get_peft_model(GPT2LMHeadModel(GPT2Config(**sizes)), config)
    text = model.get_input_embeddings().weight[:4].detach()
    multitask = isinstance(config, MultitaskPromptTuningConfig)
    with torch.no_grad():
        prompts = model.get_prompt(3, task_ids=torch.arange(3) if multitask else None)
    for task, prompt in enumerate(prompts if multitask else prompts[:1]):
        short = bool(prompt.norm() < text.norm() / 100)
        signs = round(float((prompt.sign() == text.sign()).float().mean()), 1)
        print(f"{config.peft_type.value}, task {task}: the text's vectors {torch.equal(prompt, text)}, "
              f"less than a hundredth as long {short}, the text's signs {signs}")
PY
cat > expected <<'TXT'
PROMPT_TUNING, task 0: the text's vectors True, less than a hundredth as long False, the text's signs 1.0
MULTITASK_PROMPT_TUNING, task 0: the text's vectors False, less than a hundredth as long True, the text's signs 0.5
MULTITASK_PROMPT_TUNING, task 1: the text's vectors False, less than a hundredth as long True, the text's signs 0.5
MULTITASK_PROMPT_TUNING, task 2: the text's vectors False, less than a hundredth as long True, the text's signs 0.5
TXT
"$folder/venv/bin/python" start.py 2> errors | tee seen || { cat errors; exit 1; }
diff expected seen && echo "As described: multitask prompt tuning starts near zero, not at its text."
