"""The toy CNN of the paper (section III-B, Figures 2 to 4): a 7x7 Gaussian of sigma 1, then ReLU.

All of its results are known in closed form, so the expected values are independent of this program.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxgain.engine.session import Session
from onnxgain.gradient.graphs import vector_jacobian
from onnxgain.measure.spectrum import Spectrum, frequency_response
from onnxgain.model.input_scale import input_scale
from onnxgain.model.stimulus import impulse

SIZE = (48, 64)
REACH = np.arange(-3, 4)
PROFILE = np.exp(-(REACH**2) / 2.0)
GAUSSIAN = np.outer(PROFILE, PROFILE) / PROFILE.sum() ** 2
SHEARED = GAUSSIAN * (1 + 0.2 * REACH[:, None] - 0.3 * REACH[None, :] + 0.1 * REACH[:, None] * REACH[None, :])
"""Asymmetric, so that the filter differs from its mirror images."""


def toy_cnn(weights: np.ndarray) -> ir.Model:
    """z = relu(w * x), * being what ONNX (and every framework) calls convolution: correlation with w."""
    shape = [1, 1, *SIZE]
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w"], ["filtered"], pads=[3, 3, 3, 3]),
            helper.make_node("Relu", ["filtered"], ["z"]),
        ],
        "toy",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(weights.astype(np.float32)[None, None], "w")],
    )
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))


def backward(weights: np.ndarray, x: np.ndarray, p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """z and d<p, z>/dx, both (H, W)."""
    session = Session(vector_jacobian(toy_cnn(weights), ["x"]), threads=1)
    feeds = {"x": x.astype(np.float32)[None, None], "adjoint_z": p.astype(np.float32)[None, None]}
    result = session.run(feeds)
    return result["z"][0, 0], result["gradient_x"][0, 0]


def natural() -> np.ndarray:
    """An image without its mean: smooth, positive in some places and negative in others."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    return 90 * np.sin(2 * np.pi * (x / 37 + y / 53)) + 20 * np.random.default_rng(1).standard_normal(SIZE)


def one_at(y: int, x: int) -> np.ndarray:
    p = np.zeros(SIZE)
    p[y, x] = 1
    return p


def placed(weights: np.ndarray, y: int, x: int) -> np.ndarray:
    image = np.zeros(SIZE)
    image[y - 3 : y + 4, x - 3 : x + 4] = weights
    return image


def gaussian_response(spectrum: Spectrum) -> np.ndarray:
    """|H| of the Gaussian: the product of two cosine sums, as its transform is real and separable."""
    fy, fx = spectrum.frequencies
    along_y, along_x = (
        sum(w * np.cos(2 * np.pi * f * n) for w, n in zip(PROFILE, REACH, strict=True)) / PROFILE.sum()
        for f in (fy, fx)
    )
    return np.abs(np.outer(along_y, along_x))


@pytest.mark.parametrize("weights", [GAUSSIAN, SHEARED], ids=["gaussian", "sheared"])
def test_derivative_at_a_live_unit_is_the_filter_there(weights: np.ndarray) -> None:
    z, _ = backward(weights, natural(), np.zeros(SIZE))
    y, x = np.argwhere(z[5:-5, 5:-5] > 1)[7] + 5
    _, derivative = backward(weights, natural(), one_at(y, x))
    np.testing.assert_allclose(derivative, placed(weights, y, x), rtol=0, atol=1e-7)


def test_response_is_the_transform_of_the_gaussian() -> None:
    z, _ = backward(GAUSSIAN, natural(), np.zeros(SIZE))
    responses = []
    for y, x in np.argwhere(z[5:-5, 5:-5] > 1)[[3, 90, 200]] + 5:
        _, derivative = backward(GAUSSIAN, natural(), one_at(y, x))
        responses.append(frequency_response(derivative[None], window=False))
    for spectrum in responses:  # the same at any position of the unit
        np.testing.assert_allclose(spectrum.magnitude[0], gaussian_response(spectrum), rtol=0, atol=1e-6)
        assert spectrum.maximum_gain[0] == pytest.approx(0.0, abs=1e-5)  # the weights sum to one: 0 dB at DC
        assert spectrum.peaks(1)[0].harmonic == "DC"


def test_derivative_at_a_dead_unit_is_zero() -> None:
    z, _ = backward(GAUSSIAN, natural(), np.zeros(SIZE))
    y, x = np.argwhere(z == 0)[0]
    _, derivative = backward(GAUSSIAN, natural(), one_at(y, x))
    assert not derivative.any()
    assert frequency_response(derivative[None], window=False).maximum_gain == (None,)


def test_all_ones_sums_the_filters_of_the_live_units() -> None:
    """Figure 3b."""
    z, derivative = backward(GAUSSIAN, natural(), np.ones(SIZE))
    live = np.pad((z > 0).astype(float), 3)
    expected = sum(
        GAUSSIAN[3 + dy, 3 + dx] * live[3 - dy : 3 - dy + SIZE[0], 3 - dx : 3 - dx + SIZE[1]]
        for dy in REACH
        for dx in REACH
    )
    np.testing.assert_allclose(derivative, expected, rtol=0, atol=1e-6)


def test_impulse_image_and_all_ones() -> None:
    """Figure 4: the live units are the 7x7 that see the impulse, so the derivative is the filter summed over them."""
    stimulus = impulse((1, *SIZE), input_scale("raw"))
    centre = (SIZE[0] // 2, SIZE[1] // 2)
    assert stimulus.windowed
    assert stimulus.image[0, centre[0], centre[1]] == 255

    z, derivative = backward(GAUSSIAN, stimulus.image[0], np.ones(SIZE))
    np.testing.assert_allclose(z, 255 * placed(GAUSSIAN, *centre), rtol=0, atol=1e-4)
    assert np.count_nonzero(z) == 49
    row = np.convolve(PROFILE / PROFILE.sum(), np.ones(7))  # 13 long
    expected = np.zeros(SIZE)
    expected[centre[0] - 6 : centre[0] + 7, centre[1] - 6 : centre[1] + 7] = np.outer(row, row)
    np.testing.assert_allclose(derivative, expected, rtol=0, atol=1e-6)

    spectrum = frequency_response(derivative[None], window=stimulus.windowed)
    hann_y, hann_x = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n) / (n - 1)) for n in SIZE)
    windowed = expected * np.outer(hann_y, hann_x)
    fy, fx = spectrum.frequencies
    transform_y = np.exp(-2j * np.pi * np.outer(fy, np.arange(SIZE[0])))
    transform_x = np.exp(-2j * np.pi * np.outer(np.arange(SIZE[1]), fx))
    analytic = np.abs(transform_y @ windowed @ transform_x)
    np.testing.assert_allclose(spectrum.magnitude[0], analytic, rtol=0, atol=1e-5)
    gain = 20 * np.log10(windowed.sum())  # all of one sign: the maximum is at DC
    assert spectrum.maximum_gain[0] == pytest.approx(gain, abs=1e-6)
