#!/usr/bin/env bash
# datasets 5.2.0: `DatasetDict.class_encode_column` gives a class another number in each split.
#
# Expected: called on training and test rows together, it gives a name one number in all of them, as
#   `cast_column` with one ClassLabel does; or it says that the splits have other classes.
# Seen: each split is numbered by its own sorted names. Where the test rows lack one of three classes,
#   "positive" is 2 in training and 1 in the test, where 1 means "neutral" to the model: a model that
#   is always right is scored wrong on each such row. No error, no warning; only the features of the
#   two splits, held side by side, tell.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q datasets==5.2.0
cd "$folder"
cat > encode.py <<'PY'
from datasets import ClassLabel, Dataset, DatasetDict, disable_progress_bars

disable_progress_bars()
rows = DatasetDict(
    train=Dataset.from_dict({"label": ["negative", "neutral", "positive"]}),
    test=Dataset.from_dict({"label": ["negative", "positive", "positive"]}),
)
encoded = rows.class_encode_column("label")
for split, table in encoded.items():
    print(f"{split}: {list(zip(rows[split]['label'], table['label']))}")
number = dict(zip(rows["train"]["label"], encoded["train"]["label"]))
right = [number[name] for name in rows["test"]["label"]]  # what a perfect model answers
same = sum(one == other for one, other in zip(right, encoded["test"]["label"]))
print(f"a perfect model has {same} of {len(right)} right")
cast = rows.cast_column("label", ClassLabel(names=["negative", "neutral", "positive"]))
print(f"cast_column: {cast['test']['label'][:]}")
PY
cat > expected <<'TXT'
train: [('negative', 0), ('neutral', 1), ('positive', 2)]
test: [('negative', 0), ('positive', 1), ('positive', 1)]
a perfect model has 1 of 3 right
cast_column: [0, 2, 2]
TXT
HF_HUB_OFFLINE=1 HF_HOME="$folder" "$folder/venv/bin/python" encode.py 2> errors | tee seen || { cat errors; exit 1; }
diff expected seen && echo "As described: datasets 5.2.0 numbers the classes of each split by itself."
