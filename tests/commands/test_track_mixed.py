"""`onnxgain track` of files that are not snapshots of one network."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import onnx
import pytest

import onnxgain
from onnxgain.errors import OnnxgainError
from tests.support import models

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def run(run: Any) -> Any:
    """Run `onnxgain track` in this process: (exit code, standard output, standard error)."""
    return functools.partial(run, "track")


def write(folder: Path, *classes: int) -> Path:
    """Networks with these numbers of classes."""
    folder.mkdir(parents=True, exist_ok=True)
    for epoch, count in enumerate(classes, 1):
        models.save(models.conv_net(classes=count, margin=0.1 * epoch), folder / f"epoch{epoch}.onnx")
    return folder


@pytest.mark.parametrize("form", ["table", "json"])
def test_unrelated_networks_are_no_run(run: Any, tmp_path: Path, form: str) -> None:
    code, out, err = run(write(tmp_path / "models", 5, 6, 7), "--format", form)
    assert (code, out) == (2, "")
    assert "models: these files are not snapshots of one network: no two of them have the same structure" in err
    assert "rank different networks by `onnxgain compare`" in err
    assert "epoch2.onnx: another shape: classes 6, the others 5" in err


def test_a_run_beside_unrelated_networks_is_shown(run: Any, tmp_path: Path) -> None:
    code, out, err = run(write(tmp_path / "run", 5, 5, 5), write(tmp_path / "models", 5, 6), "--format", "json")
    assert code == 2
    assert [len(one["snapshots"]) for one in json.loads(out)["runs"]] == [3, 1]
    assert "error: models: these files are not snapshots of one network" in err


def test_a_network_that_grows_is_tracked_with_a_caution(run: Any, tmp_path: Path) -> None:
    code, out, err = run(write(tmp_path / "run", 5, 5, 6, 6), "--format", "json")
    assert code == 0
    assert len(json.loads(out)["runs"][0]["snapshots"]) == 2
    assert "caution: run: 2 of 4 files are not snapshots of the network that is diagnosed" in err


def test_one_other_file_among_snapshots_is_left_out_without_a_caution(run: Any, tmp_path: Path) -> None:
    code, _, err = run(write(tmp_path / "run", 5, 5, 6, 5), "--format", "json")
    assert code == 0
    assert "caution" not in err and "left out" in err


def test_a_single_snapshot_is_a_run(run: Any, tmp_path: Path) -> None:
    assert run(write(tmp_path / "run", 5))[0] == 0


def test_unrelated_networks_raise_in_python(tmp_path: Path) -> None:
    with pytest.raises(OnnxgainError, match="not snapshots of one network"):
        onnxgain.track(write(tmp_path / "models", 5, 6))


CLASSES = 8
"""As many as the second convolution has filters, so that two biases have one shape."""


def test_an_untrained_network_whose_equal_tensors_were_merged_is_a_snapshot(run: Any, tmp_path: Path) -> None:
    folder = write(tmp_path / "run", *[CLASSES] * 4)
    merged = folder / "epoch1.onnx"
    model = onnx.load(merged)
    first, second = (one for one in model.graph.initializer if list(one.dims) == [CLASSES])
    for node in model.graph.node:
        node.input[:] = [first.name if name == second.name else name for name in node.input]
    model.graph.initializer.remove(second)
    onnx.save(model, merged)
    code, out, err = run(folder, "--format", "json")
    assert (code, "left out" in err) == (0, False)
    assert [one["epoch"] for one in json.loads(out)["runs"][0]["snapshots"]] == [1, 2, 3, 4]
    merged.rename(folder / "epoch9.onnx")  # the network is not untrained at the end
    code, _, err = run(folder, "--format", "json")
    assert code == 0
    assert "epoch9.onnx: another shape: parameters" in err
