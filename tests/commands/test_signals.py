"""A signal ends a command while the runtime is inside an endless loop of the model."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from onnxgain.commands import time_limit
from onnxgain.errors import OnnxgainError
from tests.support import models

Run = Callable[..., tuple[int, str, str]]

SHAPE = [1, 3, 8, 8]


def endless(path: Path) -> None:
    """A classifier with a loop of about 2**62 iterations; the number depends on the image."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["going"]), helper.make_node("Add", ["x", "nothing"], ["y"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE),
        ],
        [
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("y", TensorProto.FLOAT, SHAPE),
        ],
        [numpy_helper.from_array(np.zeros(SHAPE, np.float32), "nothing")],
    )
    weights = np.random.default_rng(0).normal(size=(192, 5)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Sign", ["image"], ["signs"]),
            helper.make_node("ReduceMin", ["signs"], ["sign"], keepdims=0),
            helper.make_node("Cast", ["sign"], ["more"], to=TensorProto.INT64),
            helper.make_node("Add", ["trips", "more"], ["all"]),
            helper.make_node("Loop", ["all", "true", "image"], ["looped"], body=body),
            helper.make_node("Flatten", ["looped"], ["flat"]),
            helper.make_node("MatMul", ["flat", "weights"], ["logits"]),
        ],
        "endless",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, SHAPE)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 5])],
        [
            numpy_helper.from_array(np.array(2**62), "trips"),
            numpy_helper.from_array(np.array(True), "true"),
            numpy_helper.from_array(weights, "weights"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows ends a process without asking it")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("command", ["inspect", "score", "verify"])
def test_a_signal_ends_a_command_inside_an_endless_loop(tmp_path: Path, command: str, number: signal.Signals) -> None:
    endless(tmp_path / "endless.onnx")
    process = subprocess.Popen(
        [sys.executable, "-m", "onnxgain", command, "endless.onnx"], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    time.sleep(6)
    assert process.poll() is None
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (2, "interrupted\n")


def test_python_code_may_clean_up_longer_than_the_grace_period(tmp_path: Path) -> None:
    program = (
        "import time\nfrom onnxgain.commands.signals import GRACE, terminable\n"
        "try:\n    with terminable(2):\n        print(flush=True)\n        time.sleep(60)\n"
        "except KeyboardInterrupt:\n    time.sleep(GRACE + 0.5)\n    print('cleaned up')\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    printed, _ = process.communicate(timeout=60)
    assert (process.returncode, printed) == (0, "cleaned up\n")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no alarm signal")
@pytest.mark.parametrize("arguments", ["inspect", "verify", "gradient -o graph.onnx", "diff endless.onnx"])
def test_the_time_limit_ends_a_command_inside_an_endless_loop(tmp_path: Path, arguments: str) -> None:
    endless(tmp_path / "endless.onnx")
    command, *others = arguments.split()
    done = subprocess.run(
        [sys.executable, "-m", "onnxgain", command, "endless.onnx", *others, "--timeout", "3"],
        cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    where = "endless.onnx or endless.onnx" if command == "diff" else "endless.onnx"
    said = f"error: {where}: takes longer than 3 s; give a longer --timeout if it is only slow\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", said)
    assert [path.name for path in tmp_path.iterdir()] == ["endless.onnx"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no alarm signal")
@pytest.mark.parametrize("command", ["inspect", "verify", "gradient", "saliency", "diff", "score"])
def test_reading_a_model_is_limited_by_default(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    """Python code that never ends, with the limit of the command shortened."""
    models.save(models.conv_net(), tmp_path / "model.onnx")
    Image.new("RGB", (10, 12)).save(tmp_path / "photo.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(time_limit, "READING", 0.5)
    monkeypatch.setattr("onnxgain.model.classifier.find_path", lambda *_: time.sleep(60))
    others = {"gradient": ["-o", "graph.onnx"], "saliency": ["photo.png"], "diff": ["model.onnx"]}.get(command, [])
    began = time.monotonic()
    code, _, said = run(command, "model.onnx", *others)
    where = "model.onnx or model.onnx" if command == "diff" else "model.onnx"
    assert (code, said) == (
        2,
        f"error: {where}: takes longer than 0.5 s; give a longer --timeout if it is only slow\n",
    )
    assert time.monotonic() - began < 30


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no alarm signal")
def test_the_clock_starts_again_with_each_step_and_is_stopped_at_the_end() -> None:
    with time_limit.limited("model.onnx", 1.0) as step:
        for _ in range(4):
            time.sleep(0.5)
            step()
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    assert signal.getsignal(signal.SIGALRM) == signal.SIG_DFL
    with pytest.raises(OnnxgainError, match=r"a.onnx: takes longer than 0.2 s"), time_limit.limited("a.onnx", 0.2):
        time.sleep(10)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no alarm signal")
def test_an_alarm_of_the_program_is_left_alone() -> None:
    rang: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, frame: rang.append(number))
    try:
        with time_limit.limited("model.onnx", 0.1):
            time.sleep(0.5)
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            time.sleep(0.5)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert rang == [signal.SIGALRM]
