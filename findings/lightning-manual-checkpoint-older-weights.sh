#!/usr/bin/env bash
# Lightning 2.6.6: with manual optimization, a checkpoint may hold weights of the step before.
#
# Expected: a checkpoint's weights, optimizer and `global_step` are of one moment, whatever the
#   module's attributes are called; resumed, the run goes on as if it had not been stopped.
# Seen: ModelCheckpoint(every_n_train_steps) warns that the state is that "AFTER optimization" (which
#   is what it always saves with automatic optimization), and advises to keep copies of a submodule
#   in `self.saved_models`. Where there are such a dict and a submodule named `layer`, it puts the
#   newest copy into the file, beside the optimizer and the count of after the step. A run of 4
#   steps that is stopped after 2 and resumed ends with other weights; under any other name, as
#   `head`, the copies are ignored and it does not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --no-deps torch==2.13.0
"$folder/venv/bin/pip" install -q torch==2.13.0 lightning==2.6.6
cd "$folder"
cat > resume.py <<'PYTHON'
import tempfile

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint


class Model(LightningModule):
    def __init__(self, name):
        super().__init__()
        self.automatic_optimization = False
        self.name = name
        self.saved_models = {}
        setattr(self, name, torch.nn.Linear(1, 1, bias=False))
        torch.nn.init.zeros_(self.part.weight)

    @property
    def part(self):
        return getattr(self, self.name)

    def training_step(self, batch, batch_idx):
        # As the warning says.
        state = self.part.state_dict()
        self.saved_models[batch_idx] = {key: value.detach().clone() for key, value in state.items()}
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward((self.part.weight - 1).square().sum())
        optimizer.step()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def train(name, steps, ckpt_path=None):
    checkpoint = ModelCheckpoint(dirpath=tempfile.mkdtemp(), every_n_train_steps=2)
    trainer = Trainer(
        max_steps=steps, callbacks=[checkpoint], accelerator="cpu", logger=False,
        enable_progress_bar=False, enable_model_summary=False,
    )
    model = Model(name)
    trainer.fit(model, torch.utils.data.DataLoader(range(20)), ckpt_path=ckpt_path)
    return model.part.weight.item(), checkpoint.best_model_path


for name in ("head", "layer"):
    whole, _ = train(name, 4)
    half, path = train(name, 2)
    content = torch.load(path)
    saved = content["state_dict"][f"{name}.weight"].item()
    resumed, _ = train(name, 4, ckpt_path=path)
    print(f"{name}: after step {content['global_step']} {half:.3f}, in its checkpoint {saved:.3f}; "
          f"after step 4 {whole:.3f}, resumed {resumed:.3f}")
PYTHON
cat > expected <<'TXT'
head: after step 2 0.360, in its checkpoint 0.360; after step 4 0.590, resumed 0.590
layer: after step 2 0.360, in its checkpoint 0.200; after step 4 0.590, resumed 0.488
TXT
"$folder/venv/bin/python" resume.py 2> errors | tee seen || { cat errors; exit 1; }
diff expected seen && echo "As described: a submodule named layer is saved as it was a step before."
