"""Models with external data in forbidden places."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from tests.support import models
from tests.support.hostile_parts import (
    function,
    raw,
    tensor,
    through,
    used,
    with_functions,
    written,
)


def external(folder: Path, **entries: str | None) -> Path:
    """A classifier with its first weights in an external file and some of the entries about them changed."""
    path = folder / "net.onnx"
    options = {"save_as_external_data": True, "size_threshold": 0, "location": "net.data"}
    models.save(models.conv_net(), path, **options)
    model = onnx.load(path, load_external_data=False)
    place(tensor(model), **entries)
    path.write_bytes(model.SerializeToString())
    return path


def place(target: TensorProto, **entries: str | None) -> None:
    """Set the location of a tensor's external data."""
    old = {entry.key: entry.value for entry in target.external_data}
    del target.external_data[:]
    target.data_location = TensorProto.EXTERNAL
    for key, value in (old | entries).items():
        if value is not None:
            target.external_data.add(key=key, value=value)


def secret(folder: Path) -> Path:
    """A file that a model must not access, in the parent of the model's folder."""
    file = folder / "secret.bin"
    file.write_bytes(os.urandom(5000))
    inner = folder / "model"
    inner.mkdir()
    return inner


def linked_file(folder: Path) -> Path:
    inner = secret(folder)
    path = external(inner, location="link.data")
    (inner / "link.data").symlink_to("../secret.bin")
    return path


def linked_folder(folder: Path) -> Path:
    inner = secret(folder)
    path = external(inner, location="sub/secret.bin")
    (inner / "sub").symlink_to("..")
    return path


def linked_device(folder: Path) -> Path:
    (folder / "zero").symlink_to("/dev/zero")
    return external(folder, location="zero")


def pipe(folder: Path) -> Path:
    os.mkfifo(folder / "pipe")
    return external(folder, location="pipe")


def data_folder(folder: Path) -> Path:
    (folder / "data").mkdir()
    return external(folder, location="data")


def external_constant(folder: Path) -> Path:
    """A Constant node whose value lies outside the folder."""
    value = raw("c", [1], b"")
    place(value, location="../secret.bin")
    return written(folder, through(lambda net, x: net("Mul", x, net("Constant", value=value, out="c"))))


def external_in_branch(folder: Path) -> Path:
    value = raw("w", [1], b"")
    place(value, location="/etc/hostname")
    branch = helper.make_graph(
        [helper.make_node("Identity", ["w"], ["y"])], "branch", [],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])], [value],
    )  # fmt: skip

    def build(net: models.Net, x: str) -> str:
        return net("Mul", x, net("If", net.constant(np.array(True)), then_branch=branch, else_branch=branch))

    return written(folder, through(build))


def external_in_function(folder: Path) -> Path:
    value = raw("c", [1], b"")
    place(value, location="../secret.bin")
    nodes = [helper.make_node("Constant", [], ["c"], value=value), helper.make_node("Mul", ["x", "c"], ["y"])]
    return written(folder, with_functions(function("f", nodes)))


def external_texts(folder: Path) -> Path:
    value = TensorProto(name="c", dims=[1 << 40], data_type=TensorProto.STRING)
    place(value, location="net.data")
    return written(folder, through(lambda net, x: used(net, x, value)))
