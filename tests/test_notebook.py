"""The notebook runs, and holds the lines that docs/use.md documents."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests import words

NOTEBOOK = words.repository() / "docs" / "use.ipynb"


def test_the_notebook_runs(
    onnx_file: Path, phantom_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODEL", str(onnx_file))
    monkeypatch.setenv("IMAGE", str(next((phantom_root / "images").iterdir())))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    here = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=300, resources=here).execute()
    table, figure = (cell["outputs"][-1]["data"] for cell in notebook.cells[-2:])
    assert "probability" in table["text/plain"] and "image/png" in figure
    assert (tmp_path / "explained.png").is_file()


def test_the_notebook_is_the_page() -> None:
    page = (words.repository() / "docs" / "use.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    code = "\n".join(cell["source"] for cell in nbformat.read(NOTEBOOK, as_version=4).cells)
    for call in ("cardiomegaly.load(", "detector.predict([", "detector.explain(", ".figure()"):
        assert call in block and call in code
