"""Images measured together give bitwise the same numbers as each image alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxgain.engine.device import CPU
from onnxgain.measure.fingerprint import LEVELS, unpacked
from onnxgain.measure.forward import fingerprint, forward
from onnxgain.measure.gradient_graph import BRIEF, GradientGraph
from onnxgain.measure.independence import is_influenced
from onnxgain.measure.measure import measure
from onnxgain.measure.measurement import Measurement
from onnxgain.measure.request import Request
from onnxgain.model.classifier import Classifier, Reading, describe
from onnxgain.model.input_scale import input_scale
from tests.support import models
from tests.support.coupled import COUPLINGS, coupled_net

STIMULI = ("impulse", "noise:seed=0", "noise:seed=1,sigma=200", "noise:seed=2", "grating:frequency=0.2")

HEADS = ("logits", "softmax", "log-softmax", "softmax-4d", "exp", "sigmoid", "pair")
OPTIONS: list[dict[str, Any]] = [
    *({"head": head} for head in HEADS), {"layout": "NHWC"}, {"layout": "CHW"}, {"pool": "MaxPool"},
    {"pool": "AveragePool"}, {"dtype": np.float16}, {"input_dtype": np.uint8}, {"size": (40, 37), "classes": 50},
    {"batch": 3},
]  # fmt: skip
ORDINARY: dict[str, Callable[[], onnx.ModelProto]] = {
    "baked batch": models.baked_batch,
    **{str(options): partial(models.conv_net, **{"size": (9, 8)} | options) for options in OPTIONS},
}
COUPLED: dict[str, Callable[[], onnx.ModelProto]] = {
    f"{couple.__name__}, batch {batch}": partial(coupled_net, couple, batch)
    for couple in COUPLINGS
    for batch in ("N", 4)
}
NETWORKS = ORDINARY | COUPLED


def read(model: onnx.ModelProto) -> Classifier:
    return describe(ir.from_proto(model), Reading(scale=input_scale("unit")))


def numbers(measured: Measurement) -> dict[str, Any]:
    record = dataclasses.asdict(measured.record)
    del record["time"]
    return record


def test_number_of_models() -> None:
    assert len(NETWORKS) >= 30


@pytest.mark.parametrize("build", NETWORKS.values(), ids=NETWORKS.keys())
def test_batch_equals_single_images_bitwise(build: Callable[[], onnx.ModelProto]) -> None:
    classifier = read(build())
    together = list(measure(classifier, Request(stimuli=STIMULI), threads=1))
    for stimulus, found in zip(STIMULI, together, strict=True):
        (alone,) = measure(read(build()), Request(stimuli=(stimulus,)), threads=1)
        np.testing.assert_array_equal(found.derivative, alone.derivative)
        np.testing.assert_array_equal(found.logits, alone.logits)
        assert numbers(found) == numbers(alone)


@pytest.mark.parametrize("build", NETWORKS.values(), ids=NETWORKS.keys())
def test_many_images_equal_single_images_up_to_rounding(build: Callable[[], onnx.ModelProto]) -> None:
    """For many images the graph is optimized and may run in batches, which changes the last bits."""
    stimuli = (*STIMULI, *(f"noise:seed={seed}" for seed in range(10, 10 + BRIEF)))
    together = list(measure(read(build()), Request(stimuli=stimuli), threads=1))
    for stimulus, found in list(zip(stimuli, together, strict=True))[:4]:
        (alone,) = measure(read(build()), Request(stimuli=(stimulus,)), threads=1)
        size = np.abs(alone.derivative).max()
        rounded = (
            alone.record.caveats is not None
        )  # dynamically quantized: a different rounding can give a different integer
        np.testing.assert_allclose(found.derivative, alone.derivative, rtol=0, atol=(0.2 if rounded else 1e-4) * size)


@pytest.mark.parametrize("build", NETWORKS.values(), ids=NETWORKS.keys())
def test_only_coupled_graphs_are_detected(build: Callable[[], onnx.ModelProto]) -> None:
    classifier = read(build())
    if "N" not in classifier.image.layout or build is models.baked_batch:
        return
    graph = GradientGraph(classifier, Request(stimuli=STIMULI, device=CPU), threads=1)
    if graph.batch == 1:
        graph._load(4)
    image = np.random.default_rng(0).uniform(0, 1, classifier.image.image_shape).astype(np.float32)
    coupled = build in COUPLED.values()
    assert is_influenced(graph._numbers, image, graph.batch) == coupled


@pytest.mark.parametrize("build", COUPLED.values(), ids=COUPLED.keys())
def test_fingerprint_equals_single_image_outputs(build: Callable[[], onnx.ModelProto]) -> None:
    images = np.random.default_rng(0).uniform(0, 1, (5, 3, 9, 8)).astype(np.float32)
    images[2] *= 40
    alone = [next(forward(read(build()), iter([image]), threads=1)) for image in images]
    for batch in (None, 4):
        together = list(forward(read(build()), iter(images), threads=1, batch=batch))
        np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-4)
    batched, single = (fingerprint(read(build()), threads=1, batch=batch) for batch in (4, None))
    assert batched.own is not None
    assert single.own is not None
    assert batched.own.remarks == single.own.remarks
    (winners, found), (expected_winners, expected) = unpacked(batched), unpacked(single)
    np.testing.assert_array_equal(winners, expected_winners)
    np.testing.assert_allclose(found, expected, rtol=0, atol=np.abs(expected).max() / LEVELS)
