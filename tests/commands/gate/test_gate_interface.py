"""A file that other programs cannot run as before is named, also where its function is the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import helper

from tests.support.gate_models import MODELS


def renamed_input(model: onnx.ModelProto) -> None:
    image = model.graph.input[0]
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            if name == image.name:
                node.input[index] = "picture"
    image.name = "picture"


def rows_first(model: onnx.ModelProto) -> None:
    image = model.graph.input[0]
    batch, *sizes = [d.dim_value or d.dim_param for d in image.type.tensor_type.shape.dim]
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            if name == image.name:
                node.input[index] = "moved"
    model.graph.node.insert(0, helper.make_node("Transpose", [image.name], ["moved"], perm=[0, 3, 1, 2]))
    image.CopyFrom(helper.make_tensor_value_info(image.name, 1, [batch, *sizes[1:], sizes[0]]))


def renamed_output(model: onnx.ModelProto) -> None:
    output = model.graph.output[0]
    model.graph.node.append(helper.make_node("Identity", [output.name], ["answer"]))
    output.name = "answer"


def with_logarithm(model: onnx.ModelProto) -> None:
    output = model.graph.output[0]
    model.graph.node.append(helper.make_node("LogSoftmax", [output.name], ["log"], axis=1))
    output.name = "log"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (renamed_input, "-> 'picture'"),
        (rows_first, "input NCHW float -> NHWC float"),
        (renamed_output, "-> 'answer'"),
        (with_logarithm, "output logits -> log-softmax"),
    ],
)
def test_a_changed_interface_is_named(run: Any, folder: Path, change: Callable[..., None], words: str) -> None:
    run("a.onnx", "--baseline", "own.json", "--update-baseline", "--fingerprint")
    model = onnx.load("a.onnx")
    change(model)
    onnx.save(model, "a.onnx")
    code, out, _ = run("a.onnx", "--baseline", "own.json")
    assert (code, out.startswith("SAME FUNCTION a.onnx")) == (0, True)
    assert words in out


def with_three_outputs(model: onnx.ModelProto) -> None:
    image, scores = model.graph.input[0].name, model.graph.output[0].name
    model.graph.node.append(helper.make_node("ReduceMean", [image], ["brightness"], axes=[2, 3], keepdims=0))
    model.graph.node.append(helper.make_node("ArgMax", [scores], ["label"], axis=1, keepdims=0))
    model.graph.output.append(helper.make_tensor_value_info("brightness", 1, None))
    model.graph.output.append(helper.make_tensor_value_info("label", 7, None))


@pytest.mark.parametrize(
    ("order", "code", "words"),
    [
        ((0, 1, 2), 0, ""),
        ((0, 2, 1), 0, "the outputs are in another order: "),
        ((1, 0, 2), 1, "the first output is what 'brightness' was, instead of "),
        ((2, 1, 0), 1, "the first output is what 'label' was, instead of "),
    ],
)
def test_outputs_in_another_order(run: Any, folder: Path, order: tuple[int, ...], code: int, words: str) -> None:
    model = MODELS["a.onnx"]()  # other tests change the file
    with_three_outputs(model)
    onnx.save(model, "three.onnx")
    run("three.onnx", "--baseline", "three.json", "--update-baseline", "--fingerprint")
    outputs = [onnx.ValueInfoProto.FromString(model.graph.output[i].SerializeToString()) for i in order]
    del model.graph.output[:]
    model.graph.output.extend(outputs)
    onnx.save(model, "three.onnx")
    found, out, _ = run("three.onnx", "--baseline", "three.json")
    assert found == code
    assert words in out
    assert ("order" in out or "first output" in out) == bool(words)


def test_the_same_interface_is_not_mentioned(run: Any, folder: Path) -> None:
    run("a.onnx", "--baseline", "own.json", "--update-baseline", "--fingerprint")
    _, out, _ = run("a.onnx", "--baseline", "own.json")
    assert "input " not in out.replace("input scale", "")
    assert "output " not in out
