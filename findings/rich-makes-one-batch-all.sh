#!/usr/bin/env bash
# rich 15.0.0, lightning 2.6.6 and jsonargparse 4.53.0: importing rich first changes what one batch is.
#
# Expected: `--trainer.limit_val_batches 1` is one batch and `1.0` all of them, as Trainer's
#   `Union[int, float]` says, whatever else a program has imported.
# Seen: rich names `Union[float, int]` when it is imported. That is equal to `Union[int, float]`, and
#   Python's `typing` keeps one object for equal unions: the order of whoever comes first. A Trainer
#   that is imported later carries rich's order in its signature, jsonargparse tries the types in
#   that order, and `1` becomes 1.0. All validation rows are read where one batch was asked for, or
#   all training batches; nothing is said. The other limits and `overfit_batches` behave alike.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --no-deps torch==2.13.0
"$folder/venv/bin/pip" install -q torch==2.13.0 lightning==2.6.6 'jsonargparse[signatures]==4.53.0' rich==15.0.0
cd "$folder"
cat > order.py <<'PY'
import sys

if "rich" in sys.argv:
    import rich.console  # noqa: F401 - as a program does that prints in colour

    sys.argv.remove("rich")
import inspect

from jsonargparse import ArgumentParser
from lightning.pytorch import Trainer

hint = inspect.signature(Trainer.__init__).parameters["limit_val_batches"].annotation
parser = ArgumentParser()
parser.add_class_arguments(Trainer, "trainer")
value = parser.parse_args(["--trainer.limit_val_batches", "1"]).trainer.limit_val_batches
print(f"{hint}: --trainer.limit_val_batches 1 is {value!r}".replace("typing.", ""))
PY
cat > expected <<'TXT'
Union[int, float, NoneType]: --trainer.limit_val_batches 1 is 1
Union[float, int, NoneType]: --trainer.limit_val_batches 1 is 1.0
TXT
{ "$folder/venv/bin/python" order.py && "$folder/venv/bin/python" order.py rich; } 2> errors | tee seen \
    || { cat errors; exit 1; }
diff expected seen && echo "As described: an import of rich makes one batch all of them."
