"""However a graph normalizes its image, it is measured at the same image as a network that does not.

Each seed composes an input (type, layout), a normalization in one or two steps, and operators that change nothing.
"""

from __future__ import annotations

import functools

import numpy as np
import onnx_ir as ir
import pytest

from onnxgain.measure.measure import measure
from onnxgain.measure.request import Request
from onnxgain.model.classifier import describe
from onnxgain.model.input_scale import InputScale, input_scale
from onnxgain.model.reading import Reading
from tests.support.models import Net

COUNT = 120
HEIGHT, WIDTH = 16, 20
STIMULI = ("impulse", "noise:seed=3")
NORMALIZATIONS = {
    "unit": (np.zeros(3), np.ones(3)),
    "imagenet": (np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])),
    "inception": (np.full(3, 0.5), np.full(3, 0.5)),
    "own": (np.array([0.3, 0.55, 0.47]), np.array([0.31, 0.2, 0.27])),
}


def body(net: Net, x: str) -> None:
    """A smooth network that takes normalized images (N, 3, H, W)."""
    weights = Net(seed=9)
    x = net("Tanh", net("Conv", x, net.constant(weights.random(8, 3, 3, 3)), pads=[1, 1, 1, 1]))
    x = net("Tanh", net("Conv", x, net.constant(weights.random(12, 8, 3, 3)), strides=[2, 2]))
    x = net("Flatten", net("GlobalAveragePool", x))
    net.output(net("MatMul", x, net.constant(3.0 * weights.random(12, 6))), None)


class Front:
    """A random normalization.

    Attributes:
        clipped: whether pixels are clipped to 0..1 on the way.
        steps: what it consists of.
    """

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.net = Net(opset=18)
        self.clipped = False
        self.steps: list[str] = []
        self.name = str(self.rng.choice(list(NORMALIZATIONS)))
        self.rows_first = bool(self.rng.random() < 0.4)
        mean, std = NORMALIZATIONS[self.name]
        self.x, levels = self.pixels()
        self.harmless()
        if self.rng.random() < 0.6:
            self.affine(np.full(3, 1 / levels), np.zeros(3))
            self.harmless()
            if self.rng.random() < 0.3:
                self.clip()
            self.affine(1 / std, mean / std)
        else:
            self.affine(1 / (levels * std), mean / std)
        self.harmless()
        self.harmless()
        if self.rows_first:
            self.x = self.net("Transpose", self.x, perm=[0, 3, 1, 2])
        body(self.net, self.x)

    def chosen(self, *names: str) -> str:
        self.steps.append(str(self.rng.choice(names)))
        return self.steps[-1]

    def number(self, value: float) -> str:
        return self.net.constant(np.float32(value))

    def pixels(self) -> tuple[str, float]:
        """The image as float, and its levels for 255."""
        net = self.net
        forms = ["float", "float", "uint8 cast", "uint8 dequantized", "int8 dequantized", "int8 shifted", "uint16"]
        # Nothing says that pixels of 0..1 are not standardized, if the graph leaves them as they are.
        form = self.chosen(*forms, *(["float 0..1"] * 2 if self.name != "unit" else []))
        sizes = [HEIGHT, WIDTH, 3] if self.rows_first else [3, HEIGHT, WIDTH]
        dtype = np.float32 if form.startswith("float") else np.dtype(form.split()[0]).type
        image = net.input("image", ["N" if self.rng.random() < 0.7 else 1, *sizes], dtype)
        if form == "float 0..1":
            return image, 1.0
        if form.endswith("dequantized"):
            zero = net.constant(np.array(0 if dtype is np.uint8 else -128, dtype))
            image = net("DequantizeLinear", image, self.number(1.0), zero)
        elif form != "float":
            image = net("Cast", image, to=1)
        if form == "int8 shifted":
            image = net("Add", image, self.number(128.0))
        if form == "uint16":
            image = net("Div", image, self.number(257.0))
        return image, 255.0

    def vector(self, values: np.ndarray) -> str:
        if np.ptp(values) == 0 and self.rng.random() < 0.5:
            return self.number(values[0])
        shape = (3,) if self.rows_first else (3, 1, 1) if self.rng.random() < 0.5 else (1, 3, 1, 1)
        return self.net.constant(values.reshape(shape))

    def affine(self, factor: np.ndarray, offset: np.ndarray) -> None:
        """x * factor - offset."""
        net, x, vector = self.net, self.x, self.vector
        layers = () if self.rows_first else ("batch normalization", "convolution")
        form = self.chosen("multiply", "subtract first", "add", "divide", "negate", *layers)
        if form == "multiply":
            self.x = net("Sub", net("Mul", x, vector(factor)), vector(offset))
        elif form == "subtract first":
            self.x = net("Div", net("Sub", x, vector(offset / factor)), vector(1 / factor))
        elif form == "add":
            self.x = net("Add", vector(-offset), net("Mul", vector(factor), x))
        elif form == "divide":
            self.x = net("Sub", net("Div", x, vector(1 / factor)), vector(offset))
        elif form == "negate":
            self.x = net("Neg", net("Sub", vector(offset), net("Mul", x, vector(factor))))
        elif form == "convolution":
            self.x = net("Conv", x, net.constant(factor.reshape(3, 1, 1, 1)), net.constant(-offset), group=3)
        else:
            statistics = (np.ones(3), np.zeros(3), offset / factor, factor**-2.0)
            self.x = net("BatchNormalization", x, *(net.constant(values) for values in statistics), epsilon=0.0)

    def clip(self) -> None:
        self.clipped = True
        self.steps.append("clip")
        self.x = self.net("Clip", self.x, self.number(0.0), self.number(1.0))

    def harmless(self) -> None:
        """Operators that change nothing, but perhaps the layout."""
        net, rows_first = self.net, self.rows_first
        integers = functools.partial(np.array, dtype=np.int64)
        form = self.chosen("nothing", "identity", "dropout", "transpose", "reshape", "pad and crop", "double", "split")
        if form in ("identity", "dropout"):
            self.x = net(form.capitalize(), self.x)
        elif form == "transpose":
            self.x = net("Transpose", self.x, perm=[0, 3, 1, 2] if rows_first else [0, 2, 3, 1])
            self.rows_first = not rows_first
        elif form == "reshape":
            sizes = [-1, HEIGHT, WIDTH, 3] if rows_first else [-1, 3, HEIGHT, WIDTH]
            self.x = net("Reshape", self.x, net.constant(integers(sizes)))
        elif form == "pad and crop":
            pads, axes = ([0, 1, 1, 0] * 2, [1, 2]) if rows_first else ([0, 0, 1, 1] * 2, [2, 3])
            self.x = net("Pad", self.x, net.constant(integers(pads)), mode="reflect")
            bounds = ([1, 1], [HEIGHT + 1, WIDTH + 1], axes)
            self.x = net("Slice", self.x, *(net.constant(integers(values)) for values in bounds))
        elif form == "double":
            self.x = net("Cast", net("Cast", self.x, to=11), to=1)
        elif form == "split":
            self.split(3 if rows_first else 1)

    def split(self, axis: int) -> None:
        parts = ["red", "green", "blue"]
        if any(part in node.output for node in self.net.nodes for part in parts):
            return
        self.net("Split", self.x, out="red", axis=axis, num_outputs=3)
        self.net.nodes[-1].output.extend(parts[1:])
        self.x = self.net("Concat", *parts, axis=axis)


def gains(net: Net, scale: InputScale | None) -> np.ndarray:
    """(stimuli, channels) in dB."""
    classifier = describe(ir.from_proto(net.model()), Reading(scale=scale))
    return np.array([m.record.gain.channels for m in measure(classifier, Request(stimuli=STIMULI), threads=1)])


@functools.cache
def expected(name: str) -> np.ndarray:
    net = Net(opset=18)
    body(net, net.input("image", ["N", 3, HEIGHT, WIDTH]))
    mean, std = NORMALIZATIONS[name]
    return gains(net, input_scale(mean=list(mean), std=list(std), scale=1 / 255))


@pytest.mark.parametrize("first", range(0, COUNT, 20))
def test_random_fronts_are_measured_at_the_same_image(first: int) -> None:
    for seed in range(first, first + 20):
        front = Front(seed)
        found, wanted = gains(front.net, None), expected(front.name)
        if front.clipped and front.name != "unit":  # the impulse on a background other than black leaves 0..1
            found, wanted = found[1:], wanted[1:]
        np.testing.assert_allclose(found, wanted, atol=0.01, err_msg=f"{seed}: {front.name}, {front.steps}")
