#!/usr/bin/env bash
# torchmetrics 1.9.0: a MetricCollection takes two metrics for one, by what the first batch was.
#
# Expected: in a collection each metric has the value that it has alone, above all where two of them
#   were given different thresholds or another `ignore_index`.
# Seen: accuracy at a threshold of 0.9 is 0.5 alone and 1.0 in a collection beside that at 0.5, and
#   without ignored rows 0.667 alone and 0.833 in a collection. After the first `update` metrics whose
#   states are equal in number are merged ("compute groups", on by default) and share one state from
#   then on; the arguments are not compared. Where the first batch happens to have no row that tells
#   them apart, the second metric is never computed again. With compute_groups=False it is right.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --no-deps torch==2.13.0
"$folder/venv/bin/pip" install -q torch==2.13.0 torchmetrics==1.9.0
cd "$folder"
cat > collection.py <<'PY'
import torch
from torchmetrics import MetricCollection
from torchmetrics.classification import BinaryAccuracy, MulticlassAccuracy


def thresholds():
    return {"from 50": BinaryAccuracy(threshold=0.5), "from 90": BinaryAccuracy(threshold=0.9)}


def ignoring():
    return {
        "all": MulticlassAccuracy(3, average="micro"),
        "without class 0": MulticlassAccuracy(3, average="micro", ignore_index=0),
    }


PROBABILITIES = [([0.05, 0.95], [0, 1]), ([0.6, 0.7, 0.8, 0.2], [1, 1, 1, 0])]
CLASSES = [([1, 2], [1, 2]), ([0, 0, 0, 1], [0, 0, 0, 2])]

for metrics, batches in ((thresholds, PROBABILITIES), (ignoring, CLASSES)):
    for given in ({}, {"compute_groups": False}):
        alone, together = metrics(), MetricCollection(metrics(), **given)
        for predicted, labels in batches:
            batch = torch.tensor(predicted), torch.tensor(labels)
            together.update(*batch)
            for metric in alone.values():
                metric.update(*batch)
        seen = {name: round(value.item(), 3) for name, value in together.compute().items()}
        print(f"{given}: alone { {n: round(m.compute().item(), 3) for n, m in alone.items()} }, together {seen}")
PY
cat > expected <<'TXT'
{}: alone {'from 50': 1.0, 'from 90': 0.5}, together {'from 50': 1.0, 'from 90': 1.0}
{'compute_groups': False}: alone {'from 50': 1.0, 'from 90': 0.5}, together {'from 50': 1.0, 'from 90': 0.5}
{}: alone {'all': 0.833, 'without class 0': 0.667}, together {'all': 0.833, 'without class 0': 0.833}
{'compute_groups': False}: alone {'all': 0.833, 'without class 0': 0.667}, together {'all': 0.833, 'without class 0': 0.667}
TXT
"$folder/venv/bin/python" collection.py 2> errors | tee seen || { cat errors; exit 1; }
diff expected seen && echo "As described: torchmetrics 1.9.0 merges metrics with other arguments."
