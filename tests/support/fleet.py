"""Folders of small models, models that misbehave, and a child process whose behaviour depends on a model's name."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnxgain.fleet.child import COMMAND
from onnxgain.fleet.pool import Plan, Slot
from tests.support import models


def write_fleet(folder: Path, count: int, *, padding: int = 0) -> list[Path]:
    """``count`` classifiers with different weights: m0.onnx, m1.onnx, ...; with ``padding`` bytes of extra metadata."""
    folder.mkdir(parents=True, exist_ok=True)
    metadata = {"padding": "x" * padding}
    return [
        models.save(models.conv_net(margin=0.4 * i, metadata=metadata), folder / f"m{i}.onnx") for i in range(count)
    ]


def endless() -> onnx.ModelProto:
    """Takes days to run, with little memory: a Loop whose trip count is computed from the image, at least 2^40."""
    net = models.Net()
    x = net.input("image", ["N", 3, 8, 8])
    kinds = [helper.np_dtype_to_tensor_dtype(np.dtype(kind)) for kind in ("i8", "?", "f4")]
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["go_on"]), helper.make_node("Mul", ["v", "one"], ["w"])],
        "body",
        [helper.make_tensor_value_info(name, kind, []) for name, kind in zip(("i", "go", "v"), kinds, strict=True)],
        [helper.make_tensor_value_info(name, kind, []) for name, kind in zip(("go_on", "w"), kinds[1:], strict=True)],
        [numpy_helper.from_array(np.array(1.0, np.float32), "one")],
    )
    sign = net("ReduceMax", net("Sign", x), keepdims=0)
    more = net("Cast", sign, to=onnx.TensorProto.INT64)
    trips = net("Add", more, net.constant(np.array(2**40, np.int64)))
    loop = net("Loop", trips, net.constant(np.array(True)), sign, body=body)
    x = net("Mul", x, loop)
    models.add_head(net, models.add_linear(net, models.add_features(net, x, 3), 8, 4), 4, "logits")
    return net.model()


def huge() -> onnx.ModelProto:
    """A small file whose activations take gigabytes."""
    net = models.Net()
    x = net.input("image", ["N", 3, 8, 8])
    x = net("Tile", x, net.constant(np.array([1, 1, 2000, 2000], np.int64)))
    models.add_head(net, models.add_linear(net, models.add_features(net, x, 3), 8, 4), 4, "logits")
    return net.model()


_FAULTY = """
import os, signal, sys, time
import onnxgain.fleet.worker as worker
from onnxgain.measure.record import to_json

measured = 0
real, own_streams = worker._measure, worker._own_streams

def streams():
    global replies
    requests, replies = own_streams()
    return requests, replies

def measure(path, request, threads):
    global measured
    measured += 1
    name = path.stem
    if name == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    if name == "exit":
        os._exit(3)
    if name == "sleep":
        time.sleep(600)
    if name == "memory":
        raise MemoryError
    if name == "leftover" and measured > 1:
        os.abort()
    if name == "leak" and measured > 1:
        raise MemoryError
    if name == "bug":
        raise IndexError("list index out of range")
    if name == "deep":
        raise RecursionError
    if name == "print":
        os.write(1, b"native code prints this\\n" * 1000)
        print("so does Python")
    if name == "garbage":
        replies.write(b"\\x00\\x00\\x00\\x05hello")
        replies.flush()
        time.sleep(600)
    if name == "flood":
        replies.write(b"\\xff" * 100000)
        replies.flush()
        time.sleep(600)
    if name == "other":
        worker.write_message(replies, {"id": 99, "records": ""})
    return real(path, request, threads)

def reply(message):
    name = os.path.basename(message["path"])
    if name.startswith("lie"):
        return {"records": to_json([]), "external": []}
    if name.startswith("odd"):
        return {"error": {"type": "OSError", "what": 7}, "external": "everything"}
    return real_reply(message)

real_reply = worker._reply
worker._own_streams, worker._measure, worker._reply = streams, measure, reply
worker.main()
"""


def slot(*, timeout: float | None = 60, memory_limit: int | None = None, command: Sequence[str] = COMMAND) -> Slot:
    """A slot for a child process with one thread."""
    return Slot(Plan(1, 1, memory_limit, timeout), command)


def faulty_command(folder: Path) -> tuple[str, ...]:
    """A command that starts a child like `onnxgain.fleet.child.COMMAND`, which misbehaves for certain model names."""
    script = folder / "faulty_worker.py"
    script.write_text(_FAULTY)
    return sys.executable, str(script)
