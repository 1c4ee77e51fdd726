"""The notebook in the documentation runs, its results show a table and a picture, and it is saved without output."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

TOUR = Path(__file__).parent.parent / "onnxgain" / "docs" / "tour.ipynb"


def cells() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(TOUR.read_text(encoding="utf-8"))["cells"]
    return found


def test_no_output_is_kept() -> None:
    assert [cell for cell in cells() if cell.get("outputs") or cell.get("execution_count")] == []


@pytest.mark.filterwarnings("ignore")  # the notebook server's own
@pytest.mark.usefixtures("own_cache")
def test_it_runs(tmp_path: Path) -> None:
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    for name in ("ipykernel", "torch", "onnxscript"):
        pytest.importorskip(name)
    notebook = nbformat.read(TOUR, as_version=4)
    nbclient.NotebookClient(
        notebook, timeout=900, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    shown = {}
    for cell in notebook.cells:
        outputs = cell.get("outputs", [])
        assert {output["output_type"] for output in outputs} <= {"execute_result", "stream"}, cell.source
        for output in outputs:
            page = output.get("data", {}).get("text/html", "")
            if page.startswith("<pre"):
                shown[output["data"]["text/plain"].split()[1].rstrip(":,")] = page
    assert list(shown) == ["score", "diff", "gate", "saliency", "track"]
    assert {command for command, page in shown.items() if "data:image/png" in page} == {
        "score", "diff", "saliency", "track",
    }  # fmt: skip
    for page in shown.values():
        assert len(page.partition("</pre>")[0]) > 200
