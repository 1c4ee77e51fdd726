"""Convolution and pooling of the float64 evaluator against onnxruntime and naive loops."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.support.kernels import (
    SIZES,
    Array,
    Inputs,
    assert_like_runtime,
    evaluate_node,
    floats,
)

PADDINGS = ["NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"]
KERNELS = {1: (3,), 2: (3, 2), 3: (2, 3, 3)}
STRIDES = {1: (2,), 2: (2, 1), 3: (1, 2, 3)}
PADS = {1: [0, 2], 2: [1, 0, 2, 1], 3: [0, 1, 2, 1, 0, 1]}


def window_attributes(rank: int, auto_pad: str, *, dilated: bool) -> dict[str, Any]:
    attributes: dict[str, Any] = {"kernel_shape": KERNELS[rank], "strides": STRIDES[rank]}
    if auto_pad == "NOTSET":
        attributes["pads"] = PADS[rank]
    else:
        attributes["auto_pad"] = auto_pad
    # onnxruntime refuses or ignores dilations under SAME; the naive oracle below covers that.
    if dilated and not auto_pad.startswith("SAME"):
        attributes["dilations"] = [2, 1, 2][:rank]
    return attributes


@pytest.mark.parametrize("opset", [7, 11, 22])
@pytest.mark.parametrize("auto_pad", PADDINGS)
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize(("group", "inputs", "filters"), [(1, 3, 4), (2, 4, 6), (3, 3, 3), (3, 3, 6)])
def test_conv(rank: int, auto_pad: str, opset: int, group: int, inputs: int, filters: int) -> None:
    attributes = window_attributes(rank, auto_pad, dilated=opset > 7) | {"group": group}
    x, w, b = floats(2, inputs, *SIZES[rank]), floats(filters, inputs // group, *KERNELS[rank]), floats(filters)
    assert_like_runtime("Conv", [x, w, b], attributes, opset)
    assert_like_runtime("Conv", [x, w], attributes, opset)


def test_conv_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of one row give what one matrix product gives."""
    from onnxgain.engine.kernels import convolution

    x, w, small = floats(2, 4, 9, 8), floats(6, 2, 3, 3), floats(4, 1, 3, 3)
    cases: list[tuple[str, Inputs, dict[str, Any]]] = [
        ("Conv", [x, w], {"group": 2, "pads": [1, 1, 1, 1]}),
        ("Conv", [x, small], {"group": 4, "strides": [2, 2]}),
        ("ConvTranspose", [x, floats(4, 3, 3, 3)], {"group": 2, "strides": [2, 3]}),
    ]
    whole = [evaluate_node(op, inputs, attributes, 20)[0] for op, inputs, attributes in cases]
    monkeypatch.setattr(convolution, "_UNFOLDED", 1)
    monkeypatch.setattr(convolution, "_CACHED", 1)
    for (op, inputs, attributes), want in zip(cases, whole, strict=True):
        np.testing.assert_allclose(evaluate_node(op, inputs, attributes, 20)[0], want, rtol=1e-12)


@pytest.mark.parametrize("opset", [7, 22])
@pytest.mark.parametrize("auto_pad", PADDINGS)
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("group", [1, 2])
def test_conv_transpose(rank: int, auto_pad: str, opset: int, group: int) -> None:
    attributes = window_attributes(rank, auto_pad, dilated=True) | {"group": group, "strides": (1, 2, 2)[:rank]}
    x, w, b = floats(2, 4, *SIZES[rank]), floats(4, 3, *KERNELS[rank]), floats(3 * group)
    assert_like_runtime("ConvTranspose", [x, w, b], attributes, opset)
    padded = attributes | {"output_padding": [0, 1, 1][:rank]}
    assert_like_runtime("ConvTranspose", [x, w], padded, opset)


@pytest.mark.parametrize("auto_pad", ["NOTSET", "SAME_UPPER"])
def test_conv_transpose_output_shape_overrides_asymmetric_pads(auto_pad: str) -> None:
    """(5 - 1) * 2 + 3 = 11 elements, 10 wanted: the one too many goes at the end only under SAME_UPPER."""
    x, w = floats(1, 2, 5), floats(2, 1, 3)
    attributes = {"strides": [2], "auto_pad": auto_pad, "output_shape": [10]}
    natural = evaluate_node("ConvTranspose", [x, w], {"strides": [2]}, 20)[0]
    got = evaluate_node("ConvTranspose", [x, w], attributes, 20)[0]
    np.testing.assert_array_equal(got, natural[..., :-1] if auto_pad == "SAME_UPPER" else natural[..., 1:])
    assert_like_runtime("ConvTranspose", [x, w], attributes, 20)


@pytest.mark.parametrize("opset", [10, 12, 22])
@pytest.mark.parametrize("auto_pad", PADDINGS)
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("ceil_mode", [0, 1])
def test_max_pool(rank: int, auto_pad: str, opset: int, ceil_mode: int) -> None:
    attributes = window_attributes(rank, auto_pad, dilated=True) | {"ceil_mode": ceil_mode}
    x = floats(2, 3, *SIZES[rank])
    assert_like_runtime("MaxPool", [x], attributes, opset)
    for storage_order in (0, 1):
        assert_like_runtime("MaxPool", [x], attributes | {"storage_order": storage_order}, opset, n_outputs=2)


@pytest.mark.parametrize(("opset", "dilated"), [(10, False), (11, False), (19, True), (22, True)])
@pytest.mark.parametrize("auto_pad", PADDINGS)
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("count_include_pad", [0, 1])
@pytest.mark.parametrize("ceil_mode", [0, 1])
def test_average_pool(
    rank: int, auto_pad: str, opset: int, dilated: bool, count_include_pad: int, ceil_mode: int
) -> None:
    attributes = window_attributes(rank, auto_pad, dilated=dilated)
    attributes |= {"count_include_pad": count_include_pad, "ceil_mode": ceil_mode}
    assert_like_runtime("AveragePool", [floats(2, 3, *SIZES[rank])], attributes, opset)


@pytest.mark.parametrize(("opset", "dilated"), [(7, False), (18, True)])
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("p", [1, 2, 3])
def test_lp_pool(rank: int, opset: int, dilated: bool, p: int) -> None:
    attributes = window_attributes(rank, "NOTSET", dilated=dilated) | {"p": p}
    assert_like_runtime("LpPool", [floats(2, 3, *SIZES[rank])], attributes, opset)


def naive_windows(x: Array, begin: int, out: int, taps: int, stride: int, dilation: int) -> Iterator[list[float]]:
    """The elements of a 1-D input under each window, without its padding."""
    for o in range(out):
        positions = [o * stride - begin + k * dilation for k in range(taps)]
        yield [float(x[p]) if 0 <= p < len(x) else np.nan for p in positions]


@pytest.mark.parametrize(("auto_pad", "begin"), [("SAME_UPPER", 1), ("SAME_LOWER", 2)])
def test_same_padding_counts_dilation(auto_pad: str, begin: int) -> None:
    """Length 8, 3 taps 2 apart (extent 5), stride 2: 4 outputs, 3 * 2 + 5 - 8 = 3 elements of padding."""
    x, w = floats(8), floats(3)
    windows = [np.array(window) for window in naive_windows(x, begin, 4, 3, 2, 2)]
    attributes = {"kernel_shape": [3], "strides": [2], "dilations": [2], "auto_pad": auto_pad}
    conv = evaluate_node("Conv", [x[None, None], w[None, None]], attributes, 22)[0]
    largest = evaluate_node("MaxPool", [x[None, None]], attributes, 22)[0]
    average = evaluate_node("AveragePool", [x[None, None]], attributes, 22)[0]
    np.testing.assert_allclose(conv[0, 0], [np.nansum(window * w) for window in windows], rtol=1e-6)
    np.testing.assert_array_equal(largest[0, 0], [np.nanmax(window) for window in windows])
    np.testing.assert_allclose(average[0, 0], [np.nanmean(window) for window in windows], rtol=1e-6)


def test_same_padding_is_never_negative() -> None:
    """A kernel smaller than its stride starts at the first element, as in TensorFlow."""
    x = np.arange(6, dtype=np.float32)[None, None]
    attributes = {"kernel_shape": [1], "strides": [3], "auto_pad": "SAME_UPPER"}
    np.testing.assert_array_equal(evaluate_node("MaxPool", [x], attributes, 22)[0][0, 0], [0, 3])


def test_max_pool_reports_the_first_of_equal_maxima() -> None:
    x = np.zeros((1, 2, 4, 4), dtype=np.float32)
    attributes = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}
    _, indices = evaluate_node("MaxPool", [x], attributes, 20, n_outputs=2)
    np.testing.assert_array_equal(indices[0], [[[0, 1], [4, 5]], [[16, 17], [20, 21]]])
    assert_like_runtime("MaxPool", [x], attributes, 20, n_outputs=2)
