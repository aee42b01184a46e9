#!/usr/bin/env bash
# torchmetrics 1.9.0: BERTScore's functional form gives a pair of texts the score of another pair.
#
# Expected: of four pairs scored together, each has the score that it has alone; here the first pair
#   is of two equal texts, whose F1 is 1.
# Seen: together [0.206, 0.305, 0.102, 1.0], one by one [1.0, 0.102, 0.305, 0.206]. Texts are sorted
#   by length before the model reads them, and put back in order by the permutation that sorted them
#   where its inverse is needed; a mean over all pairs does not show it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --no-deps torch==2.13.0
"$folder/venv/bin/pip" install -q torch==2.13.0 torchmetrics==1.9.0 transformers==5.23.0
cat > "$folder/order.py" <<'PYTHON'
import torch
from torchmetrics.functional.text.bert import bert_score

LENGTHS = [6, 4, 7, 5]
table = torch.randn(1000, 16, generator=torch.Generator().manual_seed(9))  # a state for each token


def texts(seed):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.zeros(len(LENGTHS), max(LENGTHS), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, length in enumerate(LENGTHS):
        ids[row, :length] = torch.randint(1, 1000, (length,), generator=generator)
        mask[row, :length] = 1
    return {"input_ids": ids, "attention_mask": mask}


def scored(outputs, sources):
    found = bert_score(
        outputs,
        sources,
        model=torch.nn.Identity(),
        user_forward_fn=lambda model, batch: table[batch["input_ids"]],
    )
    return [round(float(f1), 3) for f1 in torch.as_tensor(found["f1"]).reshape(-1)]


outputs, sources = texts(0), texts(1)
sources["input_ids"][0] = outputs["input_ids"][0]
together = scored(outputs, sources)
rows = [slice(i, i + 1) for i in range(len(LENGTHS))]
alone = [
    scored(*({name: values[row] for name, values in side.items()} for side in (outputs, sources)))[0]
    for row in rows
]
print("together", together)
print("one by one", alone)
assert alone[0] == 1.0 and together[3] == 1.0, "the behaviour has changed"
assert together != alone and sorted(together) == sorted(alone), "the behaviour has changed"
PYTHON
"$folder/venv/bin/python" -W ignore "$folder/order.py"
