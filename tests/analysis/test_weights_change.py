"""The description of what changed between the weights of two models."""

from __future__ import annotations

import dataclasses
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper

from onnxgain.analysis.weights_change import weights_change
from onnxgain.measure import weights as weights_module
from onnxgain.measure.weights import weights_of
from onnxgain.measure.weights_record import WeightsRecord
from onnxgain.model.classifier import describe
from tests.support import models


def record(model: onnx.ModelProto) -> WeightsRecord:
    found = weights_of(describe(ir.from_proto(model)))
    assert found is not None
    return found


def edited(edit: Any, *, axes: int = 2) -> onnx.ModelProto:
    """A small network with `edit` applied to every tensor of at least so many axes."""
    model = models.conv_net()
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) >= axes:
            array = numpy_helper.to_array(tensor)
            tensor.CopyFrom(numpy_helper.from_array(np.asarray(edit(array), array.dtype), tensor.name))
    return model


BASE = record(models.conv_net())
LAYERS = len(BASE.names)


def test_equal_weights() -> None:
    assert LAYERS == 3
    assert weights_change(BASE, record(models.conv_net())) == ["the weights are the same"]


def test_all_weights_changed() -> None:
    assert weights_change(BASE, record(edited(lambda a: a * 1.01))) == [f"weights of all {LAYERS} layers changed"]


def rounded_to(kind: type) -> onnx.ModelProto:
    return edited(lambda a: a.astype(kind).astype(np.float32))


@pytest.mark.parametrize("kind", [np.float16, ml_dtypes.bfloat16])
def test_rounding_to_a_narrower_type_is_told_from_a_change(kind: type) -> None:
    rounded = record(rounded_to(kind))
    name = np.dtype(kind).name
    assert weights_change(BASE, rounded) == [f"weights of all {LAYERS} layers equal except for rounding to {name}"]
    assert weights_change(rounded, BASE) == weights_change(BASE, rounded)
    older = dataclasses.replace(rounded, float16="", bfloat16="")
    assert weights_change(BASE, older) == [f"weights of all {LAYERS} layers changed"]


def test_a_change_besides_rounding_is_a_change() -> None:
    model = rounded_to(np.float16)
    tensor = next(t for t in model.graph.initializer if t.name == BASE.names[1])
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(1.01), tensor.name))
    assert weights_change(BASE, record(model)) == [f"weights of all {LAYERS} layers changed"]


def test_weights_stored_in_a_narrower_type() -> None:
    model = models.conv_net()
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) >= 2:
            array = numpy_helper.to_array(tensor).astype(np.float16)
            name = tensor.name
            tensor.CopyFrom(numpy_helper.from_array(array, f"{name}.half"))
            model.graph.node.insert(0, onnx.helper.make_node("Cast", [f"{name}.half"], [name], to=1))
    expected = [
        f"weights of all {LAYERS} layers equal except for rounding to float16",
        "stored as float16 instead of float32",
    ]
    assert weights_change(BASE, record(model)) == expected


def test_one_layer_is_named() -> None:
    model = models.conv_net()
    tensor = next(t for t in model.graph.initializer if t.name == BASE.names[1])
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) + np.float32(1), tensor.name))
    assert weights_change(BASE, record(model)) == [f"weights of 1 of {LAYERS} layers changed ({BASE.names[1]})"]


def test_sparsity() -> None:
    def prune(array: np.ndarray) -> np.ndarray:
        return np.where(np.abs(array) < np.quantile(np.abs(array), 0.3), 0, array)

    changed = weights_change(BASE, record(edited(prune)))
    assert changed == [f"weights of all {LAYERS} layers changed", "sparsity 0 % -> 30 %"]


def test_renamed_weights_are_matched() -> None:
    model = models.conv_net()
    for tensor in model.graph.initializer:
        for node in model.graph.node:
            node.input[:] = [f"new_{name}" if name == tensor.name else name for name in node.input]
        tensor.name = f"new_{tensor.name}"
    assert weights_change(BASE, record(model)) == ["the weights are the same"]


def test_only_biases_changed() -> None:
    model = models.conv_net()
    found = [t for t in model.graph.initializer if len(t.dims) == 1 and t.data_type == onnx.TensorProto.FLOAT]
    found[0].CopyFrom(numpy_helper.from_array(numpy_helper.to_array(found[0]) + np.float32(1), found[0].name))
    assert weights_change(BASE, record(model)) == ["only biases, statistics or scales changed, not the weights"]


def test_other_types_and_fewer_layers() -> None:
    after = WeightsRecord(("a", "b"), ("int8", "int8"), (5, 5), (0, 0), ("1", "2"), "0")
    before = WeightsRecord(("x", "y", "z"), ("float",) * 3, (5, 6, 7), (0, 0, 0), ("3", "4", "5"), "0")
    assert weights_change(before, after) == [
        "3 layers with weights before, 2 now",
        "stored as int8 instead of float32",
    ]


def test_layers_of_other_names_and_values_are_paired_in_order() -> None:
    before = WeightsRecord(("x", "y"), ("float",) * 2, (5, 6), (0, 0), ("3", "4"), "0")
    after = WeightsRecord(("a", "b"), ("int8", "int8"), (5, 6), (0, 0), ("1", "2"), "0")
    assert weights_change(before, after) == [
        "weights of all 2 layers changed",
        "stored as int8 instead of float32",
    ]


def test_unknown_weights_give_no_clause() -> None:
    assert weights_change(None, BASE) == weights_change(BASE, None) == []


def test_weights_that_are_too_large_to_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights_module, "LARGEST", 10)
    assert weights_of(describe(ir.from_proto(models.conv_net()))) is None


@pytest.mark.parametrize("damage", [{"sizes": (1,)}, {"zeros": (-1, 0)}, {"checksums": ()}])
def test_damaged_records_are_refused(damage: dict[str, Any]) -> None:
    whole: dict[str, Any] = {"names": ("a", "b"), "types": ("float",) * 2, "sizes": (1, 1), "zeros": (0, 0)}
    with pytest.raises(ValueError, match="do not fit together"):
        WeightsRecord(**(whole | {"checksums": ("1", "2"), "rest": "0"} | damage))
