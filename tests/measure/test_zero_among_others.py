"""If the derivative is zero at one stimulus, the others are shown and the error follows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from onnxgain.errors import ZeroGradientError
from onnxgain.measure.measure import measure_file
from onnxgain.measure.record import stimulus_text
from onnxgain.measure.request import Request
from tests.support import models

STIMULI = ("impulse:amplitude=-255", "impulse", "impulse:amplitude=-128", "impulse:amplitude=64")
"""The first and third stimulus drive all activations of the network below zero."""


def half_dead() -> onnx.ModelProto:
    """A classifier whose units are all zero if the sum of the image is negative."""
    net = models.Net()
    x = net.input("image", ["N", 1, 8, 8])
    total = net("ReduceSum", x, net.constant(np.array([1, 2, 3], np.int64)), keepdims=0)
    on = net("Relu", net("Unsqueeze", total, net.constant(np.array([1], np.int64))))
    weights = net.constant(np.array([[1.0, -1.0, 0.5]], np.float32))
    net.output(net("MatMul", on, weights, out="logits"), ["N", 3])
    return net.model()


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.save(half_dead(), tmp_path_factory.mktemp("dead") / "net.onnx")


def until_error(path: Path, stimuli: tuple[str, ...]) -> Iterator[str]:
    try:
        for measurement in measure_file(path, Request(stimuli=stimuli), threads=1):
            yield stimulus_text(measurement.record)
    except ZeroGradientError as error:
        yield str(error)


def test_other_stimuli_come_first_and_the_error_gives_the_count(path: Path) -> None:
    *measured, error = until_error(path, STIMULI)
    assert measured == ["impulse", "impulse:amplitude=64.0"]
    assert "exactly zero for the stimulus 'impulse:amplitude=-255.0'" in error
    assert "(and at another stimulus)" in error


def test_only_zero_derivatives_give_only_the_error(path: Path) -> None:
    assert len(list(until_error(path, STIMULI[:1]))) == 1


@pytest.mark.parametrize("limits", [(), ("--timeout", "60")], ids=["here", "in a child"])
def test_score_shows_the_other_stimuli(run: Any, path: Path, limits: tuple[str, ...]) -> None:
    stimuli = [word for text in STIMULI for word in ("--stimulus", text)]
    code, out, err = run("score", path, *stimuli, *limits, "--format", "json")
    assert code == 2
    assert [record["stimulus"]["parameters"]["amplitude"] for record in json.loads(out)["records"]] == [255.0, 64.0]
    assert err.startswith("error: ") and "exactly zero" in err


def test_compare_shows_the_other_stimuli_and_the_failure(run: Any, path: Path) -> None:
    code, out, _ = run("compare", path, *(w for text in STIMULI for w in ("--stimulus", text)), "--no-cache",
                       "--format", "json")  # fmt: skip
    document = json.loads(out)
    assert code == 2
    assert len(document["groups"]) == 2
    assert "exactly zero" in document["failures"][0]["reason"]


def test_gate_does_not_pass_with_a_zero_derivative(run: Any, path: Path) -> None:
    code, out, _ = run("gate", path, *(w for text in STIMULI for w in ("--stimulus", text)), "--no-cache",
                       "--max-gain", "1000")  # fmt: skip
    assert code == 1
    assert "exactly zero" in out


def test_zero_stimulus_is_not_compared_with_another(run: Any, path: Path, tmp_path: Path) -> None:
    other = models.save(models.conv_net(channels=1, size=(8, 8), classes=3), tmp_path / "other.onnx")
    code, _, err = run("diff", other, path, "--stimulus", STIMULI[0], "--stimulus", "impulse")
    assert code == 2
    assert "exactly zero" in err
