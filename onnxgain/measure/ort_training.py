"""A second engine: onnxruntime-training's differentiation, in a process and an environment of its own.

`onnxruntime-training` (last release 1.19.2, Python 3.8 to 3.11; the CPU package to 3.12) installs into the same folder
as `onnxruntime`, so the two cannot share an environment, and this module starts the interpreter of the other one. It
differentiates the transcribed classifier: static shapes, batch normalization folded, opset 21 at most. Operators
outside `CORRECT` and `_CORRECT_FORMS` are refused: it has no gradient for them or a wrong one
(`scripts/agreement/training_operators.py` tries each), and some crash it.
"""

from __future__ import annotations

import functools
import re
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxgain.engine import environment
from onnxgain.errors import OnnxgainError
from onnxgain.gradient.emitter import Emitter
from onnxgain.gradient.forward.transcribe import Transcript
from onnxgain.gradient.graphs import finished
from onnxgain.gradient.passes.opset import WIDELY_KNOWN, declare_widely_known
from onnxgain.gradient.reverse.backpropagate import find_path
from onnxgain.gradient.reverse.seed import projection_factor
from onnxgain.gradient.values import static_shape
from onnxgain.measure.measurement import Measurement
from onnxgain.measure.spectrum import frequency_response
from onnxgain.model.classifier import Classifier, value_named
from onnxgain.model.stimulus import Stimulus

NAME = "ort-training"
CHILD = Path(environment.__file__).with_name("ort_training_child.py")
TIMEOUT = 600.0
"""Time limit of one run, seconds."""
FORWARD_LIMIT = 1e-3
"""Largest relative L2 difference of the logits at which comparing the gradients makes sense."""

GRADIENT_LIMIT = 5e-2
"""Largest relative L2 difference of the gradients. Rounding, and ReLUs that it switches, cause up to 1e-2; a wrong rule
causes 0.1 and more."""

CORRECT = frozenset({
    "Abs", "Add", "Concat", "Conv", "Cos", "Div", "Erf", "Exp", "Expand", "Flatten", "Gather", "GatherElements",
    "GatherND", "Gelu", "Gemm", "GlobalAveragePool", "Identity", "LeakyRelu", "Log", "LogSoftmax", "Max", "Min", "Mul",
    "Neg", "Reciprocal", "Relu", "Sigmoid", "Sin", "Softmax", "Sqrt", "Squeeze", "Sub", "Tanh", "Tile", "TopK",
    "Transpose", "Trilu", "Unsqueeze",
})  # fmt: skip
"""Operators that it differentiates correctly in every form that was tried, ties included."""


@dataclass(frozen=True)
class TrainingAnswer:
    """The results of onnxruntime-training, float32.

    Attributes:
        logits: the logits, in the shape that the transcribed graph gives them.
        gradient: the gradient, in the shape of the model's image input.
    """

    logits: NDArray[np.float32]
    gradient: NDArray[np.float32]


@dataclass(frozen=True)
class EngineCheck:
    """The differences between another engine's results and ours, both float32.

    Attributes:
        engine: the name of the other engine.
        forward_difference: relative L2 difference of the logits.
        difference: relative L2 difference of the derivatives.
        gain_difference_db: largest difference of a channel's Maximum Gain, dB.
    """

    engine: str
    forward_difference: float
    difference: float
    gain_difference_db: float

    @property
    def agrees(self) -> bool:
        """Whether the differences are within `FORWARD_LIMIT` and `GRADIENT_LIMIT`."""
        return self.forward_difference <= FORWARD_LIMIT and self.difference <= GRADIENT_LIMIT

    def text(self) -> str:
        """One line for people."""
        if self.forward_difference > FORWARD_LIMIT:
            return f"{self.engine} computes other logits: they differ by {self.forward_difference:.1e} (relative L2)"
        verdict = "agrees" if self.agrees else "does NOT agree"
        return (
            f"{self.engine} {verdict}: differs by {self.difference:.1e} (relative L2), {self.gain_difference_db:.4f} dB"
            f"; forward by {self.forward_difference:.1e}"
        )


def check_against_training(
    classifier: Classifier, stimulus: Stimulus, ours: Measurement, *, python: str
) -> EngineCheck:
    """Compare a measurement with what onnxruntime-training computes for it.

    Raises:
        OnnxgainError: as `training_gradient`; or the model's output holds probabilities or a single number.
    """
    columns, record = classifier.head.columns, ours.record
    if classifier.head.form != "value" or columns == 1:
        raise OnnxgainError(
            f"{NAME} is asked about logits, which this model does not show",
            where=str(classifier.path) if classifier.path else None,
            remedy="leave --against out",
        )
    # The seed of our gradient graph, without the projection's factor: its size is 1 however saturated the score is.
    seed = np.zeros(ours.logits.shape)
    if record.projection != "logit" and not classifier.head.independent:
        others = np.delete(ours.logits.astype(np.float64), record.class_index)
        seed = np.insert(-np.exp(others - np.logaddexp.reduce(others)), record.class_index, 0.0)
    seed[record.class_index] = 1.0
    answer = training_gradient(classifier, stimulus.image, seed, python=python)
    projection: Any = record.projection
    exponent = projection_factor(ours.logits, record.class_index, projection, independent=classifier.head.independent)
    step = classifier.scale.step(classifier.image.channels)[:, None, None]
    derivative = classifier.image.to_images(answer.gradient)[0].astype(np.float64) * step * 10.0**exponent
    theirs = frequency_response(derivative, window=stimulus.windowed)
    gains = zip(ours.spectrum.maximum_gain, theirs.maximum_gain, strict=True)
    batch = classifier.image.fixed_batch or 1
    return EngineCheck(
        NAME,
        _relative(answer.logits.reshape(batch, -1)[0], ours.logits),
        _relative(derivative, ours.derivative),
        max((abs(a - b) for a, b in gains if a is not None and b is not None), default=0.0),
    )


def _relative(actual: NDArray[Any], expected: NDArray[Any]) -> float:
    norm = max(float(np.linalg.norm(expected.astype(np.float64))), 1e-300)
    return float(np.linalg.norm(actual.astype(np.float64) - expected.astype(np.float64))) / norm


def training_gradient(
    classifier: Classifier,
    image: NDArray[np.floating],
    seed: NDArray[np.floating],
    *,
    python: str,
    timeout: float = TIMEOUT,
) -> TrainingAnswer:
    """The gradient of <seed, logits> at an image (C, H, W), per unit of model input.

    Args:
        seed: the upstream gradient at the logits, one number per logit.
        python: the interpreter of an environment with onnxruntime-training.

    Raises:
        OnnxgainError: it does not differentiate an operator correctly, fails, crashes or exceeds the time limit.
    """
    batch = classifier.image.fixed_batch or 1
    where = str(classifier.path) if classifier.path else None
    transcript = classifier.transcript(batch)
    transcript.emitter.target = "portable"
    values = (value_named(transcript, name) for name in (classifier.image.name, classifier.head.logits))
    graph, path = loss_model(transcript, *values)
    unknown = sorted({f"{node.domain}.{node.op_type}".lstrip(".") for node in path if not is_correct(node)})
    if unknown:
        raise OnnxgainError(
            f"{NAME} does not differentiate {', '.join(unknown)} correctly, or not at all",
            where=where,
            remedy="finite differences check this model: leave --against out",
        )
    feeds = {"onnxgain_image": classifier.image.to_input([image] * batch), **classifier.inputs}
    upstream = np.zeros(static_shape(graph.graph.inputs[-1]) or (), np.float32)
    upstream.reshape(batch, -1)[0] = np.asarray(seed, np.float32).reshape(-1)
    types = {value.name: value.dtype.numpy() for value in graph.graph.inputs if value.dtype is not None}
    typed = {name: np.asarray(array, types[name]) for name, array in (feeds | {"onnxgain_seed": upstream}).items()}
    return ask(graph, typed, python=python, timeout=timeout, where=where)


def loss_model(transcript: Transcript, image: ir.Value, logits: ir.Value) -> tuple[ir.Model, list[ir.Node]]:
    """A transcribed graph with the scalar "onnxgain_loss" = sum(seed * logits), and its nodes between image and logits.

    The image, seed, logits and loss get names with the prefix "onnxgain_"; the seed is the last input. The transcript
    is modified and must not be used again.
    """
    op, graph = transcript.emitter, transcript.graph
    graph.outputs.append(op.Identity(logits))  # keeps track of the logits through the rewrites
    _prepare(op)
    logits = graph.outputs[-1]
    path = find_path(list(graph), {logits: None}, [image], op)
    seed = ir.Value(name="onnxgain_seed", shape=logits.shape, type=logits.type)
    graph.inputs.append(seed)
    outputs = {"onnxgain_logits": logits, "onnxgain_loss": op.ReduceSum(op.Mul(logits, seed), keepdims=0)}
    image.name = "onnxgain_image"
    graph.outputs.clear()
    for name, value in outputs.items():
        value.name = name
        graph.outputs.append(value)
    model = finished(graph)
    model.ir_version = 10
    declare_widely_known(model)
    return model, [*path.edges, *path.bodies, *(gap.node for gap in path.gaps)]


def is_correct(node: ir.Node) -> bool:
    """Whether it is known to differentiate a node correctly: any node of the operator, or nodes of this form."""
    if node.domain not in ("", "ai.onnx"):
        return False
    form = _CORRECT_FORMS.get(node.op_type)
    return node.op_type in CORRECT or (form is not None and form(node))


def _integer(node: ir.Node, name: str) -> int:
    return node.attributes[name].as_int() if name in node.attributes else 0


def _shapes(node: ir.Node) -> list[tuple[int, ...] | None]:
    return [static_shape(value) if value is not None else None for value in node.inputs]


def _given(node: ir.Node, index: int) -> bool:
    return len(node.inputs) > index and node.inputs[index] is not None


def _has_positive_steps(node: ir.Node) -> bool:
    steps = node.inputs[4].const_value if len(node.inputs) > 4 and node.inputs[4] is not None else None
    return not _given(node, 4) or (steps is not None and bool((steps.numpy() > 0).all()))


def _plain_average(node: ir.Node) -> bool:
    """Windows over two axes, without dilation, automatic padding (except VALID) or ceil_mode."""
    attributes = node.attributes
    dilated = "dilations" in attributes and max(attributes["dilations"].as_ints()) > 1
    automatic = "auto_pad" in attributes and attributes["auto_pad"].as_string() not in ("NOTSET", "VALID")
    flat = len(attributes["kernel_shape"].as_ints()) == 2
    return flat and not dilated and not automatic and not _integer(node, "ceil_mode")


_CORRECT_FORMS: dict[str, Callable[[ir.Node], bool]] = {
    "AveragePool": _plain_average,
    "Cast": lambda n: n.attributes["to"].as_int() == ir.DataType.FLOAT.value,
    "MatMul": lambda n: all(shape is not None and len(shape) >= 2 for shape in _shapes(n)),
    "MaxPool": lambda n: not _integer(n, "storage_order"),
    "Pad": lambda n: (
        not _given(n, 3) and ("mode" not in n.attributes or n.attributes["mode"].as_string() == "constant")
    ),
    "Pow": lambda n: _shapes(n)[1] in ((), (1,)) and n.inputs[1] is not None and n.inputs[1].dtype == ir.DataType.FLOAT,
    "ReduceMean": lambda n: _given(n, 1),
    "ReduceSum": lambda n: _given(n, 1),
    "Reshape": lambda n: 0 not in (static_shape(n.outputs[0]) or (0,)),
    "Slice": _has_positive_steps,
    "Split": lambda n: all(output.uses() for output in n.outputs),
    "Where": lambda n: len(set(_shapes(n))) == 1,
}


# ------------------------------------------------------------------------------------------------ rewriting
def _prepare(op: Emitter) -> None:
    """Rewrite operators that it cannot differentiate with operators that it can."""
    for node in list(op.graph):
        rewrite = _REWRITES.get(node.op_type)
        if rewrite is None or node.domain not in ("", "ai.onnx"):
            continue
        with op.scoped(f"{node.name}/"):
            value = rewrite(op, node)
        if value is not None:
            node.outputs[0].replace_all_uses_with(value)
    op.graph.sort()


def _normalized(op: Emitter, node: ir.Node) -> ir.Value | None:
    """BatchNormalization with fixed statistics: one multiplication and one addition per channel."""
    x, scale, bias, mean, variance = node.inputs
    shape = static_shape(x) if x is not None else None
    if len(node.outputs) > 1 or shape is None or len(shape) < 2:
        return None
    epsilon = node.attributes["epsilon"].as_float() if "epsilon" in node.attributes else 1e-5
    column = [1, -1, *[1] * (len(shape) - 2)]
    factor = op.Div(scale, op.Sqrt(op.Add(variance, epsilon)))
    offset = op.Sub(bias, op.Mul(mean, factor))
    y: ir.Value = op.Add(op.Mul(x, op.Reshape(factor, column)), op.Reshape(offset, column))
    return y


def _clipped(op: Emitter, node: ir.Node) -> ir.Value | None:
    """Clip from 0 as Relu and Min: its Clip has another subgradient at the bounds, these have ours at 0.

    Ties usually occur at 0.
    """
    low = op.known(node.inputs[1]) if _given(node, 1) else None
    if low is None or low.size != 1 or low.reshape(-1)[0] != 0:
        return None
    y: ir.Value = op.Relu(node.inputs[0])
    return op.Min(y, node.inputs[2]) if _given(node, 2) else y


def _hard_sigmoid(op: Emitter, node: ir.Node) -> ir.Value:
    alpha, beta = (
        node.attributes[name].as_float() if name in node.attributes else default
        for name, default in (("alpha", 0.2), ("beta", 0.5))
    )
    y: ir.Value = op.Min(op.Relu(op.Add(op.Mul(node.inputs[0], alpha), beta)), 1.0)
    return y


def _hard_swish(op: Emitter, node: ir.Node) -> ir.Value:
    x = node.inputs[0]
    y: ir.Value = op.Mul(x, op.Min(op.Relu(op.Add(op.Mul(x, 1 / 6), 0.5)), 1.0))
    return y


def _layer_normalized(op: Emitter, node: ir.Node) -> ir.Value | None:
    """LayerNormalization written out: its gradient needs outputs that models leave out."""
    x, shape = node.inputs[0], _shapes(node)[0]
    if len(node.outputs) > 1 or shape is None:
        return None
    first = node.attributes["axis"].as_int() if "axis" in node.attributes else -1
    epsilon = node.attributes["epsilon"].as_float() if "epsilon" in node.attributes else 1e-5
    axes = np.arange(first % len(shape), len(shape))
    centred = op.Sub(x, op.ReduceMean(x, axes))
    deviation = op.Sqrt(op.Add(op.ReduceMean(op.Mul(centred, centred), axes), epsilon))
    y: ir.Value = op.Mul(op.Div(centred, deviation), node.inputs[1])
    return op.Add(y, node.inputs[2]) if _given(node, 2) else y


_REWRITES: dict[str, Callable[[Emitter, ir.Node], ir.Value | None]] = {
    "BatchNormalization": _normalized,
    "Clip": _clipped,
    "Dropout": lambda op, node: None if _given(node, 2) else node.inputs[0],
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _hard_swish,
    "LayerNormalization": _layer_normalized,
    "Sum": lambda op, node: functools.reduce(op.Add, node.inputs),
}


# -------------------------------------------------------------------------------------------------- running
def ask(
    model: ir.Model,
    feeds: Mapping[str, NDArray[Any]],
    *,
    python: str,
    timeout: float = TIMEOUT,
    where: str | None = None,
) -> TrainingAnswer:
    """Have the other environment differentiate a model and run it.

    Args:
        model: from `loss_model`.

    Raises:
        OnnxgainError: it cannot be started, fails, crashes or exceeds the time limit.
    """
    if model.opset_imports[""] > WIDELY_KNOWN:
        raise OnnxgainError(
            f"{NAME} reads opset {WIDELY_KNOWN} at most, this model is opset {model.opset_imports['']}",
            where=where,
            remedy="export it at an older opset",
        )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ir.save(model, folder / "model.onnx", external_data="model.data")
        np.savez(folder / "feeds.npz", **dict(feeds))  # type: ignore[arg-type]
        _run([python, "-I", str(CHILD), str(folder)], folder, timeout, where)
        answer = np.load(folder / "answer.npz")
        return TrainingAnswer(answer["logits"], answer["gradient"])


def _run(command: Sequence[str], folder: Path, timeout: float, where: str | None) -> None:
    remedy = "name the interpreter of an environment with onnxruntime-training 1.19.2: --python PATH"
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, errors="replace", timeout=timeout, check=False
        )
    except OSError as error:
        raise OnnxgainError(f"cannot be started: {error.strerror}", where=command[0], remedy=remedy) from error
    except subprocess.TimeoutExpired as error:
        raise OnnxgainError(
            f"{NAME} gave no answer in {timeout:.0f} s", where=where, remedy="leave --against out"
        ) from error
    if (folder / "answer.npz").exists():
        return
    if done.returncode < 0:
        raise OnnxgainError(f"{NAME} crashed (signal {-done.returncode})", where=where, remedy="leave --against out")
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()] or ["it ended without a word"]
    if any("No module named" in line or "cannot import name" in line for line in lines):
        raise OnnxgainError(f"has no onnxruntime-training: {lines[-1]}", where=command[0], remedy=remedy)
    message = next((line for line in lines if re.match(r"\S*(Error|Exception|Fail|NotImplemented)\b", line)), lines[-1])
    raise OnnxgainError(f"{NAME} refuses it: {message[:300]}", where=where, remedy="leave --against out")
