"""Files written weight by weight equal those that protobuf writes at once, and need little memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxgain.model.write_model import write_model


def classifier(width: int) -> onnx.ModelProto:
    """3x16x16 -> two convolutions with ``width`` channels -> 10 logits; weights of 36 width**2 bytes."""
    rng = np.random.default_rng(0)
    shapes = {"a": (width, 3, 3, 3), "b": (width, width, 3, 3), "c": (width, 10)}
    weights = {name: rng.standard_normal(shape, np.float32) * 0.02 for name, shape in shapes.items()}
    nodes = [
        helper.make_node("Conv", ["x", "a"], ["h"], pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["h", "b"], ["i"]),
        helper.make_node("GlobalAveragePool", ["i"], ["j"]),
        helper.make_node("Flatten", ["j"], ["k"]),
        helper.make_node("MatMul", ["k", "c"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 16, 16])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 10])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int64, np.bool_])
def test_bytes_equal_those_of_protobuf(dtype: type, tmp_path: Path) -> None:
    proto = classifier(40)
    proto.metadata_props.add(key="note", value="kept")
    extra = numpy_helper.from_array(np.arange(5000).astype(dtype), "extra")
    proto.graph.initializer.append(extra)
    model = ir.from_proto(proto)
    assert write_model(model, tmp_path / "m.onnx") == [str(tmp_path / "m.onnx")]
    assert (tmp_path / "m.onnx").read_bytes() == ir.to_proto(model).SerializeToString()
    (back,) = [t for t in onnx.load(tmp_path / "m.onnx").graph.initializer if t.name == "extra"]
    np.testing.assert_array_equal(numpy_helper.to_array(back), numpy_helper.to_array(extra))


def test_external_weights_are_written_too(tmp_path: Path) -> None:
    proto = classifier(40)
    onnx.save(proto, tmp_path / "own.onnx", save_as_external_data=True, location="own.data", size_threshold=0)
    write_model(ir.load(tmp_path / "own.onnx"), tmp_path / "whole.onnx")
    written = onnx.load(tmp_path / "whole.onnx", load_external_data=False)
    assert not any(tensor.external_data for tensor in written.graph.initializer)
    for tensor, original in zip(written.graph.initializer, classifier(40).graph.initializer, strict=True):
        np.testing.assert_array_equal(numpy_helper.to_array(tensor), numpy_helper.to_array(original))


def test_a_model_that_the_checker_refuses_is_not_written(tmp_path: Path) -> None:
    model = ir.from_proto(classifier(40))
    model.graph.outputs[0].shape = ir.Shape([1, 11])
    with pytest.raises(Exception, match="not valid ONNX"):
        write_model(model, tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


PROGRAM = """
import resource, sys
from onnxgain.commands.cli import main
import onnx, onnx_ir  # what every model needs
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    main(sys.argv[1:])
except SystemExit as stop:
    print(stop.code, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read as Linux gives it")
def test_a_gradient_graph_takes_little_more_memory_than_its_model(tmp_path: Path) -> None:
    """Memory holds the file and then the model parsed from it, and hardly anything else."""
    path = tmp_path / "m.onnx"
    onnx.save(classifier(1080), path)
    megabytes = path.stat().st_size >> 20
    command = [sys.executable, "-c", PROGRAM, "gradient", str(path), "-o", str(tmp_path / "g.onnx")]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    code, taken = map(int, done.stdout.split()[-2:])
    assert code == 0
    assert taken < 2.6 * megabytes + 20, f"{taken} MB for a model of {megabytes} MB"
