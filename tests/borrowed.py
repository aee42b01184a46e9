"""A fresh environment with one wheel in it, which borrows the dependencies of this one."""

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from typing import Any

from tests.patience import PATIENCE


def environment(home: Path, wheel: Path) -> Path:
    """Make it in `home`; returns the folder of its programs."""
    venv.create(home)
    pip = [sys.executable, "-m", "pip", "--python", str(home / "bin" / "python")]
    command = [*pip, "install", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE)
    # A .pth file adds a folder without reading that folder's own .pth files, so the editable
    # install that the tests run from stays out of sight.
    (site,) = home.glob("lib/python*/site-packages")
    (site / "borrowed.pth").write_text(sysconfig.get_paths()["purelib"] + "\n", encoding="utf-8")
    return home / "bin"


def run_apart(command: list[Any], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command there, out of sight of this checkout."""
    apart = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        list(map(str, command)),
        env=apart,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
