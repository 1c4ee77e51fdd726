"""The page shows the synthetic images whose class differs between two models, with both classes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import numpy_helper

from onnxgain.report.html.answers import SHOWN
from tests.support import models

HEADING = "Images whose class changed"


@pytest.fixture
def run(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run a command in a folder with a model, and the same with other weights in its last layer."""
    model = models.conv_net()
    models.save(model, tmp_path / "a.onnx")
    name = next(node for node in model.graph.node if node.op_type == "Gemm").input[1]
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    array = numpy_helper.to_array(tensor)
    tensor.CopyFrom(numpy_helper.from_array(np.roll(array, 3, axis=0), name))
    models.save(model, tmp_path / "b.onnx")
    monkeypatch.chdir(tmp_path)
    return run


def shown(page: str) -> list[tuple[int, int]]:
    """The classes before and after, as shown below the pictures."""
    found = re.findall(r"before: class (\d+), [^<]+%</div><div>after: class (\d+), [^<]+%</div>", page)
    return [(int(before), int(after)) for before, after in found]


def test_diff_shows_the_images_whose_class_changed(run: Any) -> None:
    _, text, _ = run("diff", "a.onnx", "b.onnx", "--stimulus", "impulse", "--format", "json")
    flips = json.loads(text)["function"]["flips"]
    flips.sort(key=lambda flip: -flip["change"])
    assert flips
    _, page, _ = run("diff", "a.onnx", "b.onnx", "--stimulus", "impulse", "--format", "html")
    assert HEADING in page
    assert f"{len(flips)} of 48 synthetic images" in page
    assert shown(page) == [(flip["before"], flip["after"]) for flip in flips[:SHOWN]]
    assert len(re.findall(r'alt="?synthetic image: ', page)) == min(SHOWN, len(flips))


def test_no_images_if_no_class_changed(run: Any) -> None:
    _, page, _ = run("diff", "a.onnx", "a.onnx", "--stimulus", "impulse", "--format", "html")
    assert HEADING not in page
    _, page, _ = run("diff", "a.onnx", "b.onnx", "--no-fingerprint", "--stimulus", "impulse", "--format", "html")
    assert HEADING not in page


def test_gate_shows_the_images_whose_class_changed(run: Any) -> None:
    run("gate", "a.onnx", "--baseline", "base.json", "--update-baseline")
    Path("b.onnx").replace("a.onnx")
    _, page, _ = run("gate", "a.onnx", "--baseline", "base.json", "--format", "html")
    assert HEADING in page
    assert shown(page)
