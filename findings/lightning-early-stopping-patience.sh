#!/usr/bin/env bash
# Lightning 2.6.6: a resumed run that EarlyStopping ended trains on, and a raised patience is ignored.
#
# Expected: resumed with the same patience, a run that is out of patience ends at once; resumed with
#   patience 10 in place of 2, it goes on for 8 more validations (here to step 22).
# Seen: each resume trains up to the next validation (two steps more) and ends there, with patience
#   10 as with 2: `load_state_dict` puts the checkpoint's patience over the one that was given, and
#   nothing looks at the restored count of waits before the next check.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --no-deps torch==2.13.0
"$folder/venv/bin/pip" install -q torch==2.13.0 lightning==2.6.6
cd "$folder"
cat > resume.py <<'PY'
import logging
import warnings

warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)
import lightning as L
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.demos.boring_classes import BoringModel


class Constant(BoringModel):
    """Its validation loss never improves."""

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", 1.0)


def fit(patience, resume, when):
    stop = EarlyStopping("val_loss", patience=patience)
    save = ModelCheckpoint("kept", "last", enable_version_counter=False, save_on_train_epoch_end=False)
    trainer = L.Trainer(
        max_steps=100,
        limit_train_batches=4,
        **when,
        limit_val_batches=1,
        num_sanity_val_steps=0,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[stop, save],
    )
    try:
        trainer.fit(Constant(), ckpt_path="kept/last.ckpt" if resume else None)
        end = "ended"
    except Exception as raised:
        end = f"raised {type(raised).__name__} ({str(raised)[:67]})"
    return f"{end} at step {trainer.global_step}, patience {stop.patience}"


steps = {"val_check_interval": 2, "check_val_every_n_epoch": None}
print("patience 2:", fit(2, False, steps))
print("resumed with patience 2:", fit(2, True, steps))
print("resumed with patience 10:", fit(10, True, steps))
PY
cat > expected <<'TXT'
patience 2: ended at step 6, patience 2
resumed with patience 2: ended at step 8, patience 2
resumed with patience 10: ended at step 10, patience 2
TXT
"$folder/venv/bin/python" resume.py 2> errors | tee seen || { cat errors; exit 1; }
diff expected seen && echo "As described: Lightning 2.6.6 keeps the old patience."
