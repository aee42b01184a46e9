#!/usr/bin/env bash
# Lightning 2.6.6: a StopIteration out of a callback's hook ends a loop without a word, not the run.
#
# Expected: an exception of a callback ends `fit` with a traceback, as a ValueError there does.
# Seen: `fit` returns as finished. From `on_validation_batch_end`, each validation is over after
#   that batch, and what it logs is the mean of one batch in place of five; from
#   `on_validation_end`, the training epoch is over: 4 of 8 batches are never trained on. The cause
#   is everyday code, `next(c for c in trainer.callbacks if ...)` where there is none such. The
#   loops catch StopIteration to learn that their data is at its end, with the hooks inside.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --no-deps torch==2.13.0
"$folder/venv/bin/pip" install -q torch==2.13.0 lightning==2.6.6
cd "$folder"
cat > hook.py <<'PY'
import logging
import warnings

warnings.filterwarnings("ignore")
logging.disable(logging.INFO)
import lightning as L
from lightning.pytorch.demos.boring_classes import BoringModel


class Raises(L.Callback):
    def __init__(self, hook, error):
        self.error, self.batches, self.steps = error, 0, 0
        if hook is not None:
            setattr(self, hook, self.fail)

    def fail(self, *args):
        raise self.error

    def on_validation_batch_start(self, *args):
        self.batches += 1

    def on_train_batch_start(self, *args):
        self.steps += 1


def run(hook, error):
    callback = Raises(hook, error)
    trainer = L.Trainer(
        max_epochs=1,
        limit_train_batches=8,
        val_check_interval=4,
        limit_val_batches=5,
        num_sanity_val_steps=0,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[callback],
    )
    try:
        trainer.fit(BoringModel())
        end = f"fit returned, state {trainer.state.status.value}"
    except Exception as raised:
        end = f"fit raised {type(raised).__name__}"
    name = type(error).__name__ if hook else "nothing"
    print(f"{name} from {hook}: {end}, {callback.steps} training and {callback.batches} validation batches")


run(None, None)
for hook in ("on_validation_batch_end", "on_validation_end"):
    for error in (ValueError(), StopIteration()):
        run(hook, error)
PY
cat > expected <<'TXT'
nothing from None: fit returned, state finished, 8 training and 10 validation batches
ValueError from on_validation_batch_end: fit raised ValueError, 4 training and 1 validation batches
StopIteration from on_validation_batch_end: fit returned, state finished, 8 training and 2 validation batches
ValueError from on_validation_end: fit raised ValueError, 4 training and 5 validation batches
StopIteration from on_validation_end: fit returned, state finished, 4 training and 5 validation batches
TXT
"$folder/venv/bin/python" hook.py 2> errors | tee seen || { cat errors; exit 1; }
diff expected seen && echo "As described: Lightning 2.6.6 takes a hook's StopIteration for the end of the data."
