"""Child processes: their results, and that any failure of one is an error of its model only."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from onnxgain.errors import ModelError, OnnxgainError, RuntimeUnavailableError, WorkerError
from onnxgain.fleet.child import COMMAND, Child, ChildDiedError
from onnxgain.fleet.pool import Slot
from onnxgain.fleet.protocol import MESSAGE_LIMIT, error_from_json, error_to_json, read_message, write_message
from onnxgain.measure.measure import score
from onnxgain.measure.request import Request
from onnxgain.model.reading import Reading
from tests.support import fleet, models

posix = pytest.mark.skipif(os.name != "posix", reason="signals")
linux = pytest.mark.skipif(sys.platform != "linux", reason="address space is limited on Linux only")
IMPULSE = Request()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return models.save(models.conv_net(), tmp_path / "model.onnx")


@pytest.fixture
def slot() -> Iterator[Slot]:
    with fleet.slot() as made:
        yield made


@pytest.fixture
def faulty(tmp_path: Path) -> Iterator[Slot]:
    with fleet.slot(command=fleet.faulty_command(tmp_path)) as made:
        yield made


def named(name: str, folder: Path) -> str:
    return str(models.save(models.conv_net(), folder / f"{name}.onnx"))


def pid_of(slot: Slot) -> int:
    assert slot._child is not None
    return slot._child.pid


def alive(pid: int) -> bool:
    """Whether a process is running (a zombie is not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_for(condition: object, seconds: float = 20.0) -> bool:
    assert callable(condition)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False


# ------------------------------------------------------------------------------------------------- messages
def test_messages_arrive_as_they_were_sent() -> None:
    sent = [{"id": 1, "text": "grün \ud800 \0"}, {}, {"long": "x" * 100_000}]
    stream = io.BytesIO()
    for message in sent:
        write_message(stream, message)
    stream.seek(0)
    assert [read_message(stream) for _ in sent] == sent
    assert read_message(stream) is None


@pytest.mark.parametrize("length", [1, 3, 4, 8])
def test_truncated_message_ends_the_stream(length: int) -> None:
    stream = io.BytesIO()
    write_message(stream, {"id": 1})
    assert read_message(io.BytesIO(stream.getvalue()[:length])) is None


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xff\xff\xff",
        b"\0\0\0\2[]",
        b"\0\0\0\4nope",
        b"\0\0\0\2\xff\xff",
        (99999).to_bytes(4, "big") + b"[" * 99999,
    ],
    ids=["too long", "no object", "no JSON", "no UTF-8", "nested"],
)
def test_garbage_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        read_message(io.BytesIO(data))


def test_neither_numbers_that_json_lacks_nor_endless_messages_are_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError):
        write_message(io.BytesIO(), {"gain": float("nan")})
    monkeypatch.setattr("onnxgain.fleet.protocol.MESSAGE_LIMIT", 100)
    with pytest.raises(ValueError, match="at most 100"):
        write_message(io.BytesIO(), {"text": "x" * 100})
    assert MESSAGE_LIMIT < 1 << 32


def test_errors_keep_their_class() -> None:
    error = ModelError("is bad", where="node 'x'", remedy=None)
    back = error_from_json(error_to_json(error))
    assert type(back) is ModelError
    assert str(back) == str(error)
    for name in ("SystemExit", "annotations", "no such name", ""):
        assert type(error_from_json({"type": name, "what": "w", "where": None, "remedy": None})) is OnnxgainError
    for wrong in (None, [], {}, {"type": "ModelError", "what": 3, "where": None, "remedy": None}):
        with pytest.raises(ValueError):
            error_from_json(wrong)


# ---------------------------------------------------------------------------------------------------- measuring
def test_child_gives_the_same_measurements(slot: Slot, model: Path) -> None:
    request = Request(stimuli=("impulse", "noise:seed=2"), projection="logit", class_index=3)
    answer = slot.measure(model, request)
    assert answer.error is None
    assert answer.external == ()
    from onnxgain.model.classifier import load_classifier

    stimuli = list(request.stimuli_for(load_classifier(model)))
    expected = [m.record for m in score(model, stimuli, projection="logit", class_index=3, threads=1)]
    assert [r.gain for r in answer.records] == [r.gain for r in expected]
    assert [(r.stimulus, r.model, r.class_index) for r in answer.records] == [
        (r.stimulus, r.model, r.class_index) for r in expected
    ]


def test_model_errors_are_the_same_in_a_child_which_continues(slot: Slot, model: Path, tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("not a model")
    models.save(models.dead_relu(), tmp_path / "dead.onnx")
    models.save(models.with_node("NoSuchOperator"), tmp_path / "unknown.onnx")
    assert slot.measure(model, IMPULSE).error is None
    pid = pid_of(slot)
    for name in ("text", "dead", "unknown", "missing"):
        path = tmp_path / f"{name}.onnx"
        answer = slot.measure(path, IMPULSE)
        with pytest.raises(OnnxgainError) as expected:
            score(path)
        assert type(answer.error) is type(expected.value)
        assert answer.error.what == expected.value.what
        assert not (answer.error.where or "").startswith(str(tmp_path))
    assert slot.measure(model, IMPULSE).error is None
    assert pid_of(slot) == pid


def test_external_files_are_named(slot: Slot, tmp_path: Path) -> None:
    path = models.save(
        models.conv_net(), tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0
    )
    answer = slot.measure(path, IMPULSE)
    assert answer.error is None
    assert answer.external == (str(tmp_path / "m.data"),)
    (tmp_path / "m.data").unlink()
    broken = slot.measure(path, IMPULSE)
    assert isinstance(broken.error, ModelError)
    assert broken.external == (str(tmp_path / "m.data"),)


def test_requests_round_trip(tmp_path: Path) -> None:
    import json

    import numpy as np

    from onnxgain.model.input_scale import input_scale

    reading = Reading(
        image_shape=(3, 8, 9), image_input="x", inputs={"a": np.array([[1.5, 2]], np.float32), "b": np.array(True)},
        output="o", head="softmax", scale=input_scale(mean=(1, 2, 3), std=4),
    )  # fmt: skip
    request = Request(reading, stimuli=("noise",), photos=(tmp_path / "a.png",), projection="one", class_index=0)
    back = Request.from_json(json.loads(json.dumps(request.to_json())))
    assert back.to_json() == request.to_json()
    assert back.photos == request.photos
    assert (back.reading.scale, back.reading.image_shape) == (reading.scale, reading.image_shape)
    np.testing.assert_array_equal(back.reading.inputs["a"], reading.inputs["a"])
    assert back.reading.inputs["b"].dtype == np.bool_
    assert back.reading.head == "softmax"


# ------------------------------------------------------------------------------------------------- what goes wrong
@posix
@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("segfault", "killed by SIGSEGV"),
        ("exit", "ended with exit code 3"),
        ("garbage", "sent an invalid reply"),
        ("flood", "sent an invalid reply"),
        ("other", "sent an invalid reply"),
        ("lie", "sent an invalid reply"),
        ("odd", "sent an invalid reply"),
        ("memory", "needs more memory"),
        ("bug", "a bug in onnxgain: IndexError list index out of range"),
        ("deep", "nested too deeply"),
    ],
)
def test_child_failure_is_an_error_of_its_model_only(faulty: Slot, tmp_path: Path, name: str, what: str) -> None:
    answer = faulty.measure(named(name, tmp_path), IMPULSE)
    assert answer.records == ()
    assert answer.error is not None
    assert what in str(answer.error)
    assert answer.error.remedy
    assert isinstance(answer.error, WorkerError) == (name not in ("bug", "deep"))
    assert faulty.measure(named("fine", tmp_path), IMPULSE).error is None


def test_a_child_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    with fleet.slot(timeout=0.5, command=fleet.faulty_command(tmp_path)) as slot:
        start = time.monotonic()
        answer = slot.measure(named("sleep", tmp_path), IMPULSE)
        assert isinstance(answer.error, WorkerError)
        assert "not measured within 0.5 s" in str(answer.error)
        assert time.monotonic() - start < 60
        slot.timeout = 60
        assert slot.measure(named("fine", tmp_path), IMPULSE).error is None


@posix
@pytest.mark.parametrize("name", ["leftover", "leak"])
def test_failure_in_a_used_child_is_retried_in_a_fresh_one(faulty: Slot, tmp_path: Path, name: str) -> None:
    """These models fail only in a used process, so they get a fresh one."""
    assert faulty.measure(named("fine", tmp_path), IMPULSE).error is None
    used = pid_of(faulty)
    assert faulty.measure(named(name, tmp_path), IMPULSE).error is None
    assert pid_of(faulty) != used


def test_output_of_native_code_is_not_a_message(
    faulty: Slot, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert faulty.measure(named("print", tmp_path), IMPULSE).error is None
    assert capfd.readouterr() == ("", "")


@posix
def test_a_child_killed_from_outside_is_replaced(slot: Slot, model: Path) -> None:
    assert slot.measure(model, IMPULSE).error is None
    os.kill(pid_of(slot), signal.SIGKILL)
    assert slot.measure(model, IMPULSE).error is None


@linux
def test_a_model_that_needs_too_much_memory(model: Path, tmp_path: Path) -> None:
    path = models.save(fleet.huge(), tmp_path / "huge.onnx")
    with fleet.slot(timeout=120, memory_limit=600_000_000) as slot:
        answer = slot.measure(path, IMPULSE)
        assert isinstance(answer.error, WorkerError)
        assert answer.error.what == "measuring it needs more memory than the limit of 600 MB"
        assert slot.measure(model, IMPULSE).error is None


@linux
def test_a_memory_limit_below_what_the_process_needs_is_a_usage_error(model: Path) -> None:
    slot = fleet.slot(memory_limit=20_000_000)
    with pytest.raises(OnnxgainError, match=r"--memory-limit 20 MB: measuring needs \d+ MB before it has read a model"):
        slot.measure(model, IMPULSE)


def test_missing_runtime_is_not_an_error_of_the_model(tmp_path: Path, model: Path) -> None:
    script = tmp_path / "no_runtime.py"
    script.write_text(
        "import sys\nsys.modules['onnxruntime'] = None\nimport onnxgain.fleet.worker\nonnxgain.fleet.worker.main()\n"
    )
    with pytest.raises(RuntimeUnavailableError):
        fleet.slot(command=(sys.executable, str(script))).measure(model, IMPULSE)


@pytest.mark.parametrize(
    ("code", "how"),
    [
        ("raise SystemExit(5)", r"ended with exit code 5;"),
        ("import onnxgain, nothing_of_the_kind", r"ended with exit code 1 \(ModuleNotFoundError: No module named"),
        ("print('hello there')", r"sent an invalid reply"),
        ("import sys; sys.stdout.buffer.write(bytes([0, 0, 0, 2]) + b'{}')", r"sent an invalid reply"),
    ],
)
def test_a_child_that_does_not_start_stops_everything(model: Path, code: str, how: str) -> None:
    slot = fleet.slot(command=(sys.executable, "-c", code))
    with pytest.raises(OnnxgainError, match=f"the measuring process does not start: it {how}"):
        slot.measure(model, IMPULSE)


def test_modules_in_the_current_folder_are_not_imported(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Models are untrusted, and so are the files next to them."""
    for name in ("json", "numpy", "onnx_ir", "onnxgain"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('hostile')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    with fleet.slot() as slot:
        assert slot.measure(Path("model.onnx"), IMPULSE).error is None


# --------------------------------------------------------------------------------------------------- the end
@posix
@pytest.mark.parametrize("busy", [False, True])
def test_a_child_ends_when_its_parent_does(tmp_path: Path, busy: bool) -> None:
    path = models.save(fleet.endless() if busy else models.conv_net(), tmp_path / "model.onnx")
    child = Child(COMMAND)
    assert child._process.stdin is not None
    if busy:
        write_message(child._process.stdin, {"id": 1, "path": str(path), "request": IMPULSE.to_json(), "threads": 1})
        time.sleep(1.0)
        assert alive(child.pid)
    child._process.stdin.close()
    assert wait_for(lambda: child._process.poll() is not None)
    assert child._process.returncode == 0
    child.kill()


@posix
def test_child_ignores_ctrl_c(slot: Slot, model: Path) -> None:
    assert slot.measure(model, IMPULSE).error is None
    pid = pid_of(slot)
    os.kill(pid, signal.SIGINT)
    assert slot.measure(model, IMPULSE).error is None
    assert pid_of(slot) == pid


@posix
def test_leaving_the_slot_ends_the_child(model: Path) -> None:
    with fleet.slot() as slot:
        slot.measure(model, IMPULSE)
        pid = pid_of(slot)
        assert alive(pid)
    assert not alive(pid)


def test_closing_a_slot_ends_a_measurement_under_way(tmp_path: Path) -> None:
    import threading

    slot = fleet.slot(timeout=None, command=fleet.faulty_command(tmp_path))
    path = named("sleep", tmp_path)
    found: list[object] = []

    def measure() -> None:
        try:
            found.append(slot.measure(path, IMPULSE))
        except OnnxgainError as error:
            found.append(error)

    thread = threading.Thread(target=measure)
    thread.start()
    assert wait_for(lambda: slot._child is not None and slot._child.used)
    slot.close()
    thread.join(20)
    assert not thread.is_alive()
    assert str(found[0]) == "interrupted"
    with pytest.raises(OnnxgainError, match="interrupted"):
        slot.measure(path, IMPULSE)


def test_worker_run_by_hand_exits_silently() -> None:
    result = subprocess.run(COMMAND, input=b"", capture_output=True, timeout=60, check=False)
    assert (result.returncode, result.stderr) == (0, b"")


def test_dead_child_is_reported(model: Path) -> None:
    child = Child(COMMAND)
    child._process.kill()
    child._process.wait()
    with pytest.raises(ChildDiedError) as died:
        child.ask({"path": str(model), "request": IMPULSE.to_json(), "threads": 1}, 10)
    assert died.value.cause == "crash"
    child.kill()
