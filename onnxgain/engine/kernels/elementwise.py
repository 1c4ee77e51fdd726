"""Elementwise functions, softmax over axes, and operators that pass values through."""

# ruff: noqa: D103 - a kernel without a docstring implements the operator of its name as specified.
from __future__ import annotations

import math

import numpy as np

from onnxgain.engine.kernels._registry import kernel
from onnxgain.engine.kernels._window import Array
from onnxgain.errors import OnnxgainError

_ERF_BLOCK = 1 << 16


@kernel("Identity")
def identity(x: Array | None) -> tuple[Array | None]:
    return (x,)


@kernel("ConstantOfShape")
def constant_of_shape(shape: Array, *, value: Array | None = None) -> Array:
    fill = np.zeros(1) if value is None else value
    return np.full(tuple(int(n) for n in shape), fill.reshape(()), dtype=fill.dtype)


@kernel("Dropout")
def dropout(x: Array, *, ratio: float = 0.5) -> tuple[Array, Array]:
    """Opsets 7 to 9 have inference only, and the mask has the type of the data."""
    return x, np.ones_like(x)


@kernel("Dropout", since=10)
def dropout_10(x: Array, *, ratio: float = 0.5) -> tuple[Array, Array]:
    return x, np.ones(x.shape, dtype=np.bool_)


@kernel("Dropout", since=12)
def dropout_12(
    x: Array, ratio: Array | None = None, training_mode: Array | None = None, *, seed: int | None = None
) -> tuple[Array, Array]:
    """In training mode, the result is deterministic only if the ratio is 0."""
    if training_mode is not None and training_mode.item() and (ratio is None or ratio.item() != 0):
        raise OnnxgainError("Dropout in training mode is random", remedy="export the model for inference")
    return x, np.ones(x.shape, dtype=np.bool_)


@kernel("Mean")
def mean(*x: Array) -> Array:
    return np.asarray(sum(x) / len(x))


@kernel("Relu")
def relu(x: Array) -> Array:
    return np.asarray(np.maximum(x, x.dtype.type(0)))


@kernel("Sigmoid")
def sigmoid(x: Array) -> Array:
    small = np.exp(-np.abs(x))  # at most 1, so it does not overflow
    return np.asarray(np.where(x >= 0, x.dtype.type(1), small) / (1 + small))


@kernel("Erf")
def erf(x: Array) -> Array:
    flat, y = x.ravel(), np.empty(x.size, dtype=x.dtype)
    for start in range(0, x.size, _ERF_BLOCK):  # in blocks, because Python floats take several times the memory
        block = slice(start, start + _ERF_BLOCK)
        y[block] = [*map(math.erf, flat[block].tolist())]
    return y.reshape(x.shape)


@kernel("Gelu")
def gelu(x: Array, *, approximate: str = "none") -> Array:
    if approximate == "tanh":
        return np.asarray(0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))))
    return np.asarray(0.5 * x * (1 + erf(x / np.sqrt(2))))


@kernel("HardSwish")
def hard_swish(x: Array) -> Array:
    return np.asarray(x * np.clip(x / 6 + 0.5, 0, 1))


@kernel("Mish")
def mish(x: Array) -> Array:
    return np.asarray(x * np.tanh(np.logaddexp(0, x)))


@kernel("Swish")
def swish(x: Array, *, alpha: float = 1.0) -> Array:
    return np.asarray(x * sigmoid(alpha * x))


@kernel("SwiGLU")
def swiglu(a: Array, b: Array, *, alpha: float = 1.0) -> Array:
    return np.asarray(swish(a, alpha=alpha) * b)


def _trailing(x: Array, axis: int) -> tuple[int, ...]:
    """Before opset 13, the softmax family normalizes over all axes from `axis` on, flattened."""
    return tuple(range(axis % x.ndim if axis < x.ndim else axis, x.ndim))


def _log_softmax(x: Array, axes: tuple[int, ...]) -> Array:
    shifted = x - x.max(axis=axes, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=axes, keepdims=True)))


def _softmax(x: Array, axes: tuple[int, ...]) -> Array:
    powers = np.exp(x - x.max(axis=axes, keepdims=True))
    return np.asarray(powers / powers.sum(axis=axes, keepdims=True))


def _hardmax(x: Array, axis: int) -> Array:
    y = np.zeros_like(x)
    np.put_along_axis(y, np.expand_dims(x.argmax(axis=axis), axis), 1, axis=axis)
    return y


@kernel("Softmax")
def softmax(x: Array, *, axis: int = 1) -> Array:
    return x.copy() if x.size == 0 else _softmax(x, _trailing(x, axis))


@kernel("Softmax", since=13)
def softmax_13(x: Array, *, axis: int = -1) -> Array:
    return x.copy() if x.size == 0 else _softmax(x, (axis,))


@kernel("LogSoftmax")
def log_softmax(x: Array, *, axis: int = 1) -> Array:
    return x.copy() if x.size == 0 else _log_softmax(x, _trailing(x, axis))


@kernel("LogSoftmax", since=13)
def log_softmax_13(x: Array, *, axis: int = -1) -> Array:
    return x.copy() if x.size == 0 else _log_softmax(x, (axis,))


@kernel("Hardmax")
def hardmax(x: Array, *, axis: int = 1) -> Array:
    rows = int(np.prod(x.shape[: axis % x.ndim if axis < x.ndim else axis]))
    return x.copy() if x.size == 0 else _hardmax(x.reshape(rows, -1), 1).reshape(x.shape)


@kernel("Hardmax", since=13)
def hardmax_13(x: Array, *, axis: int = -1) -> Array:
    return x.copy() if x.size == 0 else _hardmax(x, axis)
