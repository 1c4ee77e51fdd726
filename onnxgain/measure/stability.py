"""Measures how far rounding moves the results of a model that quantizes.

A quantized activation is an integer. A small float32 difference (another kernel, processor or order of additions) can
round it to another integer, and the derivative jumps. The size of that effect is measured: the gradient graph is
evaluated a few times with the inputs of its quantizers moved by the error of float32.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxgain.engine.session import Session
from onnxgain.gradient.reverse.seed import Projection
from onnxgain.gradient.values import static_shape
from onnxgain.measure.gradient_graph import GradientGraph, Output, as_declared
from onnxgain.measure.straight_through import QUANTIZERS
from onnxgain.model.classifier import Classifier
from onnxgain.model.differentiate import differentiate

ROUNDING = 5e-7
"""Error of a float32 sum of about a hundred products, relative to the largest value of the quantized type."""
REPEATS = 4
"""The number of trials."""
_PREFIX = "onnxgain/jitter/"


@dataclass(frozen=True)
class _Jitter:
    """An extra graph input that is added to, or multiplied with, the input of a quantizer."""

    name: str
    shape: tuple[int, ...]
    size: float
    centre: float


class Jitters:
    """A gradient graph with an extra input for each quantizer that moves what it quantizes; changed in place.

    Args:
        model: a gradient graph, before it is loaded.
    """

    def __init__(self, model: ir.Model) -> None:
        nodes = [node for node in model.graph.all_nodes() if node.op_type in QUANTIZERS and not node.domain]
        self._jitters = [jitter for node in nodes if (jitter := _insert(model.graph, node)) is not None]

    def __bool__(self) -> bool:
        return bool(self._jitters)

    def draw(self, seed: int) -> dict[str, NDArray[np.float32]]:
        """Random values for the extra inputs, by name."""
        rng = np.random.default_rng(seed)
        return {
            jitter.name: (jitter.centre + jitter.size * rng.uniform(-1, 1, jitter.shape)).astype(np.float32)
            for jitter in self._jitters
        }


def _insert(main: ir.Graph, node: ir.Node) -> _Jitter | None:
    """Add an input to the main graph that moves what a node, also in a subgraph, quantizes."""
    x, graph = node.inputs[0], node.graph
    if graph is None or x is None or x.const_value is not None or x.dtype != ir.DataType.FLOAT:
        return None
    shape = static_shape(x)
    length = shape[-1:] if shape else (1,)
    if node.op_type == "QuantizeLinear":
        scale = node.inputs[1].const_value if node.inputs[1] is not None else None
        levels = 2.0 ** min(node.outputs[0].dtype.bitwidth, 16) / 2 if node.outputs[0].dtype is not None else 128.0
        step = float(np.abs(scale.numpy()).mean()) if scale is not None else 0.0
        size, centre, combine = ROUNDING * levels * step, 0.0, "Add"
    else:
        size, centre, combine = ROUNDING, 1.0, "Mul"
    name = f"{_PREFIX}{len(main.inputs)}"
    jitter = ir.Value(name=name, shape=ir.Shape(length), type=ir.TensorType(ir.DataType.FLOAT))
    main.inputs.append(jitter)
    moved = ir.Node("", combine, [x, jitter], num_outputs=1, name=f"{name}/{combine}")
    moved.outputs[0].name = f"{name}/moved"
    moved.outputs[0].shape, moved.outputs[0].type = x.shape, x.type
    graph.insert_before(node, moved)
    node.replace_input_with(0, moved.outputs[0])
    return _Jitter(name, tuple(length), size, centre)


class RoundingTrial:
    """Evaluates a classifier with its quantizer inputs moved; the extra session is created on first use.

    Args:
        graph: the gradient graph that it is measured with.
    """

    def __init__(self, classifier: Classifier, graph: GradientGraph) -> None:
        self._graph = graph
        self._classifier = classifier
        self._batch = classifier.image.fixed_batch or 1
        self._session: Session | None = None
        self._jitters: Jitters | None = None

    def outputs(self, image: NDArray[np.float32]) -> list[Output]:
        """The outputs of each trial for an image (C, H, W); none where the model does not quantize."""
        if self._jitters is None:
            self._load()
        if self._session is None or self._jitters is None:
            return []
        found = []
        for seed in range(REPEATS):
            inputs = {self._classifier.image.name: self._classifier.image.to_input([image] * self._batch)}
            feeds = {**inputs, **self._classifier.inputs, **self._jitters.draw(seed)}
            feeds = {name: as_declared(array, self._session.input_type(name)) for name, array in feeds.items()}
            logits, classes, _, derivative = self._session.run(feeds).values()
            found.append(Output(logits[0], int(classes[0]), self._classifier.image.to_images(derivative)[0]))
        return found

    def _load(self) -> None:
        graph = self._graph
        emitted: Projection = "logit" if graph.projection == "logit" else "1/score"
        model = differentiate(
            self._classifier,
            projection=emitted,
            class_index=graph.class_index,
            batch=self._batch,
            target="brief" if graph.device.is_cpu else graph.device.target,
            scaled=False,
        )
        self._jitters = Jitters(model)
        if self._jitters:
            self._session = Session(
                model,
                threads=graph.threads,
                where=str(self._classifier.path) if self._classifier.path else None,
                brief=graph.device.is_cpu,
                device=graph.device,
                custom_ops=self._classifier.custom_ops,
            )
