#!/usr/bin/env bash
# Lightning 2.6.6, torch 2.13.0: EMAWeightAveraging changes integer buffers that nobody writes to.
#
# Expected: a buffer of token ids is in every validation what it was registered as.
# Seen: [7818] becomes [7817] at the second step. The callback averages buffers by default
#   (`use_buffers=True`), whatever their type: 0.9 * 7818 + 0.1 * 7818 is 7817.9995 in float32, and
#   is cut to 7817 where it is copied back. There is neither an error nor a warning.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --no-deps torch==2.13.0
"$folder/venv/bin/pip" install -q torch==2.13.0 lightning==2.6.6
cat > "$folder/ids.py" <<'PYTHON'
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging


class Model(LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.register_buffer("ids", torch.tensor([7818]))
        self.seen = []

    def training_step(self, batch, batch_idx):
        return (self.weight - 1).square().sum()

    def validation_step(self, batch, batch_idx):
        self.seen.append(self.ids.tolist())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


model = Model()
trainer = Trainer(
    max_steps=3, val_check_interval=1, callbacks=[EMAWeightAveraging(decay=0.9)], accelerator="cpu",
    num_sanity_val_steps=0, logger=False, enable_checkpointing=False, enable_progress_bar=False,
    enable_model_summary=False,
)
trainer.fit(model, torch.utils.data.DataLoader(range(3)), torch.utils.data.DataLoader(range(1)))
print(model.seen)
assert model.seen == [[7818], [7817], [7817]], "the behaviour has changed"
PYTHON
"$folder/venv/bin/python" "$folder/ids.py" 2> "$folder/log" || { cat "$folder/log"; exit 1; }
