"""One derivative checker for all operators: takes a table row and raises an AssertionError if it fails.

The model of a row is transcribed and differentiated, and then checked in three ways:
1. the transcribed forward outputs must equal those of the operator as defined in its own version (float64);
2. the emitted gradient, in float64, must equal central differences of that forward function, element by element,
   and PyTorch's gradient if the row gives the function in PyTorch;
3. the emitted graph must pass onnx.checker and strict shape inference, and give the same in onnxruntime (float32).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxgain.engine.evaluator import Float64Evaluator
from onnxgain.gradient.emitter import Target
from onnxgain.gradient.graphs import vector_jacobian

STEP = 1e-5


@dataclass(frozen=True)
class Case:
    """One row.

    Attributes:
        op_type: the operator; `inputs` are its inputs in schema order (None if absent). Floating arrays are float64
            here and declared as float32 in the model, which the float64 evaluator computes in double precision.
        attributes: the operator's attributes.
        versions: operator versions (schema since_version) to check; each is run at the opset of that number.
        wrt: inputs to differentiate with respect to; default: every floating input that is not in `constants`.
        constants: inputs given as initializers, so that rules may read them; default: the integer and boolean ones.
            `wrt` inputs are never constants. Pass () to make all inputs dynamic.
        outputs: number of outputs of the node.
        torch: the same function in PyTorch, called with the inputs as float64 tensors, returning the first output or a
            tuple of outputs.
        ties: the inputs lie on kinks. Finite differences are meaningless, so `torch` or `gradients` must be given.
        gradients: the expected gradient per `wrt` input for upstream gradients of ones, if neither reference works.
        forward: computes the expected outputs from the inputs, for versions that the evaluator does not implement.
        runtime: False if onnxruntime has no kernel for the operator (give the reason in a comment at the row).
        tolerance: relative to the largest gradient element, for the float64 comparison.
    """

    op_type: str
    inputs: Sequence[Any]
    attributes: dict[str, Any] = field(default_factory=dict)
    versions: Sequence[int] = ()
    wrt: Sequence[int] | None = None
    constants: Sequence[int] | None = None
    outputs: int = 1
    torch: Callable[..., Any] | None = None
    ties: bool = False
    gradients: Sequence[Any] | None = None
    forward: Callable[..., Any] | None = None
    runtime: bool = True
    tolerance: float = 1e-6
    domain: str = ""
    note: str = ""

    def __str__(self) -> str:
        shapes = ",".join("-" if x is None else "x".join(map(str, np.shape(x))) or "scalar" for x in self.inputs)
        attributes = ",".join(f"{k}={v}" for k, v in self.attributes.items() if not hasattr(v, "graph"))
        return f"{self.op_type}[{shapes}][{attributes[:80]}]{self.note}"


def expand(cases: Sequence[Case]) -> list[Any]:
    """(case, version) parameters for pytest, with readable ids."""
    return [
        pytest.param(case, version, id=f"{case}-v{version}") for case in cases for version in case.versions or (None,)
    ]


def check(case: Case, version: int | None = None, *, target: Target = "cpu") -> None:
    """Check one row at one operator version; raises an AssertionError that says what differs."""
    model, feeds, wrt = build(case, version)
    names = [f"x{i}" for i in wrt]
    product = vector_jacobian(model, names, target=target)
    proto = ir.to_proto(product)
    onnx.checker.check_model(proto, full_check=True)
    onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True, data_prop=True)

    original = _original_forward(case, model, feeds)
    rng = np.random.default_rng(7)
    adjoints: dict[str, np.ndarray] = {}
    for value in product.graph.inputs:
        if value.name and value.name.startswith("adjoint_"):
            y = original(feeds)[value.name.removeprefix("adjoint_")]
            adjoints[value.name] = np.ones(y.shape) if case.gradients is not None else rng.normal(size=y.shape)
    evaluator = Float64Evaluator(product)
    result = evaluator.run({**feeds, **adjoints})

    for value, (name, y) in zip(product.graph.outputs, original(feeds).items(), strict=False):
        if not isinstance(y, list) and np.asarray(y).dtype.kind in "fiub":
            close(result[value.name or ""], y, 1e-9, f"forward output {name}")
    analytic = {name: result[f"gradient_{name}"] for name in names}
    if not case.ties and case.gradients is None:
        for name in names:
            close(
                analytic[name], differences(original, feeds, adjoints, name), case.tolerance, f"d/d{name} (differences)"
            )
    if case.gradients is not None:
        for name, expected in zip(names, case.gradients, strict=True):
            close(analytic[name], np.asarray(expected, float), case.tolerance, f"d/d{name} (given)")
    if case.torch is not None:
        for name, expected in torch_gradients(case, wrt, feeds, adjoints).items():
            close(analytic[name], expected, 1e-7, f"d/d{name} (PyTorch)")
    assert not case.ties or case.torch is not None or case.gradients is not None, "a row with ties needs a reference"
    if case.runtime:
        _check_runtime(proto, {**feeds, **adjoints}, analytic)


def build(case: Case, version: int | None) -> tuple[ir.Model, dict[str, np.ndarray], list[int]]:
    """The row as a one-node model at the opset of ``version``, its feeds, and the indices of the ``wrt`` inputs."""
    opset = version or onnx.defs.onnx_opset_version()
    floating = [i for i, x in enumerate(case.inputs) if x is not None and np.asarray(x).dtype.kind == "f"]
    wrt = list(case.wrt) if case.wrt is not None else [i for i in floating if i not in (case.constants or ())]
    constants = case.constants
    if constants is None:
        constants = [i for i, x in enumerate(case.inputs) if x is not None and i not in floating]
    values: list[ir.Value | None] = []
    graph_inputs, initializers, feeds = [], [], {}
    for i, x in enumerate(case.inputs):
        if x is None:
            values.append(None)
            continue
        array = np.asarray(x)
        declared = array.astype(np.float32) if array.dtype == np.float64 else array
        tensor = ir.tensor(declared)
        value = ir.Value(name=f"x{i}", shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype))
        if i in constants and i not in wrt:
            value.const_value = tensor
            initializers.append(value)
        else:
            graph_inputs.append(value)
            # Values that are exact in float32, so that every engine computes with the same numbers.
            feeds[f"x{i}"] = declared.astype(np.float64) if array.dtype == np.float64 else array
        values.append(value)
    node = ir.Node(
        case.domain, case.op_type, values, num_outputs=case.outputs, name="node",
        attributes=ir.convenience.convert_attributes(case.attributes),
    )  # fmt: skip
    for i, value in enumerate(node.outputs):
        value.name = f"y{i}"
    imports = {"": opset} if case.domain == "" else {"": 21, case.domain: version or 1}
    graph = ir.Graph(
        graph_inputs, node.outputs, nodes=[node], initializers=initializers, name="case", opset_imports=imports
    )
    _declare_outputs(graph, node, opset)
    return ir.Model(graph, ir_version=10), feeds, wrt


def _declare_outputs(graph: ir.Graph, node: ir.Node, opset: int) -> None:
    """Set the types of the outputs from the operator's own inference (float32 if it has none)."""
    from onnxgain.gradient.emitter import Emitter

    if node.domain == "" and not onnx.defs.get_schema(node.op_type, opset, "").deprecated:
        Emitter(graph, opset).infer(node)
    for value in node.outputs:
        if value.type is None:
            value.type = ir.TensorType(ir.DataType.FLOAT)


def _original_forward(
    case: Case, model: ir.Model, feeds: dict[str, np.ndarray]
) -> Callable[..., dict[str, np.ndarray]]:
    if case.forward is not None:
        given = case.forward

        def run(fed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            inputs = [fed.get(f"x{i}", None if x is None else np.asarray(x)) for i, x in enumerate(case.inputs)]
            result = given(*inputs)
            return {f"y{i}": y for i, y in enumerate(result if isinstance(result, tuple) else (result,))}

        return run
    evaluator = Float64Evaluator(model)
    return evaluator.run


def differences(
    forward: Callable[..., dict[str, np.ndarray]],
    feeds: dict[str, np.ndarray],
    adjoints: dict[str, np.ndarray],
    name: str,
) -> np.ndarray:
    """Central differences of the projected forward function for every element of one input."""
    x = feeds[name]
    gradient = np.zeros(x.shape)

    def projected(moved: np.ndarray) -> float:
        outputs = forward({**feeds, name: moved})
        return float(sum((adjoint * outputs[key.removeprefix("adjoint_")]).sum() for key, adjoint in adjoints.items()))

    for index in np.ndindex(*x.shape):
        up, down = x.copy(), x.copy()
        up[index] += STEP
        down[index] -= STEP
        gradient[index] = (projected(up) - projected(down)) / (2 * STEP)
    return gradient


def torch_gradients(
    case: Case, wrt: list[int], feeds: dict[str, np.ndarray], adjoints: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """PyTorch's gradients of the row's function; empty if PyTorch is not installed."""
    try:
        import torch
    except ImportError:
        return {}
    assert case.torch is not None
    tensors = [
        None if x is None else torch.tensor(feeds.get(f"x{i}", np.asarray(x))) for i, x in enumerate(case.inputs)
    ]
    for i in wrt:
        tensors[i].requires_grad_(True)
    outputs = case.torch(*tensors)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    total = sum(
        (torch.tensor(adjoints[f"adjoint_y{i}"]) * y).sum()
        for i, y in enumerate(outputs)
        if f"adjoint_y{i}" in adjoints
    )
    total.backward()
    return {f"x{i}": np.zeros(tensors[i].shape) if tensors[i].grad is None else tensors[i].grad.numpy() for i in wrt}


def _check_runtime(proto: onnx.ModelProto, feeds: dict[str, np.ndarray], analytic: dict[str, np.ndarray]) -> None:
    if not _runtime_knows(next(o.version for o in proto.opset_import if o.domain == "")):
        return
    session = _session(proto)
    doubles = {i.name for i in session.get_inputs() if i.type == "tensor(double)"}
    narrow = {k: v if v.dtype != np.float64 or k in doubles else v.astype(np.float32) for k, v in feeds.items()}
    outputs = dict(zip([o.name for o in session.get_outputs()], session.run(None, narrow), strict=True))
    for name, expected in analytic.items():
        close(outputs[f"gradient_{name}"], expected, 2e-4, f"d/d{name} (onnxruntime)")


def _session(proto: onnx.ModelProto) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])


@functools.cache
def _runtime_knows(opset: int) -> bool:
    """Whether the installed onnxruntime loads models of an opset. onnx may be newer than onnxruntime."""
    x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy")
    graph = onnx.helper.make_graph([onnx.helper.make_node("Abs", ["x"], ["y"])], "probe", [x], [y])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=10)
    try:
        _session(model)
    except Exception as error:
        if "under development" not in str(error):
            raise
        return False
    return True


def close(actual: np.ndarray, expected: np.ndarray, tolerance: float, what: str) -> None:
    """Assert equality up to ``tolerance`` relative to the largest expected element (or to 1 if all are smaller)."""
    actual, expected = np.asarray(actual, float), np.asarray(expected, float)
    assert actual.shape == expected.shape, f"{what}: shape {actual.shape}, expected {expected.shape}"
    scale = max(float(np.abs(expected).max(initial=0.0)), 1.0)
    error = np.abs(actual - expected)
    worst = float(error.max(initial=0.0)) if not np.isnan(error).any() else float("nan")
    assert worst <= tolerance * scale, (
        f"{what}: off by {worst:.3g} of {scale:.3g}\n got      {np.round(actual, 4).tolist()}"
        f"\n expected {np.round(expected, 4).tolist()}"
    )
