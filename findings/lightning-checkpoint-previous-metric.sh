#!/usr/bin/env bash
# Lightning 2.6.6: ModelCheckpoint with `every_n_train_steps` takes the validation before for this one.
#
# Expected: validated every 2 steps and saved every 2 steps by `monitor="val_loss"`, the best
#   checkpoint is that of the step with the lowest loss; or the combination is refused.
# Seen: the loss is lowest, 1, at step 4, and the best checkpoint is that of step 6, whose own loss is
#   7: it is named, ranked and kept with the 1 of step 4. The save comes before the validation of its
#   step, from the second one on with what the last one left, and the validation that follows saves
#   nothing, as this step "is saved". Without `every_n_train_steps` the best one is that of step 4.
#   (Open as Lightning-AI/pytorch-lightning#20185; only the last batch of an epoch waits.)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --no-deps torch==2.13.0
"$folder/venv/bin/pip" install -q torch==2.13.0 lightning==2.6.6
cd "$folder"
cat > best.py <<'PYTHON'
import tempfile
from pathlib import Path

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

LOSS = {2: 5.0, 4: 1.0, 6: 7.0, 8: 8.0}  # after so many steps


class Model(LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def training_step(self, batch, batch_idx):
        return (self.weight - 1).square().sum()

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", LOSS[self.global_step])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


for given in ({}, {"every_n_train_steps": 2}):
    checkpoint = ModelCheckpoint(
        dirpath=tempfile.mkdtemp(), monitor="val_loss", filename="{step}-{val_loss:.0f}", **given
    )
    trainer = Trainer(
        max_steps=8, val_check_interval=2, callbacks=[checkpoint], accelerator="cpu", logger=False,
        num_sanity_val_steps=0, enable_progress_bar=False, enable_model_summary=False,
    )
    batches = torch.utils.data.DataLoader(range(20)), torch.utils.data.DataLoader(range(1))
    trainer.fit(Model(), *batches)
    step = torch.load(checkpoint.best_model_path)["global_step"]
    print(f"{given}: best is {Path(checkpoint.best_model_path).stem}; loss at step {step}: {LOSS[step]:.0f}")
PYTHON
cat > expected <<'TXT'
{}: best is step=4-val_loss=1; loss at step 4: 1
{'every_n_train_steps': 2}: best is step=6-val_loss=1; loss at step 6: 7
TXT
"$folder/venv/bin/python" best.py 2> errors | tee seen || { cat errors; exit 1; }
diff expected seen && echo "As described: the best checkpoint is the one after the best."
