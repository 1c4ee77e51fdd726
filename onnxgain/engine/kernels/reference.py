"""Operators without a kernel: each node runs in `onnx.reference`, as a graph of its own.

Every attribute is set explicitly to the default of its own opset version, because onnx.reference uses the defaults of
the newest one. `refusal` knows what onnx.reference computes in float32 or ignores.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

_REFUSED = {
    "BitCast": "it reinterprets the bits of a type that is widened",
    "LinearAttention": "its reference implementation accumulates in float32",
    "TfIdfVectorizer": "its reference implementation is float32",
}
_RECURRENT = {"RNN", "GRU", "LSTM"}
_IGNORED_BY_RECURRENT = {"activations", "activation_alpha", "activation_beta", "clip", "input_forget"}
_SEQUENCE_LENS = 4


def refusal(op_type: str, inputs: Sequence[bool], attributes: Collection[str]) -> str | None:
    """Why onnx.reference would not give the correct result in float64, or None.

    Args:
        op_type: the operator.
        inputs: which of the node's inputs are present.
        attributes: the attributes that the node sets.
    """
    if op_type not in _RECURRENT:
        return _REFUSED.get(op_type)
    ignored = sorted(_IGNORED_BY_RECURRENT.intersection(attributes))
    if len(inputs) > _SEQUENCE_LENS and inputs[_SEQUENCE_LENS]:
        ignored.append("sequence_lens")
    return f"its reference implementation ignores {', '.join(ignored)}" if ignored else None


@cache
def attribute_defaults(domain: str, op_type: str, version: int) -> Mapping[str, Any] | None:
    """The attribute defaults of an operator at an opset version, or None if ONNX has no such operator.

    Defaults that are tensors are left out: they are placeholders that mean "depends on the input".
    """
    import onnx

    try:
        schema = onnx.defs.get_schema(op_type, version, domain)
    except onnx.defs.SchemaError:
        return None
    defaults = {}
    for name, attribute in schema.attributes.items():
        if attribute.default_value.type not in (onnx.AttributeProto.UNDEFINED, onnx.AttributeProto.TENSOR):
            value = onnx.helper.get_attribute_value(attribute.default_value)
            defaults[name] = value.decode() if isinstance(value, bytes) else value
    if op_type == "RoiAlign" and "coordinate_transformation_mode" not in schema.attributes:
        # Before opset 16 there was no such attribute, and boxes were not shifted by half a pixel, unlike today's
        # default.
        defaults["coordinate_transformation_mode"] = "output_half_pixel"
    return defaults


class ReferenceNode:
    """One node of `onnx.reference`.

    Raises:
        NotImplementedError, RuntimeError, TypeError, ValueError: onnx.reference cannot evaluate such a node.
    """

    def __init__(
        self,
        domain: str,
        op_type: str,
        version: int,
        inputs: Sequence[bool],
        outputs: Sequence[bool],
        attributes: Mapping[str, Any],
    ) -> None:
        """Set up the node: `inputs` and `outputs` say which are present; `attributes` are Python values or arrays."""
        import onnx
        from onnx.reference import ReferenceEvaluator

        self._inputs = [f"i{i}" if present else "" for i, present in enumerate(inputs)]
        self._outputs = [f"o{i}" if present else "" for i, present in enumerate(outputs)]
        node = onnx.helper.make_node(op_type, self._inputs, self._outputs, domain=domain)
        node.attribute.extend(_attribute(name, value) for name, value in attributes.items() if value is not None)
        graph = onnx.helper.make_graph(
            [node],
            "node",
            [onnx.helper.make_empty_tensor_value_info(name) for name in self._inputs if name],
            [onnx.helper.make_empty_tensor_value_info(name) for name in self._outputs if name],
        )
        self._evaluator = ReferenceEvaluator(graph, opsets={domain: version})

    def run(self, arguments: Sequence[Any]) -> tuple[Any, ...]:
        """Evaluate the node on one argument per input; absent inputs and outputs are None."""
        feeds = {name: value for name, value in zip(self._inputs, arguments, strict=True) if name}
        results = iter(self._evaluator.run(None, feeds))
        return tuple(next(results) if name else None for name in self._outputs)


def _attribute(name: str, value: Any) -> Any:
    import onnx

    if isinstance(value, np.ndarray):
        return onnx.helper.make_attribute(name, onnx.numpy_helper.from_array(value))
    if isinstance(value, list) and not value:
        return onnx.helper.make_attribute(name, value, attr_type=onnx.AttributeProto.INTS)
    return onnx.helper.make_attribute(name, value)
