"""Images of integers whose preprocessing begins in integers, measured as the same network on real numbers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto

from onnxgain.measure.measure import score
from onnxgain.model.classifier import Classifier, Reading, describe
from onnxgain.model.input_scale import input_scale
from onnxgain.model.stimulus import impulse, noise
from tests.support import models
from tests.support.models import Net

Front = Callable[[Net, str, type], str]


def _constant(net: Net, value: object, kind: type) -> str:
    return net.constant(np.array(value, kind))


def less_128(net: Net, x: str, kind: type) -> str:
    return net("Sub", x, _constant(net, 128, kind))


def plus_a_channel(net: Net, x: str, kind: type) -> str:
    return net("Add", x, _constant(net, np.full((1, 3, 1, 1), -128), kind))


def turned(net: Net, x: str, kind: type) -> str:
    return net("Sub", _constant(net, 128, kind), net("Transpose", net("Transpose", x, perm=[0, 1, 3, 2]),
               perm=[0, 1, 3, 2]))  # fmt: skip


def doubled(net: Net, x: str, kind: type) -> str:
    return net("Mul", net("Sub", x, _constant(net, 64, kind)), _constant(net, 2, kind))


def bounded(net: Net, x: str, kind: type) -> str:
    return net("Sub", net("Clip", x, _constant(net, -1000, kind), _constant(net, 1000, kind)), _constant(net, 9, kind))


FRONTS: list[tuple[Front, Callable[[Net, str], str]]] = [
    (less_128, lambda net, x: net("Sub", x, net.constant(np.float32(128)))),
    (plus_a_channel, lambda net, x: net("Sub", x, net.constant(np.float32(128)))),
    (turned, lambda net, x: net("Sub", net.constant(np.float32(128)), x)),
    (doubled, lambda net, x: net("Mul", net("Sub", x, net.constant(np.float32(64))), net.constant(np.float32(2)))),
    (bounded, lambda net, x: net("Sub", x, net.constant(np.float32(9)))),
]


def classifier(image: type, front: Callable[[Net, str], str]) -> Classifier:
    net = Net(opset=18)
    x = net.input("image", [1, 3, 12, 10], image)
    y = net("Mul", front(net, x), net.constant(np.float32(1 / 128)))
    logits = models.add_linear(net, models.add_features(net, y, 3), 8, 5)
    net.output(net("Softmax", logits, axis=1), [1, 5])
    return describe(ir.from_proto(net.model()), Reading(scale=input_scale("raw")))


@pytest.mark.parametrize(("image", "computed"), [(np.int32, np.int32), (np.int64, np.int64), (np.uint8, np.int32)])
@pytest.mark.parametrize(("front", "real"), FRONTS, ids=[front.__name__ for front, _ in FRONTS])
def test_integer_arithmetic_before_the_cast(
    image: type, computed: type, front: Front, real: Callable[[Net, str], str]
) -> None:
    def in_integers(net: Net, x: str) -> str:
        code = TensorProto.INT64 if computed is np.int64 else TensorProto.INT32
        x = net("Cast", x, to=code) if image is not computed else x
        return net("Cast", front(net, x, computed), to=TensorProto.FLOAT)

    found, expected = classifier(image, in_integers), classifier(np.float32, real)
    stimuli = [make(found.image.image_shape, found.scale) for make in (noise, impulse)]
    for one, other in zip(score(found, stimuli, threads=1), score(expected, stimuli, threads=1), strict=True):
        assert one.record.class_index == other.record.class_index
        assert one.record.score == pytest.approx(other.record.score, rel=1e-5)
        size = float(np.abs(other.derivative).max())
        np.testing.assert_allclose(one.derivative, other.derivative, rtol=1e-4, atol=1e-5 * size)
        assert size > 0.0
