#!/usr/bin/env bash
# Lightning 2.6.6: a run with EarlyStopping and the default validation cannot be resumed.
#
# Expected: a checkpoint that was written after the validation of an epoch's end is gone on from.
# Seen: RuntimeError, "Early stopping conditioned on metric `val_loss` which is not available". With
#   one validation an epoch EarlyStopping looks at the epoch's end; a fit that is resumed from the
#   validation before begins with that end, and has no metrics: they are not in a checkpoint.
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


print("patience 3:", fit(3, False, {}))
print("resumed:", fit(3, True, {}))
PY
cat > expected <<'TXT'
patience 3: ended at step 16, patience 3
resumed: raised RuntimeError (Early stopping conditioned on metric `val_loss` which is not availa) at step 16, patience 3
TXT
"$folder/venv/bin/python" resume.py 2> errors | tee seen || { cat errors; exit 1; }
diff expected seen && echo "As described: Lightning 2.6.6 resumes without metrics."
