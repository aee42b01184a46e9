#!/usr/bin/env bash
# torchmetrics 1.9.0 (scipy 1.17.1, numpy 2): importing it loads scipy.signal and changes two modules
#   of others.
#
# Expected: a metrics library imports scipy where a metric needs it, and leaves other modules alone.
# Seen: `import torchmetrics`, which `import lightning` does too, imports scipy.signal wherever scipy
#   is installed, hundreds of modules; puts `scipy.signal.hamming` back, which scipy removed; and
#   puts `numpy.Inf` back, which numpy 2 removed, so that code which asks for it by hasattr goes
#   another way after the import than before.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --no-deps torch==2.13.0
"$folder/venv/bin/pip" install -q torch==2.13.0 torchmetrics==1.9.0 scipy==1.17.1 numpy==2.4.6
cat > "$folder/patched.py" <<'PYTHON'
import sys

import numpy
import scipy

before = hasattr(numpy, "Inf"), "scipy.signal" in sys.modules
import torchmetrics  # noqa: E402

after = hasattr(numpy, "Inf"), "scipy.signal" in sys.modules
loaded = sum(name.startswith("scipy.") for name in sys.modules)
print("numpy.Inf, scipy.signal before:", before)
print("numpy.Inf, scipy.signal after: ", after, "and scipy.signal.hamming", scipy.signal.hamming.__module__)
print("modules of scipy:", "more than 100" if loaded > 100 else loaded)
assert before == (False, False) and after == (True, True) and loaded > 100, "the behaviour has changed"
PYTHON
"$folder/venv/bin/python" -W ignore "$folder/patched.py"
