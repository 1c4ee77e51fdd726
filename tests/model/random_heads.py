"""Random class heads: a softmax or sigmoid in one of its forms, and operators that exporters add after it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import onnx

from tests.support.models import Net

IMAGE_SHAPE = (3, 4, 4)
CLASSES = 6


@dataclass
class RandomHead:
    """A model, and the same model without its quantizers.

    Attributes:
        steps: the parts of the head.
        rounded: whether a quantizer is part of it.
        logarithm: whether the output holds log-probabilities.
        sharpness: size of the logits' weights; larger weights lose more digits in float32.
    """

    model: onnx.ModelProto
    smooth: onnx.ModelProto
    steps: tuple[str, ...]
    rounded: bool
    logarithm: bool
    sharpness: float


@dataclass
class _Head:
    net: Net
    rng: np.random.Generator
    quantizing: bool
    sharpness: float
    rounded: bool = False
    logarithm: bool = False
    steps: list[str] = field(default_factory=list)

    def number(self, value: float) -> str:
        return self.net.constant(np.array(value, np.float32))

    def integers(self, *values: int) -> str:
        return self.net.constant(np.array(values, np.int64))

    def logits(self, count: int) -> str:
        """The logits of a small random network."""
        net, rng = self.net, self.rng
        features = net("Flatten", "image", axis=1)
        size = int(np.prod(IMAGE_SHAPE))
        hidden = net("Tanh", net("Gemm", features, net.constant(rng.standard_normal((size, 8)) / 4)))
        weights = rng.standard_normal((8, count)) * self.sharpness
        return net("Gemm", hidden, net.constant(weights), net.constant(rng.standard_normal(count) * self.sharpness / 4))


# ------------------------------------------------------------------------------------------------------ beginnings
def _softmax(h: _Head, count: int) -> str:
    return h.net("Softmax", h.logits(count), axis=1)


def _softmax_of_image(h: _Head, count: int) -> str:
    cube = h.net("Reshape", h.logits(count), h.integers(-1, count, 1, 1))
    return h.net("Transpose", h.net("Softmax", cube, axis=1), perm=[0, 2, 3, 1])


def _temperature(h: _Head, count: int) -> str:
    return h.net("Softmax", h.net("Div", h.logits(count), h.number(1.7)), axis=1)


def _cosine(h: _Head, count: int) -> str:
    scores = h.logits(count)
    unit = h.net("Div", scores, h.net("ReduceL2", scores, axes=[1], keepdims=1))
    return h.net("Softmax", h.net("Mul", unit, h.number(4 * h.sharpness)), axis=1)


def _exp_log_softmax(h: _Head, count: int) -> str:
    return h.net("Exp", h.net("LogSoftmax", h.logits(count), axis=1))


def _exp_less_logsumexp(h: _Head, count: int) -> str:
    x = h.logits(count)
    return h.net("Exp", h.net("Sub", x, h.net("ReduceLogSumExp", x, axes=[1], keepdims=1)))


def _exp_over_sum(h: _Head, count: int) -> str:
    e = h.net("Exp", h.logits(count))
    return h.net("Div", e, h.net("ReduceSum", e, h.integers(1), keepdims=1))


def _exp_times_reciprocal(h: _Head, count: int) -> str:
    e = h.net("Exp", h.logits(count))
    return h.net("Mul", e, h.net("Reciprocal", h.net("ReduceSum", e, h.integers(1), keepdims=1)))


def _mean_of_two(h: _Head, count: int) -> str:
    both = h.net("Add", _softmax(h, count), _softmax(h, count))
    return h.net("Mul", both, h.number(0.5))


def _mean_of_three(h: _Head, count: int) -> str:
    return h.net("Mean", _softmax(h, count), _softmax(h, count), _exp_log_softmax(h, count))


def _mean_along_an_axis(h: _Head, count: int) -> str:
    members = [h.net("Unsqueeze", _softmax(h, count), h.integers(0)) for _ in range(2)]
    return h.net("ReduceMean", h.net("Concat", *members, axis=0), axes=[0], keepdims=0)


def _product_of_experts(h: _Head, count: int) -> str:
    product = h.net("Mul", _softmax(h, count), _softmax(h, count))
    return h.net("Div", product, h.net("ReduceSum", product, h.integers(1), keepdims=1))


def _coarse_times_fine(h: _Head, count: int) -> str:
    """Two groups of classes, with a softmax over the classes of each group."""
    fine = h.net("Softmax", h.net("Reshape", h.logits(count), h.integers(-1, 2, count // 2)), axis=2)
    coarse = h.net("Unsqueeze", _softmax(h, 2), h.integers(2))
    return h.net("Reshape", h.net("Mul", coarse, fine), h.integers(-1, count))


def _coarse_times_sigmoid(h: _Head, count: int) -> str:
    groups = h.net("Gather", _softmax(h, 2), h.integers(*(i % 2 for i in range(count))), axis=1)
    return h.net("Mul", groups, h.net("Sigmoid", h.logits(count)))


def _sigmoid(h: _Head, count: int) -> str:
    return h.net("Sigmoid", h.logits(count))


def _quotient(h: _Head, count: int) -> str:
    denominator = h.net("Add", h.number(1), h.net("Exp", h.net("Neg", h.logits(count))))
    if h.rng.random() < 0.5:
        return h.net("Reciprocal", denominator)
    return h.net("Div", h.number(1), denominator)


def _tanh(h: _Head, count: int) -> str:
    half = h.net("Tanh", h.net("Mul", h.logits(count), h.number(0.5)))
    if h.rng.random() < 0.5:
        return h.net("Mul", h.net("Add", half, h.number(1)), h.number(0.5))
    return h.net("Add", h.net("Mul", half, h.number(0.5)), h.number(0.5))


def _sigmoids_over_their_sum(h: _Head, count: int) -> str:
    s = _sigmoid(h, count)
    return h.net("Div", s, h.net("ReduceSum", s, h.integers(1), keepdims=1))


def _pair(h: _Head, count: int) -> str:
    p = h.rng.choice([_sigmoid, _quotient, _tanh])(h, 1)
    return h.net("Concat", h.net("Sub", h.number(1), p), p, axis=1)


def _one_of_two(h: _Head, count: int) -> str:
    return h.net("Gather", _softmax(h, 2), h.integers(1), axis=1)


NORMALIZED: tuple[Callable[[_Head, int], str], ...] = (
    _softmax, _softmax_of_image, _temperature, _cosine, _exp_log_softmax, _exp_less_logsumexp, _exp_over_sum,
    _exp_times_reciprocal, _mean_of_two, _mean_of_three, _mean_along_an_axis, _product_of_experts, _coarse_times_fine,
    _sigmoids_over_their_sum, _pair,
)  # fmt: skip
SEPARATE: tuple[Callable[[_Head, int], str], ...] = (_sigmoid, _quotient, _tanh, _coarse_times_sigmoid, _one_of_two)


# ------------------------------------------------------------------------------------------------------------ tails
def _transposed(h: _Head, p: str, count: int) -> str:
    return h.net("Transpose", h.net("Reshape", p, h.integers(-1, count, 1, 1)), perm=[0, 2, 3, 1])


def _reshaped(h: _Head, p: str, count: int) -> str:
    return h.net("Flatten", h.net("Reshape", p, h.integers(-1, 1, count)), axis=1)


def _clipped(h: _Head, p: str, count: int) -> str:
    return h.net("Clip", p, h.number(0), h.number(1))


def _clipped_off_the_ends(h: _Head, p: str, count: int) -> str:
    return h.net("Clip", p, h.number(1e-7), h.number(1 - 1e-6))


def _smoothed(h: _Head, p: str, count: int) -> str:
    return h.net("Add", h.net("Mul", p, h.number(0.9)), h.number(0.1 / max(count, 2)))


def _weighted(h: _Head, p: str, count: int) -> str:
    weights = h.rng.uniform(0.2, 1.0, count).astype(np.float32)
    return h.net("Mul", h.net("Reshape", p, h.integers(-1, count)), h.net.constant(weights))


def _permuted(h: _Head, p: str, count: int) -> str:
    flat = h.net("Reshape", p, h.integers(-1, count))
    return h.net("Gather", flat, h.integers(*h.rng.permutation(count)), axis=1)


def _subset(h: _Head, p: str, count: int) -> str:
    flat = h.net("Reshape", p, h.integers(-1, count))
    return flat if count < 4 else h.net("Slice", flat, h.integers(1), h.integers(count), h.integers(1))


def _quantized(h: _Head, p: str, count: int) -> str:
    if not h.quantizing:
        return h.net("Identity", p)
    h.rounded = True
    scale, zero = h.net.constant(np.float32(1 / 256)), h.net.constant(np.uint8(0))
    return h.net("DequantizeLinear", h.net("QuantizeLinear", p, scale, zero), scale, zero)


def _handed_on(h: _Head, p: str, count: int) -> str:
    return h.net("Identity", h.net("Dropout", p))


def _mixed(h: _Head, p: str, count: int) -> str:
    """A doubly stochastic matrix, as in corrections by a confusion matrix."""
    mixing = 0.7 * np.eye(count) + 0.3 * np.eye(count)[h.rng.permutation(count)]
    return h.net("MatMul", h.net("Reshape", p, h.integers(-1, count)), h.net.constant(mixing))


def _rejoined(h: _Head, p: str, count: int) -> str:
    flat = h.net("Reshape", p, h.integers(-1, count))
    if count < 2:
        return flat
    left = h.net("Slice", flat, h.integers(0), h.integers(1), h.integers(1))
    right = h.net("Slice", flat, h.integers(1), h.integers(count), h.integers(1))
    return h.net("Concat", right, left, axis=1)


def _masked(h: _Head, p: str, count: int) -> str:
    mask = np.ones(count, np.float32)
    mask[int(h.rng.integers(count))] = 0.0 if count > 2 else 1.0
    return h.net("Mul", h.net("Reshape", p, h.integers(-1, count)), h.net.constant(mask))


TAILS: tuple[Callable[[_Head, str, int], str], ...] = (
    _transposed, _reshaped, _clipped, _clipped_off_the_ends, _smoothed, _weighted, _permuted, _subset, _quantized,
    _handed_on, _mixed, _rejoined, _masked,
)  # fmt: skip


def random_head(seed: int) -> RandomHead:
    """The model of a seed: a beginning, up to four tails after it, and logits of random sharpness."""
    (model, head), (smooth, _) = (_written(seed, quantizing) for quantizing in (True, False))
    return RandomHead(model, smooth, tuple(head.steps), head.rounded, head.logarithm, head.sharpness)


def _written(seed: int, quantizing: bool) -> tuple[onnx.ModelProto, _Head]:
    rng = np.random.default_rng(seed)
    net = Net(opset=17)
    head = _Head(net, rng, quantizing, float(10 ** rng.uniform(-0.5, 1.3)))
    net.input("image", ["N", *IMAGE_SHAPE])
    beginnings = NORMALIZED + SEPARATE
    begin = beginnings[int(rng.integers(len(beginnings)))]
    count = {"_pair": 2, "_one_of_two": 1}.get(
        begin.__name__, int(rng.choice([1, CLASSES])) if begin in SEPARATE else 6
    )
    count = CLASSES if begin is _coarse_times_sigmoid else count
    value = begin(head, count)
    head.steps.append(f"{begin.__name__}({count})")
    for _ in range(int(rng.integers(0, 5))):
        tail = TAILS[int(rng.integers(len(TAILS)))]
        value = tail(head, value, count)
        head.steps.append(tail.__name__)
        count = count - 1 if tail is _subset and count >= 4 else count
    if rng.random() < 0.15 and count > 1:
        value, head.logarithm = net("Log", value), True
        head.steps.append("log")
    net.output(value, None)
    return net.model(), head
