"""Sums of 8-bit products: whether the runtime's are exact here, what is said of it, and that ours always are."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxgain.engine import integer_products
from onnxgain.engine.integer_products import integer_operators, integer_products_saturate
from onnxgain.engine.processor import about_the_processor
from onnxgain.engine.session import Session
from onnxgain.gradient.forward.transcribe import transcribe
from onnxgain.gradient.graphs import finished
from onnxgain.model.classifier import describe

Run = Callable[..., tuple[int, str, str]]
KINDS = ["QLinearConv", "QDQ", "MatMulInteger"]


def quantized(kind: str) -> onnx.ModelProto:
    """3x8x8 in 0..255 -> 10 logits, with the largest activations and weights that 8 bits hold."""
    rng = np.random.default_rng(0)
    signs = np.where(rng.random((10, 3, 8, 8)) < 0.9, 127, -90).astype(np.int8)
    constants: dict[str, Any] = {
        "one": np.float32(1), "zero": np.uint8(0), "w": signs, "ws": np.float32(0.01), "wz": np.int8(0),
        "ys": np.float32(40), "flat": np.array([1, -1]), "m": signs.reshape(10, -1).T.copy(),
    }  # fmt: skip
    node = helper.make_node
    nodes = [node("QuantizeLinear", ["image", "one", "zero"], ["q"])]
    if kind == "QLinearConv":
        nodes += [
            node("QLinearConv", ["q", "one", "zero", "w", "ws", "wz", "ys", "zero"], ["r"]),
            node("DequantizeLinear", ["r", "ys", "zero"], ["d"]),
        ]
    elif kind == "QDQ":
        nodes += [
            node("DequantizeLinear", ["q", "one", "zero"], ["x"]),
            node("DequantizeLinear", ["w", "ws", "wz"], ["v"]),
            node("Conv", ["x", "v"], ["c"]),
            node("QuantizeLinear", ["c", "ys", "zero"], ["r"]),
            node("DequantizeLinear", ["r", "ys", "zero"], ["d"]),
        ]
    else:
        nodes += [
            node("Reshape", ["q", "flat"], ["f"]),
            node("MatMulInteger", ["f", "m", "zero"], ["i"]),
            node("Cast", ["i"], ["c"], to=TensorProto.FLOAT),
            node("Mul", ["c", "ws"], ["d"]),
        ]
    nodes.append(node("Reshape", ["d", "flat"], ["logits"]))
    graph = helper.make_graph(
        nodes,
        "quantized",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 10])],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items() if any(k in n.input for n in nodes)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def exact(kind: str, image: np.ndarray) -> np.ndarray:
    """The logits in whole numbers."""
    weights = next(t for t in quantized(kind).graph.initializer if t.name in ("w", "m"))
    matrix = numpy_helper.to_array(weights).astype(np.int64)
    matrix = matrix if weights.name == "m" else matrix.reshape(10, -1).T
    total = (image.reshape(1, -1).astype(np.int64) @ matrix) * 0.01
    return total if kind == "MatMulInteger" else np.clip(np.rint(total / 40), 0, 255) * 40


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("brief", [True, False])
def test_our_graph_computes_them_exactly(kind: str, brief: bool) -> None:
    image = np.full((1, 3, 8, 8), 255, np.float32)
    session = Session(finished(transcribe(ir.from_proto(quantized(kind)), {}).graph), threads=1, brief=brief)
    np.testing.assert_allclose(session.run({"image": image})["logits"], exact(kind, image), rtol=1e-6)


def saturating(node: onnx.NodeProto, constants: dict[str, Any], x: np.ndarray, kind: int) -> np.ndarray:
    """What the probe gets where pairs of products saturate in 16 bits."""
    pairs = x.size // 2 if node.op_type == "MatMulInteger" else 32
    total = pairs * 32767
    return np.array([total if node.op_type == "MatMulInteger" else round(total / float(constants["ys"]))])


@pytest.fixture
def processor(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """A function that makes this machine's processor one that saturates, or one that does not."""

    def become(saturates: bool) -> None:
        exactly = lambda node, constants, x, kind: np.array([2072640 if "ys" not in constants else 200])
        monkeypatch.setattr(integer_products, "_run", saturating if saturates else exactly)
        integer_products_saturate.cache_clear()

    yield become
    integer_products_saturate.cache_clear()


@pytest.mark.parametrize("saturates", [True, False])
def test_the_doctor_says_it(saturates: bool, processor: Callable[[bool], None], run: Run) -> None:
    processor(saturates)
    assert integer_products_saturate() is saturates
    code, out, err = run("doctor")
    assert code == 0, err
    assert ("saturate on this processor" in out) is saturates
    assert json.loads(run("doctor", "--format", "json")[1])["integer_products_saturate"] is saturates


@pytest.mark.parametrize("kind", KINDS)
def test_a_score_says_that_the_answer_depends_on_the_processor(kind: str) -> None:
    (sentence,) = about_the_processor(describe(ir.from_proto(quantized(kind))).assumptions)
    assert ("Conv" if kind == "QDQ" else kind) in sentence


def test_weights_alone_in_8_bits_depend_on_nothing() -> None:
    proto = quantized("QDQ")
    first = next(node for node in proto.graph.node if node.output[0] == "v")
    conv = next(node for node in proto.graph.node if node.op_type == "Conv")
    conv.input[0] = "image"
    assert first.op_type == "DequantizeLinear"
    assert integer_operators(ir.from_proto(proto).graph.all_nodes()) == ()


def test_gate_and_diff_say_it(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "quantized.onnx"
    onnx.save(quantized("MatMulInteger"), path)
    scale = ("--preprocess", "raw")
    assert run("score", path, *scale, "--format", "json", "-o", tmp_path / "baseline.json")[0] == 0
    code, out, err = run("gate", path, *scale, "--baseline", tmp_path / "baseline.json")
    assert code == 0, out + err
    assert "saturate on x86 processors" not in " ".join((out + err).split()), "the baseline says it of the same file"
    other = quantized("MatMulInteger")
    other.producer_name = "another"
    onnx.save(other, tmp_path / "other.onnx")
    code, out, err = run("diff", path, tmp_path / "other.onnx", *scale)
    assert "saturate on x86 processors" in " ".join((out + err).split()), out + err


def test_a_gate_does_not_repeat_it_of_a_file_that_the_baseline_holds(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    onnx.save(quantized("QDQ"), "net.onnx")
    again = ("gate", "net.onnx", "--baseline", "gain.json", "--no-fingerprint", "--max-change", "1")
    new = ("gate", "net.onnx", "--baseline", "gain.json", "--update-baseline")
    assert "without VNNI" in run(*new)[1], "the model is new"
    for form in ("table", "markdown", "github"):
        code, out, err = run(*again, "--format", form)
        assert code == 0, out + err
        assert "VNNI" not in out
    assert "without VNNI" in run(*again, "--format", "json")[1]
    proto = quantized("QDQ")
    proto.doc_string = "other bytes"
    onnx.save(proto, "net.onnx")
    assert "without VNNI" in run(*again)[1], "the model has changed"
