"""Evaluates ONNX graphs in float64, without onnxruntime.

Every float16, bfloat16 and float32 value of the model becomes float64: inputs, initializers, constants, results of
casts, and everything inside subgraphs and functions. Integers, booleans and floats of 8 or fewer bits keep their types,
and quantization still rounds and saturates. `onnxgain.engine.kernels` implements the operators; those without a kernel
run in `onnx.reference`, one node at a time, with the attribute defaults of their own opset version.

Ties follow PyTorch and onnxruntime: MaxPool returns the index of the first maximum in a window.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxgain.engine.kernels import find_kernel, wants_output_count
from onnxgain.engine.kernels.reference import ReferenceNode, attribute_defaults, refusal
from onnxgain.errors import WITH_CUSTOM_OPS, OnnxgainError

Array = npt.NDArray[Any]
Scope = dict[ir.Value, Any]
Call = Callable[[list[Any], Scope], tuple[Any, ...]]
Override = Callable[[ir.Node, list[Any], Callable[[], tuple[Any, ...]]], tuple[Any, ...]]
"""Called with a node, its arguments, and a function that evaluates the node normally; returns the node's outputs."""

_WIDENED = {ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16}
_WIDENED_NAMES = {"float32", "float16", "bfloat16"}

# Attributes whose value is the element type of a result.
_TYPE_ATTRIBUTES = {"to", "dtype", "output_datatype", "output_dtype", "precision", "softmax_precision"}


class Float64Evaluator:
    """Evaluates a model in float64.

    Weights are converted once, so the evaluator holds about twice the memory of a float32 model. The model is read
    at construction and not changed; it must be valid (nodes in topological order), and its tensors loadable.

    Args:
        model: the model.
        overrides: by operator type, functions to call instead of the kernel.

    Raises:
        OnnxgainError: an operator has no implementation in float64, for example one of a vendor's domain.
    """

    def __init__(self, model: ir.Model, overrides: Mapping[str, Override] | None = None) -> None:
        compiler = _Compiler(model.functions, overrides or {})
        with np.errstate(all="ignore"):
            self._program = compiler.graph(model.graph, model.graph.opset_imports)
        self._inputs = {_name(value): value for value in model.graph.inputs}
        self._values = {_name(value): value for value in self._program.values()}
        self._outputs = tuple(_name(value) for value in model.graph.outputs)

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """Evaluate `outputs`: names of any values of the main graph (default: the outputs of the model).

        Only nodes that `outputs` depend on are evaluated, and each result is freed after its last use.

        Args:
            feeds: graph inputs by name. An input that has an initializer may be omitted. Floating-point arrays of any
                width are converted to float64; other arrays must have the type that the model declares.
            outputs: the names of the values to return.

        Returns:
            The values by name; floating-point values are float64.

        Raises:
            OnnxgainError: a name in `feeds` or `outputs` is not in the graph, or a needed input was not fed.
        """
        names = self._outputs if outputs is None else tuple(outputs)
        for name in feeds:
            if name not in self._inputs:
                raise OnnxgainError(f"the graph has no input {name!r}", remedy=f"inputs are {sorted(self._inputs)}")
        for name in names:
            if name not in self._values:
                raise OnnxgainError(f"the graph has no value {name!r}")
        scope = {self._inputs[name]: _widen_fed(value) for name, value in feeds.items()}
        with np.errstate(all="ignore"):
            results = self._program.run(scope, tuple(self._values[name] for name in names))
        return dict(zip(names, results, strict=True))


@dataclass(frozen=True, eq=False)
class _Step:
    """A compiled node. `reads` holds its inputs and the outer values that its subgraphs capture."""

    label: str
    inputs: tuple[ir.Value | None, ...]
    outputs: tuple[ir.Value, ...]
    reads: frozenset[ir.Value]
    call: Call

    def run(self, scope: Scope) -> tuple[Any, ...]:
        arguments = [None if value is None else scope[value] for value in self.inputs]
        try:
            results = self.call(arguments, scope)
        except OnnxgainError:
            raise
        except Exception as error:
            shapes = ", ".join(str(getattr(a, "shape", "absent")) for a in arguments)
            error.add_note(f"at {self.label} with inputs of shapes {shapes}")
            raise
        for result in results:
            if isinstance(result, np.ndarray) and result.dtype.name in _WIDENED_NAMES:
                raise OnnxgainError(f"the result is {result.dtype.name}, not float64", where=self.label)
        return results


@dataclass(eq=False)
class _Program:
    """A compiled graph or function body: its constants, and its steps in order."""

    inputs: tuple[ir.Value, ...]
    outputs: tuple[ir.Value, ...]
    constants: Scope = field(default_factory=dict)
    steps: list[_Step] = field(default_factory=list)
    _plans: dict[tuple[ir.Value, ...], list[tuple[_Step, tuple[ir.Value, ...]]]] = field(default_factory=dict)

    def values(self) -> Iterable[ir.Value]:
        yield from self.inputs
        yield from self.constants
        for step in self.steps:
            yield from step.outputs

    @cached_property
    def captured(self) -> frozenset[ir.Value]:
        """The values of enclosing graphs that this graph reads."""
        reads = frozenset(self.outputs).union(*(step.reads for step in self.steps))
        return reads.difference(self.values())

    def run(self, scope: Scope, targets: tuple[ir.Value, ...] | None = None) -> list[Any]:
        """The values of `targets` (default: the outputs), given inputs and captured values in `scope`."""
        targets = self.outputs if targets is None else targets
        scope = {**self.constants, **scope}
        for step, released in self._plan(targets):
            missing = [value for value in step.reads if value not in scope]
            if missing:
                raise OnnxgainError("no value was fed", where=f"input {missing[0].name!r}")
            for value, result in zip(step.outputs, step.run(scope), strict=False):
                scope[value] = result
            for value in released:
                scope.pop(value, None)
        for value in targets:
            if value not in scope:
                raise OnnxgainError("no value was fed", where=f"input {value.name!r}")
        return [scope[value] for value in targets]

    def _plan(self, targets: tuple[ir.Value, ...]) -> list[tuple[_Step, tuple[ir.Value, ...]]]:
        """The steps that `targets` depend on, each with the values that no later step reads."""
        if targets not in self._plans:
            needed, plan = set(targets), []
            for step in reversed(self.steps):
                if needed.intersection(step.outputs):
                    plan.append((step, tuple((step.reads | set(step.outputs)) - needed)))
                    needed |= step.reads
            self._plans[targets] = plan[::-1]
        return self._plans[targets]


class _Compiler:
    """Compiles graphs and functions; resolves attributes, operator versions and calls of model functions."""

    def __init__(
        self, functions: Mapping[ir.OperatorIdentifier, ir.Function], overrides: Mapping[str, Override]
    ) -> None:
        self._functions = functions
        self._overrides = overrides

    def graph(
        self,
        body: ir.Graph | ir.Function,
        opsets: Mapping[str, int],
        bindings: Mapping[str, Any] | None = None,
    ) -> _Program:
        """Compile `body`; `bindings` holds the attributes of the enclosing function call."""
        program = _Program(tuple(body.inputs), tuple(body.outputs))
        if isinstance(body, ir.Graph):
            for name, value in body.initializers.items():
                if value.const_value is None:
                    raise OnnxgainError("the initializer has no data", where=name)
                program.constants[value] = _tensor(value.const_value)
        for node in body:
            attributes = self._attributes(node, opsets, bindings or {})
            if node.op_type == "Constant" and _domain(node) == "":
                program.constants[node.outputs[0]] = _constant(node, attributes)
            else:
                program.steps.append(self._step(node, attributes, opsets))
        return program

    def _step(self, node: ir.Node, attributes: dict[str, Any], opsets: Mapping[str, int]) -> _Step:
        subgraphs = {name: value for name, value in attributes.items() if isinstance(value, _Program)}
        call = self._call(node, attributes, opsets)
        if subgraphs:
            call = _with_subgraphs(call, subgraphs)
        override = self._overrides.get(node.op_type)
        if override is not None and _domain(node) == "":
            call = _overridden(override, node, call)
        captured: frozenset[ir.Value] = frozenset().union(*(body.captured for body in subgraphs.values()))
        inputs = given_inputs(node)
        reads = captured.union(value for value in inputs if value is not None)
        return _Step(_label(node), inputs, tuple(node.outputs), reads, call)

    def _call(self, node: ir.Node, attributes: dict[str, Any], opsets: Mapping[str, int]) -> Call:
        function = self._functions.get(node.op_identifier())
        if function is not None:
            return self._function_call(function, attributes)
        domain = _domain(node)
        version = opsets.get(domain, opsets.get(node.domain, 0))
        defaults = attribute_defaults(domain, node.op_type, version)
        if defaults is None:
            raise _unsupported(node, version, "no such operator in the ONNX standard")
        attributes = {name: _widen_type(name, value) for name, value in defaults.items()} | attributes
        kernel = find_kernel(node.op_type, version) if domain == "" else None
        if kernel is None:
            return _reference_call(node, domain, version, attributes)
        if wants_output_count(kernel):
            attributes["n_outputs"] = max((i + 1 for i, used in enumerate(_used_outputs(node)) if used), default=0)
        return partial(_kernel_call, kernel, attributes)

    def _function_call(self, function: ir.Function, attributes: dict[str, Any]) -> Call:
        bindings = {
            k: self._value(a, function.opset_imports, {}) for k, a in function.attributes.items() if a.value is not None
        }
        program = self.graph(function, function.opset_imports, bindings | attributes)

        def call(arguments: list[Any], scope: Scope) -> tuple[Any, ...]:
            padded = arguments + [None] * (len(program.inputs) - len(arguments))
            return tuple(program.run(dict(zip(program.inputs, padded, strict=True))))

        return call

    def _attributes(self, node: ir.Node, opsets: Mapping[str, int], bindings: Mapping[str, Any]) -> dict[str, Any]:
        """The attributes of a node as Python values, without references to function attributes that are not set."""
        values = {}
        for name, attribute in node.attributes.items():
            if attribute.is_ref():
                if (target := attribute.ref_attr_name or "") in bindings:
                    values[name] = bindings[target]
            else:
                values[name] = self._value(attribute, opsets, bindings)
        return {name: _widen_type(name, value) for name, value in values.items()}

    def _value(self, attribute: ir.Attr, opsets: Mapping[str, int], bindings: Mapping[str, Any]) -> Any:
        if attribute.type == ir.AttributeType.GRAPH:
            return self.graph(attribute.as_graph(), opsets, bindings)
        if attribute.type == ir.AttributeType.TENSOR:
            return _tensor(attribute.as_tensor())
        # Attributes of a model in memory may have more digits than float32, their type in ONNX.
        if attribute.type == ir.AttributeType.FLOAT:
            return float(np.float32(attribute.as_float()))
        if attribute.type == ir.AttributeType.FLOATS:
            return [float(np.float32(value)) for value in attribute.as_floats()]
        if attribute.type in (ir.AttributeType.INTS, ir.AttributeType.STRINGS):
            return list(attribute.value)
        return attribute.value


def _kernel_call(
    kernel: Callable[..., Any], attributes: dict[str, Any], arguments: list[Any], scope: Scope
) -> tuple[Any, ...]:
    result = kernel(*arguments, **attributes)
    results = result if isinstance(result, tuple) else (result,)
    return tuple(np.asarray(value) if isinstance(value, np.generic) else value for value in results)


def _overridden(override: Override, node: ir.Node, call: Call) -> Call:
    return lambda arguments, scope: override(node, arguments, lambda: call(arguments, scope))


def _with_subgraphs(call: Call, subgraphs: dict[str, _Program]) -> Call:
    """Bind the graph attributes of a kernel call to the values of the enclosing graph at each run."""
    assert isinstance(call, partial)
    kernel, attributes = call.args

    def bound(arguments: list[Any], scope: Scope) -> tuple[Any, ...]:
        bodies = {name: partial(_run_subgraph, program, scope) for name, program in subgraphs.items()}
        return _kernel_call(kernel, attributes | bodies, arguments, scope)

    return bound


def _run_subgraph(program: _Program, scope: Scope, *arguments: Any) -> list[Any]:
    inner = {value: scope[value] for value in program.captured if value in scope}
    inner.update(zip(program.inputs, arguments, strict=True))
    return program.run(inner)


def _reference_call(node: ir.Node, domain: str, version: int, attributes: dict[str, Any]) -> Call:
    present = [value is not None for value in given_inputs(node)]
    reason = refusal(node.op_type, present, set(node.attributes))
    if any(isinstance(value, _Program) for value in attributes.values()):
        reason = "this version of control flow has no kernel"
    if reason:
        raise _unsupported(node, version, reason)
    try:
        reference = ReferenceNode(domain, node.op_type, version, present, _used_outputs(node), attributes)
    except (NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        raise _unsupported(node, version, "onnx.reference does not support it") from error
    return lambda arguments, scope: reference.run(arguments)


def _unsupported(node: ir.Node, version: int, reason: str) -> OnnxgainError:
    if node.domain not in ("", "ai.onnx"):
        return OnnxgainError(
            f"operator {node.domain}.{node.op_type} is not of the ONNX standard: it cannot be evaluated in float64",
            where=_label(node),
            remedy=f"export the model with standard operators, or {WITH_CUSTOM_OPS}; verify cannot check such models",
        )
    operator = node.op_type
    return OnnxgainError(
        f"operator {operator} (opset {version}) is not evaluated in float64: {reason}",
        where=_label(node),
        remedy="leave out the float64 check for this model",
    )


def given_inputs(node: ir.Node) -> tuple[ir.Value | None, ...]:
    """The inputs of a node without absent ones at the end; some exporters write more than the operator has."""
    inputs = list(node.inputs)
    while inputs and inputs[-1] is None:
        inputs.pop()
    return tuple(inputs)


def _used_outputs(node: ir.Node) -> list[bool]:
    """Which outputs are present: an output named "" is absent, while a name of None means not yet serialized."""
    return [value.name != "" for value in node.outputs]


def _constant(node: ir.Node, attributes: Mapping[str, Any]) -> Any:
    """The value of a Constant node, which has exactly one of the value attributes."""
    for name, value in attributes.items():
        if name == "value":
            return value
        if name in ("value_float", "value_floats"):
            return np.asarray(value, dtype=np.float64)
        if name in ("value_int", "value_ints"):
            return np.asarray(value, dtype=np.int64)
        if name in ("value_string", "value_strings"):
            return np.asarray(value, dtype=object)
    raise OnnxgainError("the constant has no supported value", where=_label(node))


def _tensor(tensor: ir.TensorProtocol) -> Array:
    return _widen(tensor.numpy())


def _widen(array: Array) -> Array:
    return array.astype(np.float64) if array.dtype.name in _WIDENED_NAMES else array


def _widen_fed(value: Any) -> Any:
    return [_widen_fed(element) for element in value] if isinstance(value, list) else _widen(np.asarray(value))


def _widen_type(name: str, value: Any) -> Any:
    """Replace a narrower floating-point type by double in an attribute that is an element type."""
    return int(ir.DataType.DOUBLE) if name in _TYPE_ATTRIBUTES and value in _WIDENED else value


def _domain(node: ir.Node) -> str:
    return "" if node.domain == "ai.onnx" else node.domain


def _name(value: ir.Value) -> str:
    return value.name or ""


def _label(node: ir.Node) -> str:
    first = next((_name(value) for value in node.outputs if value.name), "")
    return f"node {node.name or first!r} ({node.op_type})"
