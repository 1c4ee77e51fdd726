"""Models written by onnxruntime's offline optimizer and quantizer."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from onnxgain.engine.evaluator import Float64Evaluator
from onnxgain.errors import UnsupportedOperatorError
from onnxgain.gradient.graphs import vector_jacobian
from tests.gradient.checker import close
from tests.gradient.test_microsoft import run_kernel
from tests.support.processor import largest_int8

MODELS = Path(__file__).resolve().parents[2] / "models"
LENET = MODELS / "lenet_small_mnist_torch.onnx"


def optimized(source: Path, level: str, target: Path) -> ir.Model:
    """The model after onnxruntime's offline optimization at a level."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, f"ORT_ENABLE_{level}")
    options.optimized_model_filepath = str(target)
    options.log_severity_level = 4
    onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])
    return ir.load(target)


def image_input(model: ir.Model) -> tuple[str, tuple[int, ...]]:
    (x,) = (value for value in model.graph.inputs if value.name not in model.graph.initializers)
    assert x.name and x.shape
    return x.name, tuple(dim if isinstance(dim, int) else 1 for dim in x.shape)


def evaluate(model: ir.Model, seed: int = 5) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """The image, the first floating output, and its gradient for random upstream gradients, all in float64."""
    name, shape = image_input(model)
    place, output = next(
        (i, value.name)
        for i, value in enumerate(model.graph.outputs)
        if value.dtype is None or value.dtype.is_floating_point()
    )
    assert output
    product = vector_jacobian(model, [name], outputs=[output], input_shapes={name: shape})
    rng = np.random.default_rng(seed)
    feeds = {name: rng.normal(size=shape).astype(np.float32).astype(np.float64)}
    evaluator = Float64Evaluator(product)
    y = product.graph.outputs[place].name
    assert y
    adjoint = rng.normal(size=evaluator.run(feeds, [y])[y].shape)
    result = evaluator.run({**feeds, f"adjoint_{output}": adjoint})
    return feeds, result[y], result[f"gradient_{name}"]


@pytest.mark.parametrize("level", ["BASIC", "EXTENDED"])
@pytest.mark.parametrize("path", sorted(MODELS.glob("*.onnx")), ids=lambda path: path.stem)
def test_offline_optimization_changes_nothing(path: Path, level: str, tmp_path: Path) -> None:
    _, y, dx = evaluate(ir.load(path))
    _, y_after, dx_after = evaluate(optimized(path, level, tmp_path / "optimized.onnx"))
    close(y_after, y, 1e-5, "output")
    close(dx_after, dx, 1e-5, "gradient")


def test_the_layout_of_this_machine_is_refused_with_a_remedy(tmp_path: Path) -> None:
    model = optimized(LENET, "ALL", tmp_path / "optimized.onnx")
    if not any(node.domain == "com.microsoft.nchwc" for node in model.graph):
        pytest.skip("onnxruntime has no blocked layout on this processor")
    with pytest.raises(UnsupportedOperatorError, match="ORT_ENABLE_EXTENDED"):
        evaluate(model)


@pytest.fixture
def quantize(tmp_path: Path) -> Iterator[Callable[..., ir.Model]]:
    """A function that quantizes LeNet with random images for calibration."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Noise(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            name, shape = image_input(ir.load(LENET))
            rng = np.random.default_rng(0)
            self.images = iter([{name: rng.normal(size=shape).astype(np.float32)} for _ in range(4)])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.images, None)

    def run(form: str, activations: str, *, per_channel: bool) -> ir.Model:
        target = tmp_path / "quantized.onnx"
        quantize_static(
            LENET,
            target,
            Noise(),
            quant_format=QuantFormat[form],
            activation_type=QuantType[activations],
            weight_type=QuantType.QInt8,
            per_channel=per_channel,
            reduce_range=largest_int8() < 127,
        )
        return ir.load(target)

    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield run
    logging.disable(before)


@pytest.mark.parametrize("form", ["QDQ", "QOperator"])
@pytest.mark.parametrize(("activations", "per_channel"), [("QInt8", True), ("QUInt8", False)])
def test_quantized_models(quantize: Callable[..., ir.Model], form: str, activations: str, *, per_channel: bool) -> None:
    """The output equals onnxruntime's up to a few steps; the gradient has the direction of the real model's."""
    _, _, dx_real = evaluate(ir.load(LENET))
    model = quantize(form, activations, per_channel=per_channel)
    feeds, y, dx = evaluate(model)
    expected = next(iter(run_kernel(model, feeds).values()))
    close(y, expected, 0.02, "output")
    cosine = float((dx * dx_real).sum() / np.linalg.norm(dx) / np.linalg.norm(dx_real))
    assert cosine > 0.85, cosine


def test_quantized_in_16_bits(quantize: Callable[..., ir.Model]) -> None:
    """16-bit activations; the weights still have 8 bits."""
    _, _, dx_real = evaluate(ir.load(LENET))
    _, _, dx = evaluate(quantize("QDQ", "QUInt16", per_channel=False))
    cosine = float((dx * dx_real).sum() / np.linalg.norm(dx) / np.linalg.norm(dx_real))
    assert cosine > 0.9, cosine
