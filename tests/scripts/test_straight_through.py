"""The differences that check gradients of quantized models (`scripts/agreement/straight_through.py`), themselves
checked.

A small network is quantized by onnxruntime in both formats; the straight-through gradient must pass, others must not.
"""

from __future__ import annotations

import logging
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxgain.engine.evaluator import Float64Evaluator
from onnxgain.model.classifier import load_classifier
from onnxgain.model.differentiate import differentiate
from scripts.agreement import straight_through as module

SHAPE = (1, 3, 12, 12)
CLASSES = 5
IMAGE = np.random.default_rng(3).normal(size=SHAPE).astype(np.float32)


@pytest.fixture
def straight_through() -> ModuleType:
    return module


def network() -> onnx.ModelProto:
    """Two convolutions with a MaxPool between them (many ties) and a residual sum before a Relu (sums of zeros)."""
    draw = np.random.default_rng(0).normal
    weights = {
        "w1": draw(size=(8, 3, 3, 3)) / 5, "b1": draw(size=8), "w2": draw(size=(8, 8, 3, 3)) / 8, "b2": draw(size=8),
        "w3": draw(size=(8, CLASSES)),
    }  # fmt: skip
    nodes = [
        helper.make_node("Conv", ["image", "w1", "b1"], ["c1"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("MaxPool", ["r1"], ["p"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["p", "w2", "b2"], ["c2"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c2"], ["r2"]),
        helper.make_node("Sub", ["r2", "p"], ["s"]),
        helper.make_node("Relu", ["s"], ["r3"]),
        helper.make_node("Concat", ["r3", "c2"], ["k"], axis=2),
        helper.make_node("GlobalAveragePool", ["k"], ["g"]),
        helper.make_node("Flatten", ["g"], ["f"]),
        helper.make_node("MatMul", ["f", "w3"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, SHAPE)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, CLASSES])],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


class Calibration:
    """Calibrate with half the image, so that some activations saturate at the full image."""

    def __init__(self) -> None:
        self.images = [{"image": IMAGE / 2}]

    def get_next(self) -> dict[str, Any] | None:
        return self.images.pop() if self.images else None


@pytest.fixture(scope="module", params=["QDQ", "QOperator"])
def quantized(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from onnxruntime.quantization import QuantFormat, quantize_static

    folder = tmp_path_factory.mktemp(request.param)
    onnx.save(network(), folder / "float.onnx")
    logging.disable(logging.WARNING)  # it logs a recommendation to pre-process
    try:
        form = getattr(QuantFormat, request.param)
        quantize_static(folder / "float.onnx", folder / "int8.onnx", Calibration(), quant_format=form)
    finally:
        logging.disable(logging.NOTSET)
    return folder / "int8.onnx"


def gradient(path: Path, winner: int) -> np.ndarray:
    graph = differentiate(load_classifier(path), class_index=winner)
    derivative: np.ndarray = Float64Evaluator(graph).run({"image": IMAGE.astype(np.float64)})["derivative"]
    return derivative


def test_the_straight_through_gradient_equals_the_differences(straight_through: ModuleType, quantized: Path) -> None:
    for winner in range(CLASSES):
        function = straight_through.Anchored(quantized, IMAGE, winner)
        errors = straight_through.differences(function, gradient(quantized, winner))
        assert all(error is not None and error < 1e-5 for error in errors), errors


def test_other_gradients_do_not(straight_through: ModuleType, quantized: Path) -> None:
    function = straight_through.Anchored(quantized, IMAGE, 0)
    right = gradient(quantized, 0)
    without_quantization = gradient(quantized.with_name("float.onnx"), 0)
    for wrong in (right * 1.01, -right, right[..., ::-1], without_quantization):
        errors = [error for error in straight_through.differences(function, wrong) if error is not None]
        assert max(errors) > straight_through.TOLERANCE


def test_the_anchored_function_has_the_logits_of_the_model(straight_through: ModuleType, quantized: Path) -> None:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(quantized, options, providers=["CPUExecutionProvider"])
    function = straight_through.Anchored(quantized, IMAGE, 1)
    logits = session.run(None, {"image": IMAGE})[0]
    np.testing.assert_allclose(function.logits, logits, rtol=1e-5, atol=1e-5)
    exponentials = np.exp(logits.reshape(-1).astype(np.float64))
    assert function(function.image) == pytest.approx(float(np.log(exponentials[1] / exponentials.sum())), abs=1e-5)
