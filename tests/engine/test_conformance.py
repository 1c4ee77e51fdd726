"""The float64 evaluator against the conformance suite of the onnx package."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, numpy_helper

from onnxgain.engine.evaluator import Float64Evaluator

# Case name (or its beginning) -> why its expected output is not what float64 evaluation gives.
EXPECTED_DIFFERENCES = {
    "test_adam_multiple": "a training operator, in float32 in onnx.reference",
    "test_ai_onnx_ml_label_encoder_tensor_mapping": "a string tensor as attribute",
    "test_bernoulli": "random",
    "test_bitcast": "refused: the width of the type changes",
    "test_training_dropout": "refused: random",
    "test_dynamicquantizelinear": "a value halfway between two integers in float32 only",
    "test_flexattention": "no float64 implementation",
    "test_if_opt": "an optional type as attribute",
    "test_linear_attention": "refused: float32 in onnx.reference",
    "test_lstm_with_peepholes": "refused: sequence_lens",
    "test_optional_has_element_empty_optional_input": "an input that is None",
    "test_resize_downsample_scales_linear_align_corners": "divided by a fractional length, unlike onnxruntime",
    "test_resize_downsample_scales_cubic_align_corners": "divided by a fractional length, unlike onnxruntime",
    "test_scan_sum": "refused: Scan of opset 8",
    "test_tfidfvectorizer": "refused: float32 in onnx.reference",
}
# Relative precision of what the suite computed in these types.
SUITE_TOLERANCE = {"float16": 4e-3, "bfloat16": 3e-2}


@pytest.fixture(scope="module")
def suite() -> list[Any]:
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [case for case in collect_testcases(None) if case.model is not None]


def suite_value(value: Any) -> Any:
    return numpy_helper.to_array(value) if isinstance(value, TensorProto) else value


def agree(got: Any, want: Any, tolerance: float) -> bool:
    if isinstance(want, list):
        return len(got) == len(want) and all(agree(g, w, tolerance) for g, w in zip(got, want, strict=True))
    want = np.asarray(want)
    if want.dtype.kind in "OUS":
        return bool((got == want).all())
    tolerance = max(tolerance, SUITE_TOLERANCE.get(want.dtype.name, 0.0))
    wide = np.float64 if want.dtype.name in {"float32", "float16", "bfloat16"} else want.dtype
    if got.dtype != wide or got.shape != want.shape:
        return False
    return np.allclose(
        got.astype(np.float64), want.astype(np.float64), rtol=tolerance, atol=tolerance / 1000, equal_nan=True
    )


def failure(case: Any) -> str | None:
    try:
        evaluator = Float64Evaluator(ir.from_proto(case.model))
        for inputs, outputs in case.data_sets:
            feeds = {i.name: suite_value(x) for i, x in zip(case.model.graph.input, inputs, strict=False)}
            results = evaluator.run(feeds)
            for info, want in zip(case.model.graph.output, outputs, strict=True):
                if not agree(results[info.name], suite_value(want), max(case.rtol, 1e-3)):
                    return f"{info.name} differs"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def test_conformance(suite: list[Any]) -> None:
    """The newest version of every operator, as onnx itself tests it; nothing unexpected, and no stale exception."""
    failures = {case.name: reason for case in suite if (reason := failure(case))}
    unexpected = {n: r for n, r in failures.items() if not n.startswith(tuple(EXPECTED_DIFFERENCES))}
    assert not unexpected
    stale = [
        prefix
        for prefix in EXPECTED_DIFFERENCES
        if any(case.name.startswith(prefix) for case in suite) and not any(name.startswith(prefix) for name in failures)
    ]
    assert not stale
    assert len(suite) - len(failures) > 1500


def test_no_operator_falls_back_to_float32(suite: list[Any]) -> None:
    """Inputs that float32 cannot hold give outputs that float32 cannot hold, whatever the operator."""
    narrow = set()
    for case in suite:
        if case.name.endswith("_expanded") or case.name.startswith(tuple(EXPECTED_DIFFERENCES)):
            continue
        feeds = {}
        for info, value in zip(case.model.graph.input, case.data_sets[0][0], strict=False):
            x = suite_value(value)
            if (
                isinstance(x, np.ndarray)
                and x.size > 1
                and x.dtype.name in {"float64", "float32", "float16", "bfloat16"}
            ):
                x = x.astype(np.float64) * (1 + np.random.default_rng(0).uniform(-1e-10, 1e-10, x.shape))
            feeds[info.name] = x
        for y in Float64Evaluator(ir.from_proto(case.model)).run(feeds).values():
            if not isinstance(y, np.ndarray) or y.dtype != np.float64:
                continue
            fraction = y[np.isfinite(y) & (y != np.rint(y))]
            if fraction.size and np.mean(fraction.astype(np.float32) == fraction) > 0.5:
                narrow.add(case.model.graph.node[0].op_type)
    # Casts from 8-bit floats, constants, and padding with a constant: values that float32 holds anyway.
    assert narrow == {"Cast", "CastLike", "Constant", "Pad"}
