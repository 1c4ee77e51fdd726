"""The monitor without a framework: what it measures, when it stops, and that its failures do not affect training."""

from __future__ import annotations

import inspect
import json
import logging
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnxgain import callbacks
from onnxgain.commands.callbacks import monitor as module
from onnxgain.commands.callbacks.monitor import VERDICTS, Measured, Monitor
from onnxgain.commands.callbacks.process import settings
from onnxgain.commands.python_api import argument_names
from onnxgain.errors import OnnxgainError
from tests.commands.callbacks.conftest import Learner
from tests.support import models

pytestmark = pytest.mark.usefixtures("own_cache")

EPOCHS = 14


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The warnings so far."""
    caplog.set_level(logging.WARNING, "onnxgain")

    class Messages(list[str]):
        def __iter__(self) -> Iterator[str]:
            return iter([record.getMessage() for record in caplog.records if record.name == "onnxgain"])

    return Messages()


def train(monitor: Monitor, learner: Learner, epochs: range) -> list[Measured]:
    found = monitor.poll()
    for epoch in epochs:
        monitor.take(epoch, lambda path: learner.export(epoch, path), lambda: learner.weights(epoch))
        found += monitor.poll()
    return found


def test_numbers_equal_those_of_track(learner: Learner, archive: Path, tmp_path: Path, run: Any) -> None:
    monitor = Monitor(tmp_path / "run", images=archive, preprocess="unit", stop_on="overfitting")
    monitor.start()
    found = train(monitor, learner, range(1, EPOCHS + 1)) + monitor.finish()
    assert [one.epoch for one in found] == list(range(1, EPOCHS + 1))
    code, text, _ = run(
        "track", tmp_path / "run", "--images", archive, "--preprocess", "unit", "--format", "json"
    )  # fmt: skip
    (expected,) = json.loads(text)["runs"]
    names = ("epoch", "gain_mean_db", "images_loss", "copies_loss", "surrogate")
    assert code == 0
    assert [(one.epoch, one.gain_db, one.images_loss, one.copies_loss, one.surrogate) for one in found] == [
        tuple(snapshot[name] for name in names) for snapshot in expected["snapshots"]
    ]
    last = found[-1]
    assert (last.verdict, last.onset, last.sentence) == ("overfitting", expected["onset"], expected["sentence"])
    assert last.agreement == expected["confidence"]
    assert monitor.should_stop
    assert last == monitor.last
    assert sorted(os.listdir(tmp_path / "run")) == sorted(f"epoch{n}.onnx" for n in range(1, EPOCHS + 1))
    assert last.metrics() == {
        "onnxgain/epoch": EPOCHS, "onnxgain/gain_db": last.gain_db, "onnxgain/images_loss": last.images_loss,
        "onnxgain/copies_loss": last.copies_loss, "onnxgain/surrogate": last.surrogate,
        "onnxgain/agreement": last.agreement,
    }  # fmt: skip


def test_only_the_first_snapshots_are_exported(learner: Learner, tmp_path: Path) -> None:
    exported = []
    monitor = Monitor(tmp_path, preprocess="unit")
    monitor.start()
    for epoch in range(1, 6):
        monitor.take(
            epoch,
            lambda path: (exported.append(epoch), learner.export(epoch, path)),
            lambda: learner.weights(epoch),
        )
        while monitor.last is None or monitor.last.epoch < epoch:
            monitor.poll()
            time.sleep(0.01)
    monitor.finish()
    assert exported == [1, 2]
    for epoch in range(1, 6):
        assert (tmp_path / f"epoch{epoch}.onnx").read_bytes() == learner.model(epoch).SerializeToString()


def test_run_can_be_resumed(learner: Learner, tmp_path: Path) -> None:
    """Snapshots of earlier epochs belong to the resumed run, those of later epochs to another run."""
    for epoch in (1, 2, 3, 4, 9):
        learner.export(epoch, tmp_path / f"epoch{epoch}.onnx")
    monitor = Monitor(tmp_path, preprocess="unit")
    monitor.start()
    found = train(monitor, learner, range(5, 7)) + monitor.finish()
    assert [one.epoch for one in found] == [5, 6]
    assert "a hint from the gains of 6 snapshots" in found[-1].certainty


def test_every_third_epoch_without_keeping_files(learner: Learner, tmp_path: Path) -> None:
    monitor = Monitor(tmp_path / "new" / "run", every=3, keep=False, preprocess="unit")
    monitor.start()
    found = train(monitor, learner, range(1, 8)) + monitor.finish()
    assert [one.epoch for one in found] == [3, 6]
    assert os.listdir(tmp_path / "new" / "run") == []


def test_patience(tmp_path: Path) -> None:
    monitor = Monitor(tmp_path, images="train-sample", stop_on=("too-high", "overfitting"), patience=2)
    for verdict, stop in [("too-high", 0), ("converged", 0), ("overfitting", 0), ("too-high", 1), ("converged", 1)]:
        monitor._replies.put({"epoch": 1, "verdict": verdict, "sentence": verdict})
        monitor.poll()
        assert monitor.should_stop == bool(stop), verdict


def test_the_signature_and_the_page_have_every_argument() -> None:
    taken = set(inspect.signature(callbacks.PyTorchMonitor).parameters)
    page = resources.files("onnxgain.docs").joinpath("callbacks.md").read_text(encoding="utf-8")
    rows = page.partition("| argument | meaning |")[2].partition("\n\n")[0]
    named = {name for row in rows.splitlines()[2:] for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert taken == named - {"example"}
    assert taken - {"log"} == set(inspect.signature(Monitor).parameters) - {"options"} | set(argument_names(settings))


# ------------------------------------------------------------------------------------------- what goes wrong
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"stop_on": "too_high"}, r"stop_on=: 'too_high' is not a verdict; choose from too-high, too-low"),
        ({"stop_on": "overfitting"}, r"stop_on=: overfitting cannot be told from gains alone; give images="),
        ({"stop_on": ["too-high", "overfitting"], "images": None}, r"stop_on=: overfitting cannot be told from gains"),
        ({"every": 0}, r"every=: 0 is less than 1"),
        ({"patience": 0}, r"patience=: 0 is less than 1"),
        ({"stimulus": "nonsense"}, r"stimulus= nonsense"),
        ({"preproces": "unit"}, r"there is no argument preproces"),
        ({"preprocess": "unitt"}, r"preprocess=.*unitt"),
        ({"images": "nowhere.npz"}, r"images= .*nowhere.npz: no such file or folder"),
    ],
)
def test_wrong_arguments_are_reported_before_training(arguments: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(OnnxgainError, match=message):
        Monitor(tmp_path / "run", **arguments).start()


def test_a_process_that_does_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COMMAND", (sys.executable, "-c", "raise SystemExit(3)"))
    with pytest.raises(OnnxgainError, match="does not start; run `onnxgain doctor`"):
        Monitor(tmp_path).start()


@pytest.mark.usefixtures("_hurried")
def test_a_process_that_starts_late(
    learner: Learner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logged: list[str]
) -> None:
    monkeypatch.setattr(module, "START_LIMIT", 0.01)
    monitor = Monitor(tmp_path, preprocess="unit")
    monitor.start()
    found = train(monitor, learner, range(1, 4)) + monitor.finish(300)
    assert [one.epoch for one in found] == [1, 2, 3]
    assert list(logged) == [
        "snapshots are measured later: the process for that is still starting, on a machine that is busy"
    ]


@pytest.mark.usefixtures("_hurried")
def test_a_process_that_starts_late_and_finds_an_argument_wrong(
    learner: Learner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logged: list[str]
) -> None:
    monkeypatch.setattr(module, "START_LIMIT", 0.01)
    monitor = Monitor(tmp_path, preprocess="unitt")
    monitor.start()
    train(monitor, learner, range(1, 4))
    assert monitor.finish(300) == []
    assert monitor._process is None
    assert list(logged)[1].startswith("training is not watched: ")
    assert "preprocess=" in list(logged)[1]
    assert "unitt" in list(logged)[1]


def test_a_network_that_cannot_be_exported(learner: Learner, tmp_path: Path, logged: list[str]) -> None:
    def fail(path: Path) -> None:
        raise ValueError("no such operator\nand much more")

    monitor = Monitor(tmp_path, preprocess="unit")
    monitor.start()
    for epoch in range(1, 4):
        monitor.take(epoch, fail, lambda: learner.weights(epoch))
    assert monitor.finish() == []
    assert list(logged) == [
        "training is not watched: the network cannot be exported, ValueError: no such operator"
    ]  # fmt: skip
    assert os.listdir(tmp_path) == []


def test_one_export_that_fails(learner: Learner, tmp_path: Path, logged: list[str]) -> None:
    def export(epoch: int, path: Path) -> None:
        if epoch in (3, 4):
            raise OSError("No space left on device")
        learner.export(epoch, path)

    monitor = Monitor(tmp_path, preprocess="unit")
    monitor.start()
    for epoch in range(1, 6):
        monitor.take(epoch, lambda path: export(epoch, path), lambda: None)
    assert [one.epoch for one in monitor.finish()] == [1, 2, 5]
    assert list(logged) == ["a snapshot is left out, OSError: No space left on device"]


def test_a_snapshot_that_cannot_be_measured(learner: Learner, tmp_path: Path, logged: list[str]) -> None:
    monitor = Monitor(tmp_path, preprocess="unit")
    monitor.start()
    for epoch in range(1, 5):
        write = (lambda path: path.write_bytes(b"nonsense")) if epoch == 2 else lambda path: learner.export(epoch, path)
        monitor.take(epoch, write, lambda: None)
    found = monitor.finish()
    assert [one.gain_db is None for one in found] == [False, True, False, False]
    (warning,) = logged
    assert warning.startswith("epoch 2 could not be measured: ")


def test_what_is_wrong_with_every_snapshot_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "onnxgain")
    net = models.Net()
    x = net.input("input", (None, 10))
    net.output(net("MatMul", x, net.constant(np.ones((10, 3), np.float32))), (None, 3))
    monitor = Monitor(tmp_path)
    monitor.start()
    for epoch in range(1, 4):
        monitor.take(epoch, lambda path: models.save(net.model(), path), lambda: None)
    found = monitor.finish()
    assert [one.problem is None for one in found] == [False] * 3
    (said,) = [record.getMessage() for record in caplog.records if record.name == "onnxgain"]
    assert said.startswith("epoch 1 could not be measured: ")
    assert "image_shape=" in said, "arguments are named, not options of the command"
    assert "--" not in said


def test_a_process_that_is_killed(learner: Learner, tmp_path: Path, logged: list[str]) -> None:
    monitor = Monitor(tmp_path, preprocess="unit")
    monitor.start()
    assert monitor._process is not None
    monitor._process.kill()
    monitor._process.wait()
    train(monitor, learner, range(1, 5))
    deadline = time.monotonic() + 10
    while not list(logged) and time.monotonic() < deadline:
        monitor.poll()
    assert monitor.finish() == []
    assert list(logged) == ["training is not watched any longer: the process that measures snapshots has ended"]


DEAF = """
import sys, time
sys.path[:0] = {path!r}
from onnxgain.fleet.protocol import write_message
write_message(sys.stdout.buffer, {{"ready": True}})
time.sleep(600)
"""


def test_a_process_that_hangs_blocks_nothing(
    learner: Learner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logged: list[str]
) -> None:
    monkeypatch.setattr(module, "COMMAND", (sys.executable, "-c", DEAF.format(path=sys.path)))
    monitor = Monitor(tmp_path)
    monitor.start()
    process = monitor._process
    assert process is not None
    start = time.monotonic()
    for epoch in range(1, module.MOST_WAITING + 50):
        monitor.take(epoch, lambda path: path.write_bytes(b""), lambda: None)
        monitor.poll()
    assert monitor.finish(0.1) == []
    assert time.monotonic() - start < 20
    assert process.poll() is not None
    assert list(logged) == [
        "measuring does not keep up: snapshots are left out until it does",
        "the last 200 snapshots were not measured in time; see `onnxgain track`",
    ]


def test_a_logger_that_fails(tmp_path: Path, logged: list[str]) -> None:
    monitor = Monitor(tmp_path)
    for _ in range(3):
        with monitor.guarded("metrics are not logged"):
            raise ConnectionError("no server")
    assert list(logged) == ["metrics are not logged, ConnectionError: no server"]


def test_the_process_ends_with_the_training(tmp_path: Path) -> None:
    code = (
        "import os, sys; from onnxgain.commands.callbacks.monitor import Monitor; m = Monitor(sys.argv[1]); m.start();"
        "print(m._process.pid, flush=True); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    process, end = Path(f"/proc/{int(done.stdout)}"), time.monotonic() + 10
    while process.exists() and time.monotonic() < end:
        time.sleep(0.05)
    assert not process.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="there is no nice")
def test_it_runs_at_the_lowest_priority(tmp_path: Path) -> None:
    monitor = Monitor(tmp_path)
    monitor.start()
    assert monitor._process is not None
    assert os.getpriority(os.PRIO_PROCESS, monitor._process.pid) == 19
    monitor.finish()


# ------------------------------------------------------------------------------------------------ the package
def test_verdicts_match_the_diagnosis() -> None:
    from onnxgain.analysis.diagnosis import VERDICTS as DIAGNOSED

    assert VERDICTS == DIAGNOSED


def test_imports_are_lazy() -> None:
    heavy = ("torch", "lightning", "keras", "transformers", "onnx", "onnxruntime", "scipy")
    code = (
        f"import sys, onnxgain.callbacks\nfrom onnxgain.callbacks import Measured\n"
        f"print(*[name for name in {heavy!r} if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "\n"


def test_what_the_package_offers() -> None:
    import onnxgain.callbacks

    assert dir(onnxgain.callbacks) == sorted(onnxgain.callbacks._HOMES) == sorted(onnxgain.callbacks.__all__)
    with pytest.raises(ImportError, match="cannot import name 'PaddleCallback'"):
        from onnxgain.callbacks import PaddleCallback  # noqa: F401


def test_examples_of_the_page_import_existing_names() -> None:
    import ast
    import inspect

    import onnxgain.callbacks
    from onnxgain.commands import docs

    blocks = re.findall(r"^```python3\n(.*?)^```", docs.read_page("callbacks"), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 4
    known = set(inspect.signature(Monitor).parameters) | {"images", "preprocess", "log"}
    for block in blocks:
        tree = ast.walk(ast.parse(block))
        calls = [node for node in tree if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
        ours = [call for call in calls if call.func.id in onnxgain.callbacks.__all__]
        assert len(ours) == 1
        assert {keyword.arg for keyword in ours[0].keywords} <= known


class Undeclared(Learner):
    """Takes pixels as they are, so that nothing declares their scale."""

    def model(self, epoch: int) -> onnx.ModelProto:
        model = super().model(epoch)
        for tensor in model.graph.initializer:
            if not tensor.dims:
                tensor.CopyFrom(numpy_helper.from_array(np.zeros((), np.float32), tensor.name))
        return model


def test_what_was_assumed_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, sample: tuple[np.ndarray, np.ndarray], patterns: np.ndarray
) -> None:
    monitor = Monitor(tmp_path)
    monitor.start()
    found = train(monitor, Undeclared(*sample, patterns), range(1, 4)) + monitor.finish()
    assert len({one.assumptions for one in found}) == 1
    (scale, *_) = found[-1].assumptions
    assert "nothing in the model declares one" in scale and "set it with preprocess=" in scale
    assert [record.getMessage() for record in caplog.records].count(f"assumed: {scale}") == 1


class Dying(Learner):
    """A learner all of whose weights are zero from the third epoch on, so that it has no gain."""

    def weights(self, epoch: int) -> list[np.ndarray]:
        kernel, bias = super().weights(epoch)
        return [kernel * (epoch < 3), bias]


def test_each_snapshot_without_a_gain_has_its_line_and_can_stop_the_training(
    sample: tuple[np.ndarray, np.ndarray], patterns: np.ndarray, archive: Path, tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    caplog.set_level(logging.INFO, "onnxgain")
    learner = Dying(*sample, patterns)
    monitor = Monitor(tmp_path / "run", images=archive, held_out=True, preprocess="unit", stop_on="too-high")
    monitor.start()
    found = train(monitor, learner, range(1, 10)) + monitor.finish()
    lines = [r.getMessage() for r in caplog.records if r.name == "onnxgain" and r.levelno == logging.INFO]
    assert [line.partition(":")[0] for line in lines] == [f"epoch {n}" for n in range(1, 10)]
    assert lines[-1].startswith("epoch 9: no gain, held-out loss 1.")
    assert "learning rate too high (from held-out images: the loss ends at " in lines[-1]
    warnings = [r.getMessage() for r in caplog.records if r.name == "onnxgain" and r.levelno == logging.WARNING]
    said = [warning for warning in warnings if "derivative is zero" in warning]
    assert said == ["epoch 3: no gain, as the derivative is zero at impulse; the losses are used"]
    assert found[-1].problem is None and monitor.should_stop
