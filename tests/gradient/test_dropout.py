"""Dropout in training mode is random, so it is checked within one run of the runtime, not with finite differences."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnxgain.gradient.graphs import vector_jacobian
from tests.gradient.arrays import normal
from tests.gradient.checker import Case, build

ort = pytest.importorskip("onnxruntime")


def run(case: Case, version: int, **feeds: np.ndarray) -> dict[str, np.ndarray]:
    model, fed, _ = build(case, version)
    product = vector_jacobian(model, ["x0"])
    session = ort.InferenceSession(ir.to_proto(product).SerializeToString(), providers=["CPUExecutionProvider"])
    types = {i.name: np.float32 if "float" in i.type else np.bool_ for i in session.get_inputs()}
    feeds = {name: array.astype(types[name]) for name, array in {**fed, **feeds}.items()}
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, feeds), strict=True))


@pytest.mark.parametrize("version", [12, 13, 22])
@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize("ratio", [0.25, None])
def test_training_mode_differentiates_the_mask_drawn(version: int, outputs: int, ratio: float | None) -> None:
    x, adjoint = normal(8, 9), normal(8, 9)
    inputs = [x, None if ratio is None else np.array(ratio), np.array(True)]
    case = Case("Dropout", inputs, {"seed": 3}, wrt=(0,), constants=(1, 2), outputs=outputs)
    result = run(case, version, adjoint_y0=adjoint)
    dropped = result["y0"] == 0
    assert 0 < dropped.sum() < dropped.size
    np.testing.assert_allclose(result["y0"], np.where(dropped, 0, x / (1 - (ratio or 0.5))), rtol=1e-5)
    np.testing.assert_allclose(result["gradient_x0"], adjoint * result["y0"] / x, rtol=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_training_mode_computed_at_run_time(training: bool) -> None:
    x, adjoint = normal(8, 9), normal(8, 9)
    case = Case("Dropout", [x, np.array(0.25), np.array(training)], {"seed": 3}, wrt=(0,), constants=())
    result = run(case, 13, adjoint_y0=adjoint)
    assert (result["y0"] == 0).any() == training
    np.testing.assert_allclose(result["gradient_x0"], adjoint * result["y0"] / x, rtol=1e-5)
