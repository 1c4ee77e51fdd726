"""onnxruntime's own operators: forward values compared with its kernels, gradients with central differences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from onnxgain.engine.evaluator import Float64Evaluator
from onnxgain.errors import UnsupportedOperatorError
from onnxgain.gradient.forward.transcribe import transcribe
from onnxgain.gradient.graphs import finished, vector_jacobian
from tests.gradient.arrays import distinct, normal, uniform
from tests.gradient.checker import close
from tests.gradient.models import check_model

Array = np.ndarray
MICROSOFT = "com.microsoft"


@dataclass(frozen=True)
class Row:
    """One node with an operator of onnxruntime.

    Attributes:
        op_type: the operator; `inputs` are its inputs (None if absent), floating ones declared as float32.
        attributes: its attributes.
        outputs: the number of outputs.
        constants: inputs given as initializers, besides the integer and boolean ones.
        domain: its domain.
        opset: opset of the default domain.
        reference: computes the outputs in NumPy, if onnxruntime has no CPU kernel.
        skip: outputs that onnxruntime leaves unset.
    """

    op_type: str
    inputs: Sequence[Any]
    attributes: dict[str, Any] = field(default_factory=dict)
    outputs: int = 1
    constants: Sequence[int] = ()
    domain: str = MICROSOFT
    opset: int = 17
    reference: Callable[..., tuple[Array, ...]] | None = None
    skip: Sequence[int] = ()

    def __str__(self) -> str:
        shapes = ",".join("-" if x is None else "x".join(map(str, np.shape(x))) or "scalar" for x in self.inputs)
        return f"{self.op_type}[{shapes}]{self.attributes}"[:110]


def single(row: Row) -> tuple[ir.Model, dict[str, Array]]:
    """The row as a one-node model, and its feeds."""
    names, graph_inputs, initializers, feeds = [], [], [], {}
    for i, x in enumerate(row.inputs):
        names.append("" if x is None else f"x{i}")
        if x is None:
            continue
        narrow = x.astype(np.float32) if x.dtype == np.float64 else x
        if i in row.constants or x.dtype.kind != "f":
            initializers.append(onnx.numpy_helper.from_array(narrow, f"x{i}"))
        else:
            dtype = helper.np_dtype_to_tensor_dtype(narrow.dtype)
            graph_inputs.append(helper.make_tensor_value_info(f"x{i}", dtype, x.shape))
            feeds[f"x{i}"] = x
    outputs = ["" if i in row.skip else f"y{i}" for i in range(row.outputs)]
    node = helper.make_node(row.op_type, names, outputs, name="node", domain=row.domain, **row.attributes)
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs if name]
    graph = helper.make_graph([node], "row", graph_inputs, infos, initializers)
    imports = [helper.make_opsetid("", row.opset), helper.make_opsetid(MICROSOFT, 1)]
    return ir.from_proto(helper.make_model(graph, opset_imports=imports, ir_version=10)), feeds


def run_kernel(model: ir.Model, feeds: dict[str, Array]) -> dict[str, Array]:
    """The outputs of onnxruntime's own kernels, unoptimized."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    proto = ir.to_proto(model).SerializeToString()
    session = onnxruntime.InferenceSession(proto, options, providers=["CPUExecutionProvider"])
    narrow = {name: x.astype(np.float32) if x.dtype == np.float64 else x for name, x in feeds.items()}
    return dict(zip([y.name for y in session.get_outputs()], session.run(None, narrow), strict=True))


def rewritten(model: ir.Model) -> Callable[[dict[str, Array]], dict[str, Array]]:
    """A function that computes the outputs of the transcribed model from its feeds, in float64."""
    transcript = transcribe(model, {})
    names = {name: value.name or "" for name, value in transcript.outputs.items()}
    evaluator = Float64Evaluator(finished(transcript.graph))

    def run(feeds: dict[str, Array]) -> dict[str, Array]:
        results = evaluator.run(feeds)
        return {name: results[new] for name, new in names.items()}

    return run


def silu(x: Array) -> Array:
    return x / (1 + np.exp(-x))


def group_norm(groups: int, *, last: bool, activation: int = 0) -> Callable[..., tuple[Array, ...]]:
    def forward(x: Array, gamma: Array, beta: Array, skip: Array | None = None, bias: Array | None = None) -> Any:
        total = x
        if skip is not None:
            spread = skip[:, None, None, :] if last else skip[:, :, None, None]
            total = x + (spread if skip.ndim == 2 else skip)
            if bias is not None:
                total = total + (bias if last else bias[:, None, None])
        s = np.moveaxis(total, -1, 1) if last else total
        flat = s.reshape(s.shape[0], groups, -1)
        mean, variance = flat.mean(-1, keepdims=True), flat.var(-1, keepdims=True)
        y = ((flat - mean) / np.sqrt(variance + float(np.float32(1e-5)))).reshape(s.shape)
        y = y * gamma[:, None, None] + beta[:, None, None]
        y = silu(y) if activation else y
        y = np.moveaxis(y, 1, -1) if last else y
        return (y,) if skip is None else (y, total)

    return forward


def conv_nhwc(x: Array, w: Array, *rest: Array | None) -> tuple[Array, ...]:
    """A 1x1 convolution in channels-last layout."""
    y = x @ w.reshape(w.shape[0], -1).T
    for addend in rest:
        y = y if addend is None else y + addend
    return (y,)


def softmax(*axes: int) -> Callable[..., tuple[Array, ...]]:
    def forward(x: Array, bias: Array) -> tuple[Array, ...]:
        e = np.exp(x + bias)
        return (e / e.sum(axes, keepdims=True),)

    return forward


def attend(q: Array, k: Array, v: Array) -> Array:
    """Attention of (batch, sequence, heads, size), as (batch, sequence, heads * size)."""
    e = np.exp(np.einsum("bqhd,bkhd->bhqk", q, k) / np.sqrt(q.shape[-1]))
    y = np.einsum("bhqk,bkhd->bqhd", e / e.sum(-1, keepdims=True), v)
    return y.reshape(*y.shape[:2], -1)


mask_2d = np.array([[1, 1, 1, 0], [1, 1, 0, 0]], np.int32)
ROWS = [
    Row("Gelu", [normal(2, 3)]),
    Row("Gelu", [normal(2, 3)], opset=20),
    Row("FastGelu", [normal(2, 3)]),
    Row("FastGelu", [normal(2, 3), normal(3)], opset=20),
    Row("BiasGelu", [normal(2, 3), normal(3)]),
    Row("QuickGelu", [normal(2, 3)]),
    Row("QuickGelu", [normal(2, 3)], {"alpha": 1.0}),
    Row(
        "BiasSplitGelu",
        [normal(1, 2, 6), normal(6)],
        reference=lambda x, b: ((x + b)[..., :3] * rewritten_gelu((x + b)[..., 3:]),),
    ),
    Row("GemmFastGelu", [normal(2, 3), normal(3, 4), normal(4)], reference=lambda x, w, b: (fast_gelu(x @ w + b),)),
    Row("BiasAdd", [normal(1, 2, 3), normal(3), normal(1, 2, 3)], reference=lambda x, b, s: (x + b + s,)),
    Row("BiasDropout", [normal(2, 3), normal(3), normal(2, 3)], reference=lambda x, b, r: (x + b + r,)),
    Row(
        "BiasSoftmax",
        [normal(2, 3, 2, 4), normal(2, 1, 1, 4)],
        {"axis": 3, "is_inner_broadcast": 1},
        reference=softmax(-1),
    ),
    Row(
        "BiasSoftmax",
        [normal(2, 3, 2, 4), normal(1, 3, 2, 4)],
        {"axis": 1, "is_inner_broadcast": 0},
        reference=softmax(1, 2, 3),
    ),
    Row("FusedMatMul", [normal(2, 3, 4), normal(2, 5, 4)], {"transB": 1, "alpha": 0.5}),
    Row("FusedMatMul", [normal(2, 4, 3), normal(4, 5)], {"transA": 1}),
    Row("FusedMatMul", [normal(3, 2, 4), normal(2, 4, 5)], {"transBatchA": 1}),
    Row("FusedMatMul", [normal(4, 2, 3, 5), normal(6, 2, 3, 5)], {"transBatchA": 1, "transBatchB": 1, "transB": 1}),
    Row("FusedMatMul", [normal(3, 2, 3, 3), normal(3, 2, 3, 3)], {"transBatchA": 1, "transBatchB": 1, "transA": 1}),
    Row("FusedMatMul", [normal(4), normal(4, 3)], {"transA": 1}),
    Row("TransposeMatMul", [normal(3, 4), normal(5, 4)], {"transB": 1}),
    Row(
        "FusedMatMulActivation",
        [normal(2, 3), normal(3, 4)],
        {"activation": "LeakyRelu", "activation_alpha": 0.5, "alpha": 2.0},
        reference=lambda a, b: (np.where(a @ b < 0, a @ b, 2 * (a @ b)),),
    ),
    Row("FusedGemm", [normal(2, 3), normal(3, 4), normal(4)], {"activation": "Tanh", "alpha": 0.5, "beta": 2.0}),
    Row(
        "FusedGemm",
        [normal(2, 3), normal(4, 3), normal(4)],
        {"activation": "LeakyRelu", "activation_alpha": 0.25, "transB": 1},
    ),
    Row(
        "FusedGemm",
        [normal(2, 3), normal(3, 4)],
        {"activation": "HardSigmoid", "activation_alpha": 0.25, "activation_beta": 0.5},
    ),
    Row(
        "FusedGemm",
        [normal(2, 3), normal(3, 4)],
        {"activation": "Selu", "activation_alpha": 1.5, "activation_gamma": 0.5},
    ),
    Row("FusedConv", [normal(1, 2, 4, 4), normal(3, 2, 3, 3), normal(3)], {"activation": "Relu", "pads": [1, 1, 1, 1]}),
    Row("FusedConv", [normal(1, 2, 4, 4), normal(3, 2, 1, 1), normal(3), normal(1, 3, 4, 4)], {"activation": "Relu"}),
    Row(
        "FusedConv",
        [normal(1, 2, 4, 4), normal(3, 2, 1, 1)],
        {"activation": "Clip", "activation_params": [-0.5, 0.75]},
    ),
    Row(
        "FusedConv",
        [normal(1, 2, 4, 4), normal(2, 1, 3, 3), normal(2)],
        {"activation": "HardSigmoid", "activation_params": [0.25, 0.5], "group": 2, "strides": [2, 2]},
    ),
    Row(
        "FusedConv", [normal(1, 2, 4, 4), normal(3, 2, 1, 1)], {"activation": "LeakyRelu", "activation_params": [0.25]}
    ),
    Row("FusedConv", [normal(1, 2, 4, 4), normal(3, 2, 1, 1)], {"activation": "Sigmoid"}),
    Row("NhwcConv", [normal(1, 3, 3, 2), normal(4, 1, 1, 2), normal(4)], {"kernel_shape": [1, 1]}, reference=conv_nhwc),
    Row(
        "NhwcFusedConv",
        [normal(1, 3, 3, 2), normal(4, 2, 1, 1), normal(4), normal(1, 3, 3, 4)],
        {"activation": "Tanh"},
        reference=lambda x, w, b, z: (np.tanh(conv_nhwc(x, w, b, z)[0]),),
    ),
    Row(
        "NhwcMaxPool",
        [distinct(1, 4, 4, 2)],
        {"kernel_shape": [2, 2], "strides": [2, 2]},
        reference=lambda x: (x.reshape(1, 2, 2, 2, 2, 2).max((2, 4)),),
    ),
    Row(
        "ConvTransposeWithDynamicPads",
        [normal(1, 2, 3, 3), normal(2, 3, 3, 3), np.array([1, 0, 0, 1])],
        {"strides": [2, 2]},
    ),
    Row("ConvTransposeWithDynamicPads", [normal(1, 2, 3, 3), normal(2, 3, 3, 3), np.zeros(4, np.int64), normal(3)]),
    Row("Pad", [normal(2, 3), np.array([[0, 1, 1, 2]]), normal(1)], constants=[2]),
    Row("Pad", [normal(4, 3), np.array([1, 1, 2, 0])], {"mode": "reflect"}),
    Row("Trilu", [normal(3, 4), np.array(1)]),
    Row("Trilu", [normal(2, 3, 3)], {"upper": 0}),
    Row("GatherND", [normal(2, 3), np.array([[0, 1], [1, 2]])]),
    Row("ExpandDims", [normal(2, 3), np.array(-1, np.int32)]),
    Row("GridSample", [normal(1, 2, 3, 3), uniform(-0.9, 0.9, 1, 2, 2, 2)], {"align_corners": 1}),
    Row("GridSample", [normal(1, 2, 4, 4), uniform(-0.9, 0.9, 1, 2, 2, 2)], {"mode": "bicubic"}, opset=20),
    Row(
        "SkipLayerNormalization", [normal(2, 3, 4), normal(2, 3, 4), normal(4), normal(4), normal(4)], {"epsilon": 1e-5}
    ),
    Row("SkipLayerNormalization", [normal(2, 3, 4), normal(1, 3, 4), normal(4), normal(4)]),
    Row("SkipLayerNormalization", [normal(2, 3, 4), normal(3, 4), normal(4)], outputs=4, skip=(1, 2)),
    Row(
        "SkipSimplifiedLayerNormalization",
        [normal(2, 3, 4), normal(2, 3, 4), normal(4), normal(4)],
        outputs=4,
        skip=(1, 2),
    ),
    Row("LayerNormalization", [normal(2, 3, 4), normal(3, 4), normal(3, 4)], {"axis": 1}, domain="", opset=12),
    Row("LayerNormalization", [normal(2, 3, 4), normal(4)], {"axis": -1}, domain="", opset=13, outputs=3),
    Row("SimplifiedLayerNormalization", [normal(2, 3, 4), normal(4)], {"axis": -1}, domain="", outputs=1),
    Row("SimplifiedLayerNormalization", [normal(2, 3, 4), normal(3, 4)], {"axis": 1}, domain="", opset=12, outputs=2),
    Row(
        "GroupNorm",
        [normal(1, 3, 3, 4), normal(4), normal(4)],
        {"groups": 2, "activation": 1},
        reference=group_norm(2, last=True, activation=1),
    ),
    Row(
        "GroupNorm",
        [normal(2, 4, 2, 2), normal(4), normal(4)],
        {"groups": 2, "activation": 0, "channels_last": 0},
        reference=group_norm(2, last=False),
    ),
    Row(
        "SkipGroupNorm",
        [normal(1, 2, 2, 4), normal(4), normal(4), normal(1, 4), normal(4)],
        {"groups": 2, "activation": 0},
        outputs=2,
        reference=group_norm(2, last=True),
    ),
    Row(
        "SkipGroupNorm",
        [normal(1, 4, 2, 2), normal(4), normal(4), normal(1, 4, 2, 2), normal(4)],
        {"groups": 2, "activation": 0, "channels_last": 0},
        outputs=2,
        reference=group_norm(2, last=False),
    ),
    Row("ImageScaler", [normal(1, 3, 2, 2)], {"scale": 0.5, "bias": [1.0, 2.0, 3.0]}, domain="", opset=9),
    Row("Affine", [normal(2, 3)], {"alpha": 2.0, "beta": 0.5}, domain="", opset=9),
    Row("Scale", [normal(2, 3)], {"scale": 0.5}, domain="", opset=9),
    Row("ScaledTanh", [normal(2, 3)], {"alpha": 2.0, "beta": 0.5}, domain="", opset=9),
    Row("ParametricSoftplus", [normal(2, 3)], {"alpha": 2.0, "beta": 0.5}, domain="", opset=9),
    Row("MultiHeadAttention", [normal(2, 3, 4), normal(2, 5, 4), normal(2, 5, 6)], {"num_heads": 2}),
    Row(
        "MultiHeadAttention",
        [normal(2, 3, 4), normal(2, 3, 4), normal(2, 3, 4), normal(12)],
        {"num_heads": 2, "scale": 0.5},
    ),
    Row(
        "MultiHeadAttention",
        [normal(1, 3, 2, 3, 2)],
        {"num_heads": 2},
        reference=lambda x: (attend(x[:, :, :, 0], x[:, :, :, 1], x[:, :, :, 2]),),
    ),
    Row(
        "MultiHeadAttention",
        [normal(1, 3, 4), normal(1, 2, 2, 2, 2)],
        {"num_heads": 2},
        reference=lambda q, kv: (attend(q.reshape(1, 3, 2, 2), kv[:, :, :, 0], kv[:, :, :, 1]),),
    ),
    Row("MultiHeadAttention", [normal(1, 3, 4), normal(1, 2, 5, 2), normal(1, 2, 5, 2)], {"num_heads": 2}),
    Row(
        "MultiHeadAttention",
        [normal(2, 3, 4), normal(2, 4, 4), normal(2, 4, 4), None, mask_2d, normal(1, 2, 3, 4)],
        {"num_heads": 2},
    ),
    Row(
        "MultiHeadAttention", [normal(1, 4, 4), normal(1, 4, 4), normal(1, 4, 4)], {"num_heads": 2, "unidirectional": 1}
    ),
    Row(
        "MultiHeadAttention",
        [normal(1, 2, 4), normal(1, 2, 4), normal(1, 2, 4), None, None, None, normal(1, 2, 3, 2), normal(1, 2, 3, 2)],
        {"num_heads": 2, "unidirectional": 1},
        outputs=3,
    ),
    Row("Attention", [normal(2, 3, 4), normal(4, 12), normal(12)], {"num_heads": 2}, constants=[1, 2]),
    Row(
        "Attention",
        [normal(2, 4, 4), normal(4, 10), normal(10), mask_2d],
        {"num_heads": 2, "qkv_hidden_sizes": [4, 4, 2]},
        constants=[1, 2],
    ),
    Row(
        "Attention",
        [normal(2, 4, 4), normal(4, 12), normal(12), np.array([3, 2], np.int32)],
        {"num_heads": 2},
        constants=[1, 2],
    ),
    Row(
        "Attention",
        [normal(1, 3, 4), normal(4, 12), normal(12)],
        {"num_heads": 2, "unidirectional": 1, "scale": 0.3},
        constants=[1, 2],
    ),
    Row(
        "Attention",
        [normal(2, 3, 4), normal(4, 12), normal(12), None, normal(2, 2, 2, 2, 2)],
        {"num_heads": 2, "unidirectional": 1},
        outputs=2,
        constants=[1, 2],
    ),
    Row(
        "Attention",
        [normal(2, 3, 4), normal(4, 12), normal(12), None, None, normal(1, 2, 3, 3)],
        {"num_heads": 2},
        constants=[1, 2],
    ),
]


def rewritten_gelu(x: Array) -> Array:
    from scipy.special import erf

    return x / 2 * (1 + erf(x / np.sqrt(2)))


def fast_gelu(x: Array) -> Array:
    return x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_rewritten_as_its_kernel_computes(row: Row) -> None:
    model, feeds = single(row)
    run = rewritten(model)
    actual = run(feeds)
    if row.reference is None:
        expected = run_kernel(model, feeds)
    else:
        outputs = row.reference(*(None if x is None else x for x in row.inputs))
        expected = {f"y{i}": y for i, y in enumerate(outputs)}
    assert actual.keys() == expected.keys()
    for name, y in expected.items():
        close(actual[name], y, 2e-6 if row.reference is None else 1e-7, f"forward output {name}")
    check_model(model, feeds, list(feeds), forward=run)


def test_layouts_of_one_machine_are_refused() -> None:
    node = helper.make_node("ReorderOutput", ["x"], ["y"], domain="com.microsoft.nchwc", name="node", channels=8)
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 8, 2, 2]) for n in "xy")
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft.nchwc", 1)]
    model = helper.make_model(helper.make_graph([node], "g", [x], [y]), opset_imports=imports)
    with pytest.raises(UnsupportedOperatorError, match="ORT_ENABLE_EXTENDED"):
        vector_jacobian(ir.from_proto(model), ["x"])


def test_an_unknown_fused_activation_is_refused() -> None:
    model, _ = single(Row("FusedConv", [normal(1, 2, 4, 4), normal(3, 2, 1, 1)], {"activation": "Wave"}))
    with pytest.raises(UnsupportedOperatorError, match="Wave"):
        vector_jacobian(model, ["x0"])
