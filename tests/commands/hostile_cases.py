"""Hostile models by name, each with the text that its error message must contain."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from tests.support import hostile, hostile_data, hostile_graphs, hostile_parts, models
from tests.support.hostile import bomb, declares
from tests.support.hostile_data import external
from tests.support.hostile_parts import HUGE, attribute, changed, ints, through, times

Made = onnx.ModelProto | bytes | Path
Case = tuple[Callable[[Path], Made], tuple[str, ...]]


def of(build: Callable[..., Made], *arguments: Any, says: str | tuple[str, ...], **options: Any) -> Case:
    """A model that needs no folder to be built."""
    return (lambda folder: build(*arguments, **options)), (says,) if isinstance(says, str) else says


def at(says: str | tuple[str, ...], build: Callable[..., Made] = external, **entries: str | None) -> Case:
    """A model with external data."""
    return (lambda folder: build(folder, **entries)), (says,) if isinstance(says, str) else says


def op(name: str, *inputs: np.ndarray, says: str | tuple[str, ...], opset: int = 17, **attributes: Any) -> Case:
    """A node between the image and the rest of the network."""
    return of(
        through,
        lambda net, x: net(
            name, x, *(net.constant(array) if array is not None else "" for array in inputs), **attributes
        ),
        opset=opset,
        says=says,
    )


OUTSIDE = "outside the model's folder"
DAMAGED = "the file is damaged or was made to do harm"
LARGE = "would make a tensor of shape"
MISFIT = "does not fit its inputs"
LOOP = "a loop is too long: "
ONE = np.ones(1, np.float32)

CASES: dict[str, Case] = {
    # external data
    "absolute": at(("'/etc/passwd'", OUTSIDE), location="/etc/passwd"),
    "parent": at(("'../secret.bin'", OUTSIDE), location="../secret.bin"),
    "parent of a folder": at(OUTSIDE, location="a/../../secret.bin"),
    "backslash": at(OUTSIDE, location="..\\secret.bin"),
    "drive": at(OUTSIDE, location="C:\\secret.bin"),
    "URL": at(OUTSIDE, location="file:///etc/passwd"),
    "link": at(("'link.data'", OUTSIDE), hostile_data.linked_file),
    "link to a folder": at(("'sub/secret.bin'", OUTSIDE), hostile_data.linked_folder),
    "link to a device": at(("'zero'", OUTSIDE), hostile_data.linked_device),
    "pipe": at("'pipe' is not a regular file", hostile_data.pipe),
    "folder": at("'data' is not a regular file", hostile_data.data_folder),
    "location empty": at(OUTSIDE, location=""),
    "location missing": at(OUTSIDE, location=None),
    "location with NUL": at(("net\\x00.data", OUTSIDE), location="net\0.data"),
    "offset negative": at(("needs 648 bytes", "at -8", DAMAGED), offset="-8"),
    "offset huge": at("too short for tensor 'constant_0'", offset=str(1 << 62)),
    "offset too huge": at("needs 648 bytes", offset=str(1 << 70)),
    "offset text": at("at abc", offset="abc"),
    "length negative": at("said to be -1", length="-1"),
    "length short": at("said to be 3 at", length="3"),
    "in a constant": at(("'../secret.bin'", OUTSIDE), hostile_data.external_constant),
    "in a branch": at(("'/etc/hostname'", OUTSIDE), hostile_data.external_in_branch),
    "in a function": at(("'../secret.bin'", OUTSIDE), hostile_data.external_in_function),
    "texts outside": at("needs 1099511627776 texts", hostile_data.external_texts),
    # declared sizes
    "2^60 elements": of(changed, declares(HUGE), says=("4611686018427387904 bytes", "holds 0", DAMAGED)),
    "size that overflows": of(changed, declares(1 << 32, 1 << 32), says="declares the shape [4294967296, 4294967296]"),
    "size negative": of(changed, declares(-1, 3, 3, 3), says="declares the shape [-1, 3, 3, 3]"),
    "1000 axes": of(changed, declares(*[1] * 1000, data=b"1234"), says="declares the shape [1, 1,"),
    "bytes too few": of(changed, declares(6, 3, 3, 3, data=b"1234"), says="needs 648 bytes, the file holds 4"),
    "bytes too many": of(changed, declares(1, data=b"x" * 4000), says="needs 4 bytes, the file holds 4000"),
    "numbers too few": of(changed, hostile.few_numbers, says="needs 162 numbers, the file holds 1"),
    "texts too few": of(hostile.texts, says="needs 1125899906842624 texts, the file holds 0"),
    "type none": of(changed, declares(1, data=b"1234", kind=0), says="of no known type (0)"),
    "type unknown": of(changed, declares(1, data=b"1234", kind=99), says="of no known type (99)"),
    "sparse weights": of(
        changed, hostile.sparse_weights, says=("sparse weights 'constant_0'", "without sparse initializers")
    ),
    "sparse constant": of(hostile.sparse_constant, says=("sparse weights 'values'", "without sparse")),
    "constant of nothing": of(times, lambda net: net("Constant", out="c"), says=("node '/c'", "must be specified")),
    "constant of two": of(
        times,
        lambda net: net("Constant", out="c", value_float=1.0, value_int=2),
        says=("node '/c'", "must be specified"),
    ),
    # small constants that make large tensors
    "ConstantOfShape": of(bomb, "ConstantOfShape", ints(HUGE), says=LARGE),
    "ConstantOfShape of three": of(bomb, "ConstantOfShape", ints(1 << 20, 1 << 20, 1 << 20), says=LARGE),
    "ConstantOfShape negative": of(bomb, "ConstantOfShape", ints(-5), says=MISFIT),
    "Expand": of(bomb, "Expand", ONE, ints(1 << 30, 1 << 30), says=LARGE),
    "Range": of(bomb, "Range", *map(np.array, (0, HUGE, 1)), says=LARGE),
    "Range by nothing": of(bomb, "Range", *map(np.array, (0, 5, 0)), says="division by zero"),
    "Range to infinity": of(bomb, "Range", *map(np.array, (np.nan, np.inf, 1.0)), says="cannot compute length"),
    "Tile": of(bomb, "Tile", ONE, ints(HUGE), says=LARGE),
    "Tile negative": of(bomb, "Tile", ONE, ints(-3), says=MISFIT),
    "Pad": of(hostile.pad_bomb, says=LARGE),
    "Resize": of(hostile.resize_bomb, says=LARGE),
    "OneHot": of(bomb, "OneHot", ints(1), ints(1 << 50), np.array([0, 1], np.float32), says=LARGE),
    "Einsum": of(bomb, "Einsum", *[np.ones(5000)] * 4, equation="a,b,c,d->abcd", says=LARGE),
    "Einsum of too few": of(bomb, "Einsum", np.ones(3), equation="a,b->", says=MISFIT),
    "HannWindow": of(bomb, "HannWindow", np.array(1 << 50), says=LARGE),
    "RandomNormal": of(bomb, "RandomNormal", shape=[1 << 40, 1 << 10], says=LARGE),
    "growing": of(hostile.folded_twice, says=LARGE),
    "classes": of(hostile.wide_head, says=(LARGE, "35184372088832")),
    # the image
    "image huge": of(changed, hostile.image_of(1, 3, 1 << 31, 1 << 31), says="is of shape [1, 3, 2147483648"),
    "image negative": of(changed, hostile.image_of(1, 3, -8, 8), says="declared to be of shape [1, 3, -8, 8]"),
    "batch huge": of(changed, hostile.image_of(1 << 40, 3, 8, 8), says="is of shape [1099511627776"),
    # depth
    "laughs": of(hostile_graphs.laughs, 40, says="nodes with its functions and loops written out"),
    "laughs of nothing": of(hostile_graphs.silent_laughs, 40, says="nodes with its functions and loops written out"),
    "loops in loops": of(hostile_graphs.nested_loops, 5, 60, says="nodes with its functions and loops written out"),
    "loop of 2^62 trips": of(hostile_graphs.endless, False, says=(LOOP, f"runs {1 << 62} times for every image")),
    "loop without end": of(hostile_graphs.endless, True, says=(LOOP, "more than 100000 times for every image")),
    "loop of trips multiplied": of(hostile_graphs.multiplied_trips, says=(LOOP, f"{1 << 50} times for every image")),
    "loop that counts": of(
        hostile_graphs.counting, 1 << 40, state=False, says=(LOOP, "more than 100000 times for every image")
    ),
    "loop that counts a state": of(
        hostile_graphs.counting, 1 << 40, state=True, says=(LOOP, "more than 100000 times for every image")
    ),
    "scan of a long constant": of(hostile_graphs.long_scan, 1 << 22, says=(LOOP, f"{1 << 22} times for every image")),
    "branches in branches": of(hostile_graphs.nested_branches, 10, says="nested more than 8 deep"),
    "too deep to be read": of(hostile_graphs.nested_deeply, 3000, says="not an ONNX model, or a damaged one"),
    "recursive": of(hostile.recursive, says="function f calls itself"),
    "recursive in turn": of(hostile.mutually_recursive, says="calls itself"),
    "function without its output": of(hostile.unfinished_function, says="nothing computes the output 'y' of function"),
    "function twice": of(hostile.same_function, says="function 'f' is defined twice"),
    "function in a circle": of(hostile.cyclic_function, says="the graph has a cycle"),
    "function of too many": of(hostile.crowded_function, says="function f has 1 inputs, 3 given"),
    "If of nothing": of(hostile.no_branches, says=("node '/if_0'", "branch' is missing")),
    "Loop of nothing": of(hostile.no_body, says=("node '/loop_0'", "'body' is missing")),
    # names
    "computed twice": of(changed, hostile.twice_computed, says="'conv_0' is computed or declared twice"),
    "reads itself": of(changed, hostile.own_input, says="the graph has a cycle"),
    "cycle": of(changed, hostile.cycle, says="the graph has a cycle"),
    "input computed": of(changed, hostile.overwritten_input, says="'image' is computed or declared twice"),
    "initializer twice": of(changed, hostile.same_initializer, says="'constant_0' is given twice"),
    "input twice": of(changed, hostile.same_input, says="'image' is computed or declared twice"),
    "initializer without name": of(changed, hostile.nameless_initializer, says="an initializer has no name"),
    "input without name": of(changed, hostile.nameless_input, says="an input or output has no name"),
    "value without name": of(changed, hostile.nameless_output, says=("node '/relu_1'", MISFIT)),
    "output of nothing": of(changed, hostile.missing_output, says="nothing computes the output 'nothing'"),
    "output of a constant": of(changed, hostile.constant_output, says="is an input or a constant, which nothing"),
    "input without type": of(changed, hostile.typeless_input, says="no input looks like an image"),
    "input of sequences": of(changed, hostile.sequence_input, says="seq(tensor(float))"),
    "dangerous names": of(changed, hostile.dangerous_names, says=("'relu\\n\\x1b[2J", "'x\\x1b]0;title\\x07'")),
    "endless name": of(changed, hostile.endless_name, says=("nnn ... nnn", "'nowhere', which nothing computes")),
    "opset twice": of(changed, hostile.twice_imported, says="domain '' is imported twice"),
    "opset negative": of(changed, hostile.opset(-1), says="no opset -1"),
    "opset huge": of(changed, hostile.opset(1 << 62), says="no opset 4611686018427387904"),
    "operator without name": of(changed, hostile.no_operator, says="does not exist in opset 17"),
    "UTF-8: node": of(lambda: hostile_parts.bad_utf8(models.conv_net(), b"/conv_0"), says="not UTF-8"),
    "UTF-8: operator": of(lambda: hostile_parts.bad_utf8(models.conv_net(), b"GlobalAveragePool"), says="not UTF-8"),
    "UTF-8: value": of(lambda: hostile_parts.bad_utf8(models.conv_net(), b"image"), says="not UTF-8"),
    "UTF-8: producer": of(lambda: hostile_parts.bad_utf8(models.conv_net(), b"tests"), says="not UTF-8"),
    "UTF-8: attribute": of(lambda: hostile_parts.bad_utf8(models.conv_net(), b"strides"), says="not UTF-8"),
    "UTF-8: metadata": of(
        lambda: hostile_parts.bad_utf8(models.conv_net(metadata={"key": "somewhat"}), b"somewhat"), says="not UTF-8"
    ),
    # inputs and attributes
    "inputs missing": of(changed, hostile.no_inputs, says=("node '/conv_0'", "input size 0")),
    "inputs too many": of(changed, hostile.many_inputs, says="input size 51"),
    "outputs too many": of(changed, hostile.many_outputs, says="output size 51"),
    "input left out": of(changed, hostile.only_optional, says="input size 0"),
    "strides 0": of(attribute, "Conv", "strides", [0, 0], says="strides must only contain positive values"),
    "strides negative": of(attribute, "Conv", "strides", [-1, -1], says="strides must only contain positive values"),
    "strides huge": of(attribute, "Conv", "strides", [1 << 62, 1 << 62], says="a window of [2, 2]"),
    "dilations huge": of(attribute, "Conv", "dilations", [1 << 62] * 2, says="Integer overflow"),
    "pads huge": of(attribute, "Conv", "pads", [1 << 62] * 4, says="Integer overflow"),
    "pads too few": of(attribute, "Conv", "pads", [1], says="pads has incorrect size"),
    "group 0": of(attribute, "Conv", "group", 0, says="group is 0"),
    "group of another size": of(attribute, "Conv", "group", 7, says="[6, 3, 3, 3] in 7 groups"),
    "kernel of text": of(attribute, "Conv", "kernel_shape", "3x3", says=("node '/conv_0'", MISFIT)),
    "kernel of another size": of(attribute, "Conv", "kernel_shape", [5, 5], says="kernel_shape [5, 5]"),
    "kernel larger than the image": of(
        attribute, "MaxPool", "kernel_shape", [1000] * 2, says="a window of [1000, 1000]"
    ),
    "kernel 0": of(attribute, "MaxPool", "kernel_shape", [0, 0], says="kernel_shape must only contain positive values"),
    "auto_pad": of(attribute, "Conv", "auto_pad", "SIDEWAYS", says="auto_pad is 'SIDEWAYS'"),
    "axis that reads beyond memory": op(
        "LayerNormalization", np.ones(8), axis=(1 << 63) - 1, says="axis is 9223372036854775807"
    ),
    "indices of negative size": of(hostile.scattered_by_less_than_nothing, says="'indices' is declared to be of shape"),
    "axis": of(attribute, "Flatten", "axis", 99, says="axis is 99"),
    "infinite factor": of(attribute, "Gemm", "alpha", float("inf"), says="not finite"),
    "axes twice": op("Transpose", perm=[0, 0, 1, 1], says="repeated value"),
    "axes far": op("Transpose", perm=[0, 1, 2, 9], says=MISFIT),
    "Reshape to another size": op("Reshape", ints(1 << 40, -1), says=MISFIT),
    "Reshape negative": op("Reshape", ints(-2, 3, 8, 8), says="Invalid dimension value: -2"),
    "Split in none": op("Split", num_outputs=0, opset=18, says="num_outputs is 0, and it has 1"),
    "Split in fewer": of(
        through, hostile_graphs.split_in_fewer, opset=18, says=("'/split'", "num_outputs is 4, and it has 5")
    ),
    "Einsum of other letters": op("Einsum", equation="\u00e9", says="equation is"),
    "Scan of too many": of(
        hostile_graphs.scan_of, (1 << 63) - 1, says=("num_scan_inputs is 9223372036854775807", MISFIT)
    ),
    "infinite scale": of(through, hostile_graphs.infinite_scale, says="not finite"),
    "DepthToSpace of none": op("DepthToSpace", blocksize=0, says="Blocksize must be positive"),
    "Gather far": op("Gather", ints(99, 0, 1), axis=1, says=("node '/gather_0'", "out of bounds")),
    "Cast to no type": op("Cast", to=99, says="does not specify a valid type"),
    "Slice of unequal": op("Slice", ints(0, 0), ints(5), says=MISFIT),
    "Slice by 0": op("Slice", ints(0), ints(5), ints(0), ints(0), says="'step' cannot be 0"),
    "LRN of nothing": op("LRN", size=0, says="node '/lrn_0"),
    "GroupNormalization in none": op(
        "GroupNormalization", np.ones(3), np.ones(3), num_groups=0, opset=21, says="node '/groupnormalization_0"
    ),
    "ConvTranspose huge": op("ConvTranspose", np.ones((3, 3, 2, 2)), output_shape=[1 << 40, 1 << 40], says=LARGE),
    "Upsample backwards": op("Upsample", np.array([1, 1, -2.0, -2]), opset=9, says="[1, 3, -16, -16]"),
}
