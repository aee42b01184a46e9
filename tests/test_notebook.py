"""The notebook of docs/ runs from its first cell to its last."""

from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).parents[1] / "docs/notebook.ipynb"


@pytest.mark.slow
@pytest.mark.usefixtures("smollm2_installed")
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    nbformat = pytest.importorskip("nbformat", reason="make docs installs nbclient")
    nbclient = pytest.importorskip("nbclient", reason="make docs installs nbclient")
    monkeypatch.setenv("PYTHONPATH", str(NOTEBOOK.parents[1]))  # of the kernel's process
    notebook: Any = nbformat.read(NOTEBOOK, 4)
    in_folder = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=900, resources=in_folder).execute()
    shown = {i: cell.outputs for i, cell in enumerate(notebook.cells) if cell.cell_type == "code"}
    answers, page = list(shown.values())[-2:]
    assert answers[-1]["data"]["text/plain"] == "['negative', 'positive']"
    assert "<iframe" in page[-1]["data"]["text/html"]
