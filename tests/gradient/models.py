"""The derivative checker for whole models, which are written in ONNX's textual syntax."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir

from onnxgain.engine.evaluator import Float64Evaluator
from onnxgain.gradient.graphs import vector_jacobian
from tests.gradient.checker import _check_runtime, close, differences


def parse(text: str) -> ir.Model:
    """A model from ONNX's textual syntax, checked."""
    proto = onnx.parser.parse_model(text)
    onnx.checker.check_model(proto)
    return ir.from_proto(proto)


@dataclass(frozen=True)
class ModelCase:
    """A row whose operator needs other operators around it: subgraphs, or sequences, which cannot be model inputs.

    Attributes:
        op_type: the operator checked.
        text: the graph, in ONNX's textual syntax.
        feeds: its inputs; float64 arrays are declared float32.
        versions: operator versions to check; each is run at the opset of that number.
        wrt: inputs to differentiate with respect to; default: the floating ones.
        forward: computes the outputs from the inputs, for operators that the float64 evaluator does not implement.
        tolerance: see `check_model`.
        note: added to the row's name.
    """

    op_type: str
    text: str
    feeds: Mapping[str, np.ndarray]
    versions: Sequence[int]
    wrt: Sequence[str] = ()
    forward: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]] | None = None
    tolerance: float = 1e-6
    note: str = ""
    domain: str = ""

    def __str__(self) -> str:
        return f"{self.op_type}[{self.note}]"

    def model(self, version: int) -> ir.Model:
        return parse(f'<ir_version: 10, opset_import: ["" : {version}]> {self.text}')

    def check(self, version: int) -> ir.Model:
        """Check the row at one version; returns the differentiated model."""
        wrt = self.wrt or [name for name, array in self.feeds.items() if array.dtype.kind == "f"]
        return check_model(self.model(version), self.feeds, wrt, forward=self.forward, tolerance=self.tolerance)


def check_model(
    model: ir.Model,
    feeds: Mapping[str, np.ndarray],
    wrt: Sequence[str],
    *,
    forward: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]] | None = None,
    tolerance: float = 1e-6,
    forward_tolerance: float = 1e-9,
    runtime: bool = True,
) -> ir.Model:
    """Check forward values and gradients of a model; returns the differentiated model.

    Args:
        model: the model; all its floating outputs are differentiated.
        feeds: float64 arrays (fed as float32 to the runtime) and arrays of other types.
        wrt: inputs to differentiate with respect to.
        forward: computes the expected outputs; None for the float64 evaluator.
        tolerance: tolerance of the gradients compared with central differences of ``forward``.
        forward_tolerance: tolerance of the forward values; more than 1e-9 if weights are recomputed and rounded.
        runtime: also run it in onnxruntime.
    """
    feeds = dict(feeds)
    product = vector_jacobian(model, wrt, input_shapes={name: array.shape for name, array in feeds.items()})
    proto = ir.to_proto(product)
    onnx.checker.check_model(proto, full_check=True)
    onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True, data_prop=True)
    original = forward or Float64Evaluator(model).run
    outputs = original(feeds)
    rng = np.random.default_rng(3)
    adjoints = {
        value.name: rng.normal(size=outputs[value.name.removeprefix("adjoint_")].shape)
        for value in product.graph.inputs
        if value.name and value.name.startswith("adjoint_")
    }
    result = Float64Evaluator(product).run({**feeds, **adjoints})
    for value, (name, y) in zip(product.graph.outputs, outputs.items(), strict=False):
        if np.asarray(y).dtype.kind == "f":
            close(result[value.name or ""], y, forward_tolerance, f"forward output {name}")
    analytic = {name: result[f"gradient_{name}"] for name in wrt}
    for name in wrt:
        close(analytic[name], differences(original, feeds, adjoints, name), tolerance, f"d/d{name} (differences)")
    if runtime:
        _check_runtime(proto, {**feeds, **adjoints}, analytic)
    return product


def operators(model: ir.Model) -> set[str]:
    """The operators of a graph and its subgraphs."""
    return {node.op_type for node in model.graph.all_nodes()}
